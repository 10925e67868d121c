"""Sends what is new about jobs to the trackers that their recipes name."""
