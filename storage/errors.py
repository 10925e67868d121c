"""Errors of the storage."""


class StorageUnavailable(Exception):
    """The bucket does not answer, or refuses. The message may name the operator's bucket: it is for the log alone."""
