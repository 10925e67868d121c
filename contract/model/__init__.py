"""What a base model's folder reveals without loading it."""
