"""Reads files of examples into conversations: the API checks with it what the trainer will train on."""
