"""From a dataset's rows to the token ids that a job trains on."""
