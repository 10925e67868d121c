"""Commands on folders, outside of a training run: merge, import GGUF, answer."""
