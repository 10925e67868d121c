"""What a run minimises: one file for each method's loss, pure functions of log probabilities."""
