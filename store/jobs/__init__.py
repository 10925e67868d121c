"""Queries on jobs: rows, attempts, requested actions, events and reports."""
