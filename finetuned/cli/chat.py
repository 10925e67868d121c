"""`finetuned chat`."""

import json
import sys
from collections.abc import Iterable
from typing import Annotated, Literal

import typer

from finetuned import Client
from finetuned.address import DEFAULT_URL
from finetuned.cli.jobs import JobId
from finetuned.cli.options import Key, Url
from finetuned.cli.terminal import fail, note, out, print_plain
from finetuned.objects.jobs import JobModels

Question = Annotated[
    str | None, typer.Argument(metavar="QUESTION", help="One question. Without it, each line of the input is one.")
]
With = Annotated[Literal["base"] | None, typer.Option("--with", help="Answer with the base model too.")]
Step = Annotated[int | None, typer.Option("--checkpoint", metavar="STEP", help="Use the checkpoint of this step.")]
Temperature = Annotated[float, typer.Option(min=0, max=2, help="0 gives the most likely answer.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the answers, where the temperature is above 0.")]
AsLines = Annotated[bool, typer.Option("--json", help="Print the answers to each question as a line of JSON.")]


def chat(  # parameters: options
    job: JobId,
    question: Question = None,
    beside: With = None,
    checkpoint: Step = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    as_json: AsLines = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Ask a job's model, or its newest checkpoint, and the base model beside it."""
    with Client(url, key=key) as client:
        found = client.models.of(job)
        model = _choose(found, job, checkpoint)
        names = {"base": found.base, "job": model} if beside else {"job": model}
        note(f"model: {model}")
        for text in [question] if question is not None else _lines():
            messages = [{"role": "user", "content": text}]
            answers = {
                name: client.models.answer(each, messages, temperature=temperature, seed=seed)
                for name, each in names.items()
            }
            _print(text, answers, as_json)


def _choose(found: JobModels, job: str, checkpoint: int | None) -> str:
    model = found.newest if checkpoint is None else found.at(checkpoint)
    if model is None and checkpoint is None:
        fail(f"job {job} has saved no adapter yet")
    if model is None:
        fail(f"job {job} has no checkpoint of step {checkpoint}; it has: {', '.join(found.checkpoints) or 'none'}")
    return model


def _lines() -> Iterable[str]:
    return filter(None, map(str.strip, sys.stdin))


def _print(question: str, answers: dict[str, str], as_json: bool) -> None:
    if as_json:
        print_plain(json.dumps({"question": question, **answers}, ensure_ascii=False))
        return
    for name, answer in answers.items():
        label = f"{name}: " if len(answers) > 1 else ""
        out.print(f"{label}{answer}", markup=False, highlight=False, soft_wrap=True)
