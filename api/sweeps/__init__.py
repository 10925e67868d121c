"""Sweeps: one recipe and the values to try become a group of jobs."""
