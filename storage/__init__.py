"""The bytes of datasets and artifacts, in a folder or a bucket."""
