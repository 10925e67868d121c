"""What the storage refuses or fails at."""


class StorageUnavailable(Exception):
    """The bucket does not answer, or refuses. The message may hold names of the operator's: it is for the log alone."""
