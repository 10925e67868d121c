"""Bytes of datasets and artifacts, in a folder or a bucket."""
