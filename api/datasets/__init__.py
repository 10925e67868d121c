"""Datasets: uploads, what their rows hold, and how they are as a model's tokens."""
