"""Estimates what a recipe will take before it is trained: pure functions of the recipe, the model's headers and config,
the dataset's lengths and the machines. A value that cannot be known is left out, with the reason."""
