"""Runs jobs: begins an attempt, starts its trainer, records its events, and writes how it ended."""
