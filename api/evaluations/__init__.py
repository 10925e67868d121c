"""Evaluations: a dataset run through a job's base model and its adapter, and the scores of both."""
