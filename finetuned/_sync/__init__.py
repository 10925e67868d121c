"""Generated from finetuned/_async by scripts/client.py; edit that."""
