"""What a base model's folder says about the model, without loading it."""
