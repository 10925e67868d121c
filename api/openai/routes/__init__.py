"""The routes of the OpenAI-compatible API; each is one call."""
