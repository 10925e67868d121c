"""The text of an answer, token by token."""

from collections.abc import Sequence

from dataset.rendering.folder_tokenizer import FolderTokenizer

_UNFINISHED = "�"
"""What a token decodes to that ends within a character."""


class AnswerText:
    """Gives out text as soon as no later token can change it, and none after a stop string has begun."""

    def __init__(self, tokenizer: FolderTokenizer, stop: Sequence[str], hold_from: str | None = None) -> None:
        self.stopped = False
        """Whether a stop string has come. It is no part of the text."""
        self.held = ""
        """The text from `hold_from` on, which is not given out."""
        self._tokenizer = tokenizer
        self._stop = stop
        self._hold_from = hold_from
        self._ids: list[int] = []
        self._begin = 0
        """The first of the tokens that are decoded together with the next one: a token may be written in another way at
        the beginning of a text."""
        self._known = 0
        """The number of tokens whose text is known."""
        self._waiting = ""
        """Text that may turn out to be the beginning of a stop string."""

    def add(self, token: int) -> str:
        """The text that is certain now."""
        self._ids.append(token)
        before = self._decode(self._begin, self._known)
        text = self._decode(self._begin, len(self._ids))
        if text.endswith(_UNFINISHED) or len(text) <= len(before):
            return ""
        self._begin, self._known = self._known, len(self._ids)
        return self._give_out(text[len(before) :], last=False)

    def end(self) -> str:
        """The rest of the text."""
        before = self._decode(self._begin, self._known)
        text = self._decode(self._begin, len(self._ids))
        return "" if self.stopped else self._give_out(text[len(before) :], last=True)

    def _decode(self, begin: int, end: int) -> str:
        return self._tokenizer.decode(self._ids[begin:end], skip_special_tokens=True)

    def _give_out(self, more: str, last: bool) -> str:
        text = self._waiting + more
        # The first to be complete stops the answer, however tokens divide the text.
        found = [(place + len(word), place) for word in self._stop if (place := text.find(word)) >= 0]
        if found:
            self.stopped, self._waiting = True, ""
            return self._without_held(text[: min(found)[1]])
        words = [*self._stop] if self._hold_from is None or self.held else [*self._stop, self._hold_from]
        kept = 0 if last else max((_common(text, word) for word in words), default=0)
        self._waiting = text[len(text) - kept :]
        return self._without_held(text[: len(text) - kept])

    def _without_held(self, text: str) -> str:
        if self._hold_from is None:
            return text
        if self.held:
            self.held += text
            return ""
        before, begin, after = text.partition(self._hold_from)
        self.held = begin + after
        return before


def _common(text: str, word: str) -> int:
    """The length of the end of the text with which the word begins, shorter than the word."""
    return next((size for size in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:size])), 0)
