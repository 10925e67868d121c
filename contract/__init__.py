"""What all parts of finetuned share. It needs only pydantic and the standard library."""
