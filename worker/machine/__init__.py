"""What this machine has to train with, and who uses it."""
