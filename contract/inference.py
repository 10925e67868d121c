"""What an inference server is given and what it answers: the files of its folder, and the lines of its HTTP responses.

The folder has SPEC when the server starts. The server writes READY there once it answers, or `error.json`, a
contract.failure.Failure. `POST /answers` takes an AnswerRequest and gives one JSON object in each line: PromptTokens,
then Pieces, then Done. A response without Done was cut off. A request that is refused gets a Refusal instead. While
there is nothing else to say, an Alive comes every few seconds.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from contract.section import Section

SPEC = "server.json"
READY = "ready.json"
ANSWERS = "/answers"


class VllmSpec(Section):
    command: list[str]
    """vLLM's own command, in an environment of its own."""
    options: list[str]
    """Further ones of `vllm serve`."""


class ServerSpec(Section):
    model: str
    """Absolute folder of the base model, or a hub id."""
    host: str
    """Address at which it listens, on a port that it chooses."""
    secret: str
    """Every request has it as a bearer token."""
    idle_seconds: float
    """It ends after so long without a request."""
    adapters: int
    """Most adapters loaded at once."""
    batch: int
    """Most answers at once. Others wait."""
    vllm: VllmSpec | None = None
    """Answers in place of the server's own model."""


class Ready(Section):
    port: int


class Sampling(Section):
    temperature: float = 1.0
    """0 always takes the most likely token."""
    top_p: float = 1.0
    max_tokens: int | None = None
    """Most tokens of each answer; None is what the model's context leaves, at most DEFAULT_TOKENS."""
    stop: list[str] = Field(default=[])
    seed: int | None = None
    logprobs: int | None = None
    """Number of alternatives given with each token; None gives no probabilities at all."""


DEFAULT_TOKENS = 4096


class AnswerRequest(Section):
    adapter: str | None
    """Absolute folder of the adapter; None is the base model."""
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    template_arguments: dict[str, Any] = Field(default={})
    text: str | None = None
    """A text to continue, in place of messages."""
    n: int = 1
    sampling: Sampling = Sampling()


class Alive(Section):
    """Says that the server still works on the request. Where nobody reads it any more, the server notices."""

    type: Literal["alive"] = "alive"


class PromptTokens(Section):
    type: Literal["prompt"] = "prompt"
    tokens: int


class ScoredToken(Section):
    text: str
    logprob: float
    top: list[tuple[str, float]] = Field(default=[])
    """The most likely tokens in its place."""


class Call(Section):
    name: str
    arguments: dict[str, Any]


class Piece(Section):
    type: Literal["piece"] = "piece"
    index: int
    """Number of the answer, below `n`."""
    text: str = ""
    tokens: list[ScoredToken] = Field(default=[])
    calls: list[Call] = Field(default=[])
    finish: Literal["stop", "length", "tool_calls"] | None = None


class Done(Section):
    type: Literal["done"] = "done"
    tokens: int
    """Tokens of all answers, with those that ended them."""


class Refusal(Section):
    type: Literal["refusal"] = "refusal"
    code: str
    message: str
    param: str | None = None
    retry: bool = False
    """Whether the same request may succeed later."""


Line = Annotated[Alive | PromptTokens | Piece | Done | Refusal, Field(discriminator="type")]
LINE: TypeAdapter[Line] = TypeAdapter(Line)
