"""The trainer beside what people would use instead, on the same tokens, in one run: `python -m benchmarks.trainer`."""
