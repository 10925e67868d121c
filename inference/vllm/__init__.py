"""Answers come from vLLM: a child process of the inference server, from an environment of its own.

Written against vLLM 0.33.0.
"""
