"""Processes that outlive nobody: the guard of a trainer, orphans, and the reconciler of a worker."""
