"""Requests for answers: OpenAI's fields, as far as an inference server has what they want."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from api.errors import InvalidParameter
from api.openai.mapping import RequestModel
from contract import patterns
from contract.inference import AnswerRequest, Sampling

MOST_ANSWERS = 16
_USUAL_COMPLETION = 16
"""OpenAI's default for a completion."""

_Name = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=patterns.TEXT)]
_Stop = Annotated[str, StringConstraints(min_length=1, max_length=200)]
_Tokens = Annotated[int, Field(ge=1, le=1_000_000)]


class StreamOptions(RequestModel):
    include_usage: bool = False
    """Whether a last chunk gives the usage."""


class _Answers(RequestModel):
    model: _Name
    """A base model, a fine-tuned model or a checkpoint, as GET /v1/models and a job's checkpoints name them."""
    max_tokens: _Tokens | None = None
    """Most tokens of each answer."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0 always takes the most likely token; the default is 1."""
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Only the most likely tokens are chosen from, which together have this probability."""
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = None
    """Number of answers."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    """The same request with the same seed gives the same answers."""
    stop: _Stop | Annotated[list[_Stop], Field(max_length=16)] | None = None
    """Texts at which an answer ends."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def with_usage(self) -> bool:
        """Raises InvalidParameter."""
        if self.stream_options is None:
            return False
        if not self.stream:
            raise InvalidParameter(
                "stream_options", self.stream_options.model_dump(), "set stream to true, or leave it out"
            )
        return self.stream_options.include_usage

    def sampling(self, max_tokens: int | None, logprobs: int | None) -> Sampling:
        return Sampling(
            temperature=1.0 if self.temperature is None else float(self.temperature),
            top_p=1.0 if self.top_p is None else float(self.top_p),
            max_tokens=max_tokens,
            stop=[self.stop] if isinstance(self.stop, str) else self.stop or [],
            seed=self.seed,
            logprobs=logprobs,
        )


class ChatCompletionRequest(_Answers):
    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=10_000)]
    """The conversation, in the format of a dataset's messages."""
    max_completion_tokens: _Tokens | None = None
    """Newer name of max_tokens."""
    logprobs: bool | None = None
    """Whether each token comes with its log probability."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """Number of the most likely tokens that are given with each."""
    tools: Annotated[list[dict[str, Any]], Field(max_length=128)] | None = None
    """Functions that the model may call."""
    tool_choice: Literal["auto", "none"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    """Arguments of the chat template, as in a dataset's rows: {"enable_thinking": false}."""

    def to_server(self, adapter: str | None) -> AnswerRequest:
        """Raises InvalidParameter."""
        if self.max_tokens is not None and self.max_completion_tokens not in (None, self.max_tokens):
            wanted = f"max_completion_tokens is {self.max_completion_tokens}; give one of them"
            raise InvalidParameter("max_tokens", self.max_tokens, wanted)
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidParameter("top_logprobs", self.top_logprobs, "set logprobs to true, or leave it out")
        logprobs = (self.top_logprobs or 0) if self.logprobs else None
        return AnswerRequest(
            adapter=adapter,
            messages=self.messages,
            tools=None if self.tool_choice == "none" else self.tools,
            template_arguments=self.chat_template_kwargs or {},
            n=self.n or 1,
            sampling=self.sampling(self.max_completion_tokens or self.max_tokens, logprobs),
        )


class CompletionRequest(_Answers):
    prompt: Annotated[str, StringConstraints(max_length=1_000_000)]
    """A text to continue, without a chat template."""
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    """Number of the most likely tokens that are given with each."""

    def to_server(self, adapter: str | None) -> AnswerRequest:
        most = self.max_tokens or _USUAL_COMPLETION
        return AnswerRequest(
            adapter=adapter, text=self.prompt, n=self.n or 1, sampling=self.sampling(most, self.logprobs)
        )
