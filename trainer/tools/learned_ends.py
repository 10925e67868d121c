"""The tokens that ended an adapter's answers in training, for those who save it in another form."""

from pathlib import Path

from contract.recipe import Recipe
from dataset.rendering.tokenizer import end_of_answer
from trainer.data.end_tokens import read_end_tokens
from trainer.data.tokenizer import load_tokenizer


def learned_ends(recipe: Recipe) -> set[int]:
    """Their ids; empty where they are the base's own."""
    ends = set(read_end_tokens(Path(recipe.adapter.start_from or "")))
    if recipe.dataset.chat_template is not None:
        tokenizer = load_tokenizer(recipe)
        ends.add(tokenizer.get_vocab()[end_of_answer(tokenizer, recipe.dataset.chat_template)])
    return ends
