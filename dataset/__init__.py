"""Reads files of examples into conversations. The API checks files with the code that the trainer reads them with."""
