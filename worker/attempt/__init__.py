"""One attempt at a job, from its run folder to its outcome."""
