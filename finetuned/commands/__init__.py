"""What the command does, a file for each noun."""
