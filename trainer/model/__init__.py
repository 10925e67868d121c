"""The base model, its adapter, and everything that runs in a forward and backward pass."""
