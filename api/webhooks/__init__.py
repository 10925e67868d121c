"""Webhooks: addresses that receive a message when a job starts or ends."""
