"""OpenAI's wire: code against `client.fine_tuning`, `client.files` and `client.models` of its SDK runs here as it is.
It has no rows of its own: a fine-tuning job is a job, a file is a dataset."""
