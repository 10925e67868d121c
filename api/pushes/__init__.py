"""Uploads artifacts to a model hub."""
