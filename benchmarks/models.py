"""Random models for benchmarks that train where no real one is given."""

import math
from pathlib import Path

from tests.support.files import write_tokenizer


def random_llama(folder: Path, layers: int, hidden: int, inner: int) -> Path:
    """Writes a llama with random weights and a tokenizer of bytes; gives its folder."""
    from transformers import AutoModelForCausalLM, LlamaConfig  # takes seconds

    heads = hidden // 64
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": inner}
    config = LlamaConfig(**sizes, num_attention_heads=heads, num_key_value_heads=math.gcd(4, heads), vocab_size=8000)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    write_tokenizer(folder)
    return folder
