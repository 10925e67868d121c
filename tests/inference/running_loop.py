"""The decoding of an inference server in this process, and what plain PEFT answers to the same."""

import math
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import AutoModelForCausalLM

from contract.evaluation import EvaluationRequest
from contract.inference import AnswerRequest, Done, Line, Piece, PromptTokens, Refusal, Sampling
from contract.recipe import DatasetSource, Recipe
from dataset.dataset_reader import file_sha256
from dataset.document import Document
from inference.adapters import Adapters
from inference.answers import Answers
from inference.batch import PaddedBatch, Singles
from inference.loop import Loop
from inference.padding_check import takes_padded_rows
from inference.prompts import Prompts
from inference.serving import positions_of
from trainer.model.base_model import load_base

TEXTS = ("What is 3 plus 3?", "Say hello, please.", "a", "Be brief, Ada. And now goodbye, and see you soon.")


A_DAY = 86400.0
"""Seconds without a request: a module's engine waits for tests that use another one."""


class RunningLoop:
    def __init__(self, model: Path, most_adapters: int = 8, most: int = 16, room: float = math.inf) -> None:
        recipe = Recipe.model_validate({"model": str(model), "dataset": "-"})
        base = load_base(recipe, torch.float32, torch.device("cpu")).eval()
        self.adapters = Adapters(base, most_adapters)
        self.kind: type[PaddedBatch] | type[Singles] = PaddedBatch if takes_padded_rows(base.config) else Singles
        self.loop = Loop(self.adapters, most, self.kind, room)
        self.prompts = Prompts(str(model), base.generation_config, positions_of(base.config))
        self._thread = threading.Thread(target=self.loop.run, args=(A_DAY,))

    def __enter__(self) -> "RunningLoop":
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.loop.stop()
        self._thread.join()

    def submit(self, text: str, adapter: Path | None = None, n: int = 1, **sampling: Any) -> Answers:
        answers = self.prompts.read(request(text, adapter, n, **sampling))
        assert self.loop.submit(answers) is None
        return answers

    def answer(self, text: str, adapter: Path | None = None, n: int = 1, **sampling: Any) -> list[Piece]:
        return pieces(self.submit(text, adapter, n, **sampling))


def request(text: str, adapter: Path | None = None, n: int = 1, **sampling: Any) -> AnswerRequest:
    chosen = Sampling(**{"temperature": 0, "max_tokens": 12, "logprobs": 0, **sampling})
    return AnswerRequest(adapter=str(adapter) if adapter else None, text=text, n=n, sampling=chosen)


def lines(answers: Answers) -> list[Line]:
    """All lines, to the last."""
    found: list[Line] = []
    while not found or not isinstance(found[-1], (Done, Refusal)):
        found.append(answers.lines.get(timeout=60))
    return found


def pieces(answers: Answers) -> list[Piece]:
    first, *middle, last = lines(answers)
    assert isinstance(first, PromptTokens)
    assert isinstance(last, Done), last
    return [each for each in middle if isinstance(each, Piece)]


def text_of(found: list[Piece], index: int = 0) -> str:
    return "".join(piece.text for piece in found if piece.index == index)


def logprobs_of(found: list[Piece], index: int = 0) -> list[float]:
    return [token.logprob for piece in found if piece.index == index for token in piece.tokens]


@torch.inference_mode()
def plain(model: Path, adapter: Path | None, prompt: list[int], ends: list[int], most: int) -> tuple[list[int], Any]:
    """The tokens of plain PEFT's generate without the one that ends them, and their log probabilities."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter is not None:
        loaded = PeftModel.from_pretrained(loaded, adapter)
    ids = torch.tensor([prompt])
    output = loaded.eval().generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=most,
        do_sample=False,
        eos_token_id=ends,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    said = output.sequences[0, len(prompt) :].tolist()
    scores = torch.log_softmax(torch.cat(output.logits), dim=-1).gather(1, torch.tensor(said)[:, None])[:, 0]
    kept = len(said) - (said[-1] in ends)
    return said[:kept], scores[:kept]


@torch.inference_mode()
def plain_loss(folder: Path, adapter: Path | None, document: Document) -> float:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    logits = model.eval()(torch.tensor([document.input_ids]), use_cache=False).logits[0]
    learned = torch.tensor([index for index, each in enumerate(document.supervised) if each])
    targets = torch.tensor(document.input_ids)[learned]
    return float(F.cross_entropy(logits[learned - 1].float(), targets, reduction="sum"))


def evaluation_request(file: Path, adapter: Path, **changes: Any) -> EvaluationRequest:
    source = DatasetSource(path=str(file), sha256=file_sha256(file), filename=file.name)
    wanted = EvaluationRequest(
        adapter=str(adapter),
        dataset=source,
        after=0,
        limit=100,
        max_length=120,
        max_new_tokens=8,
        temperature=0,
        seed=0,
    )
    return wanted.model_copy(update=changes)
