"""The `finetuned` command: one module per noun, and what draws on the terminal."""
