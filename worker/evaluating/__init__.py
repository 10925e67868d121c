"""Evaluations: each example is evaluated by an inference server, scored here, and kept as a row."""
