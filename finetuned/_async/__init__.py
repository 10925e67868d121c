"""The client's source. finetuned/_sync is generated from it: scripts/client."""
