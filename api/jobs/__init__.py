"""Jobs: how a recipe becomes one, and what their owners do with them."""
