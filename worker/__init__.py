"""Runs the jobs: claims a row, launches the trainer, tails what it tells, writes how it ended."""
