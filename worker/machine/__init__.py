"""The devices of this machine, and who uses them."""
