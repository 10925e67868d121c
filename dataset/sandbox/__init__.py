"""Reads files and renders templates in a process with limits, since both may be hostile."""
