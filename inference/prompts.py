"""Checks a request and makes its prompt. Several threads do so at once, none of which calls the model."""

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from contract.failure import FailureCode, InputError
from contract.inference import DEFAULT_TOKENS, AnswerRequest, Refusal
from dataset.rendering.folder_tokenizer import FolderTokenizer, read_tokenizer
from dataset.rendering.prompt import chat_prompt, text_prompt
from dataset.rendering.tokenizer import set_chat_template
from dataset.rendering.tool_calls import writes_known_calls
from inference.answers import Answers, AnswerTokens
from trainer.data.end_tokens import end_token_ids, read_end_tokens
from trainer.data.tokenizer import tokenizer_folder
from trainer.model.base_model import max_positions

_TOKENIZERS_KEPT = 16


class Refused(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


@dataclass(frozen=True)
class DocumentTokens:
    """How training reads examples, and where an answer to one of them ends: for the base model as for the adapter."""

    tokenizer: FolderTokenizer
    of_answers: AnswerTokens
    positions: int | None
    """Most tokens of an example that the model can read at all; None where it has no such limit."""
    context: int | None
    """Most tokens of an answer with its prompt; None where that is not known."""


class Prompts:
    """The tokenizers of a base model and of its adapters, and what its context holds."""

    def __init__(self, model: str, generation_config: Any, positions: int | None) -> None:
        self._model = model
        self._ends: frozenset[int] = frozenset(end_token_ids(generation_config))
        self._positions = positions
        self._own = read_tokenizer(tokenizer_folder(model))
        self._of_adapter = lru_cache(_TOKENIZERS_KEPT)(self._read_adapter)
        self._with_template = cache(self._read_with_template)

    def read(self, request: AnswerRequest) -> Answers:
        """Raises Refused, InputError for what cannot be answered."""
        adapter = None if request.adapter is None else Path(request.adapter)
        tokens = AnswerTokens(self._own, self._ends) if adapter is None else self._of_adapter(adapter)
        if request.tools and not writes_known_calls(tokens.tokenizer.chat_template):
            message = (
                "tools: the model's chat template writes calls in a way that is not read here; leave tools out, or use "
                "a model whose template writes them between <tool_call> and </tool_call>"
            )
            raise InputError(FailureCode.MODEL_UNSUPPORTED, message, "tools")
        if request.text is not None:
            param, prompt = "prompt", text_prompt(tokens.tokenizer, request.text)
        else:
            param = "messages"
            prompt = chat_prompt(tokens.tokenizer, request.messages, request.tools, request.template_arguments)
        most = self._most(param, len(prompt), request.sampling.max_tokens)
        return Answers(prompt, most, adapter, tokens, request.sampling, request.n, finds_calls=bool(request.tools))

    def document_tokens(self, adapter: Path, chat_template: str | None) -> DocumentTokens:
        """As the trainer of the adapter had them. Raises InputError for a template that the tokenizer cannot write."""
        tokenizer = self._own if chat_template is None else self._with_template(chat_template)
        answers = AnswerTokens(tokenizer, self._ends.union(read_end_tokens(adapter)))
        return DocumentTokens(tokenizer, answers, max_positions(self._model), self._positions)

    def _most(self, param: str, length: int, wanted: int | None) -> int:
        if self._positions is None:
            return wanted or DEFAULT_TOKENS
        if length + (wanted or 1) > self._positions:
            and_answer = f" and max_tokens {wanted}" if wanted else ""
            message = (
                f"{param}: its {length} tokens{and_answer} do not fit into the {self._positions} tokens of this "
                "model's context; shorten it"
            )
            raise Refused(Refusal(code="context_length_exceeded", message=message, param=param))
        return wanted or min(DEFAULT_TOKENS, self._positions - length)

    def _read_adapter(self, adapter: Path) -> AnswerTokens:
        # An adapter that was trained with its own chat template has a tokenizer beside it.
        has_own = (adapter / "tokenizer_config.json").is_file()
        tokenizer = read_tokenizer(adapter) if has_own else self._own
        return AnswerTokens(tokenizer, self._ends.union(read_end_tokens(adapter)))

    def _read_with_template(self, name: str) -> FolderTokenizer:
        tokenizer = read_tokenizer(tokenizer_folder(self._model))
        set_chat_template(tokenizer, name)
        return tokenizer
