"""What a run saves: adapters, training checkpoints, and the fence that stops a superseded attempt."""
