"""The routes of OpenAI's wire; each is one call."""
