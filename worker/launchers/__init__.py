"""What starts the trainer of an attempt: this machine, or a cluster with its own queue. Nothing above knows which."""
