"""The OpenAI-compatible API: other names for the same rows."""
