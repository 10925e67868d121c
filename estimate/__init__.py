"""What a recipe will take, told before it is trained: pure functions of the recipe, the model's headers and its config,
the dataset's lengths, and what machines have. What cannot be known is not told, and the reason is."""
