"""The inference server: a process that holds one base model and answers with it and with adapters on it."""
