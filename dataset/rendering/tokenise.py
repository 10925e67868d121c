"""From examples to token ids, with the tokens of the answers marked as the ones to learn."""

import itertools
from bisect import bisect_right
from collections.abc import Iterable

from dataset.document import Document
from dataset.example import Example
from dataset.rendering.render import Span, render
from dataset.rendering.tokenizer import Tokenizer


def encode(tokenizer: Tokenizer, examples: Iterable[Example]) -> list[list[Document]]:
    """The documents of each example, uncut; see render for their number. Raises InputError that names the row."""
    rendered = [render(tokenizer, example) for example in examples]
    texts = list(itertools.chain.from_iterable(rendered))
    encoded = tokenizer([text for text, _ in texts], add_special_tokens=False, return_offsets_mapping=True)
    special = frozenset(tokenizer.all_special_ids)
    documents = (
        Document(ids, _supervised(ids, offsets, text, spans, special))
        for ids, offsets, (text, spans) in zip(encoded["input_ids"], encoded["offset_mapping"], texts, strict=True)
    )
    return [list(itertools.islice(documents, len(parts))) for parts in rendered]


def _supervised(
    ids: list[int], offsets: list[Span], text: str, spans: list[Span], special: frozenset[int]
) -> list[bool]:
    """Marks the tokens that begin and end inside one of the spans. A token that begins before an answer is not marked:
    at generation the prompt ends there. White space after the end-of-turn token is not marked either: generation
    ends there."""
    flags = [False] * len(ids)
    begins = [begin for begin, _ in spans]
    inside: list[list[int]] = [[] for _ in spans]
    for i, (first, last) in enumerate(offsets):
        span = bisect_right(begins, first) - 1
        if span >= 0 and begins[span] < last <= spans[span][1]:
            inside[span].append(i)
    for (_, end), tokens in zip(spans, inside, strict=True):
        last_special = next((i for i in reversed(tokens) if ids[i] in special), None)
        if last_special is not None and not text[offsets[last_special][1] : end].strip():
            tokens = [i for i in tokens if i <= last_special]
        for i in tokens:
            flags[i] = True
    if flags:
        flags[0] = False
    return flags
