"""`finetuned demo`: one job from an empty home folder to a model whose answers have changed."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from finetuned import Client
from finetuned.cli.watch import watch
from finetuned.events import JobEvent
from finetuned.stack import services
from finetuned.stack.models import await_import, launch_import
from finetuned.stack.process import Command, StackError, descendants, start, stop, wait_until_done
from finetuned.stack.settings import StackSettings, with_secrets_of
from finetuned.status import Status

MODEL = "smollm2-135m-instruct"
RECIPE = Path("examples/recipes/quickstart.json")
OUTPUT = Path("demo-output")
QUESTIONS = [
    "Which command starts the whole service on my machine?",
    "Will I lose my job when the server is restarted?",
    "From where can I download the adapter that was trained?",
]


def run(home: Path, host: str, port: int, console: Console, exit_after: bool) -> None:
    """Runs the demo. Raises StackError, ServiceError, and KeyboardInterrupt when the user stops it."""
    clock = _Clock(console)
    root = _root()
    settings = StackSettings(home, host, port, {"FINETUNED_ALLOWED_PATHS": str(root)} | dict(os.environ))
    with ExitStack() as parts:
        services.check_port(host, port)
        importing = launch_import(MODEL, settings.models, settings.logs / "import.log")
        if importing is not None:
            clock.note(f"converting the base model {MODEL} from its wheel")
            parts.callback(stop, importing, 5)
        running = parts.enter_context(services.running(settings, clock.note))
        clock.note(f"[bold]the service answers[/] at {settings.address}")
        if importing is not None:
            await_import(importing)
            clock.note("the base model is ready")
        _train_and_compare(settings, root, clock)
        if not exit_after:
            clock.note(f"the service keeps running at {settings.address}; stop it with Ctrl-C")
            while True:
                running.check()
                time.sleep(0.2)
    if left := descendants():
        raise StackError(f"still running: {left}")
    clock.note("stopped; none of its processes is left")


class _Clock:
    def __init__(self, console: Console) -> None:
        self.console = console
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def note(self, line: str) -> None:
        self.console.print(f"[dim]{self.seconds:6.1f} s[/]  {line}", highlight=False, soft_wrap=True)


def _train_and_compare(settings: StackSettings, root: Path, clock: _Clock) -> None:
    with Client(settings.address) as client:
        job = client.jobs.create((root / RECIPE).read_bytes())
        submitted = clock.seconds
        clock.note(f"submitted {RECIPE} as job {job.id}")
        first_metric: list[float] = []

        def note_first_metric(event: JobEvent) -> None:
            if event.type == "metric" and not first_metric:
                first_metric.append(clock.seconds - submitted)

        try:
            view = watch(client, job.id, clock.console, note_first_metric)
        except KeyboardInterrupt:
            job.cancel()  # it would continue at the next start
            raise
        trained = clock.seconds - submitted
        if view.status != Status.SUCCEEDED:
            raise StackError(f"the job ended as {view.status}; its log: {settings.home / 'runs' / job.id}")
        adapter = job.download(OUTPUT)
    clock.note(f"downloaded the adapter to {adapter}; asking the base model and the adapted one")
    for answer in ask(settings.models / job.recipe["model"], adapter, settings.logs / "answer.log"):
        clock.console.print(_side_by_side(answer))
    clock.note(
        f"first metric {first_metric[0]:.1f} s after the job was submitted, adapter after {trained:.1f} s; "
        f"{clock.seconds:.1f} s in all"
    )


def ask(model: Path, adapter: Path, log: Path) -> Iterator[dict[str, Any]]:
    """Yields an answer to each question as it arrives: {"question", "base", "adapter"}. Raises ChildError."""
    log.unlink(missing_ok=True)
    argv = [
        sys.executable,
        "-P",
        "-m",
        "trainer.tools.answer",
        str(model),
        "--adapter",
        str(adapter.absolute()),
        *QUESTIONS,
    ]
    child = start(Command("trainer.tools.answer", argv, with_secrets_of("answer", os.environ), Path.cwd()), log)
    shown, ended = 0, False
    try:
        while not ended:
            ended = not child.alive
            whole_lines = log.read_text().rpartition("\n")[0].splitlines()
            answers = [line for line in whole_lines if line.startswith("{")]
            yield from map(json.loads, answers[shown:])
            shown = len(answers)
            time.sleep(0.1)
        wait_until_done(child, 0)
    finally:
        stop(child, 5)


def _side_by_side(answer: dict[str, Any]) -> Panel:
    both = Table.grid(padding=(0, 2), expand=True)
    both.add_column(ratio=1)
    both.add_column(ratio=1)
    both.add_row("[dim]base[/]", "[dim]with the adapter[/]")
    both.add_row(Text(answer["base"].strip()), Text(answer["adapter"].strip(), style="green"))
    return Panel(both, title=escape(answer["question"]), title_align="left", border_style="cyan")


def _root() -> Path:
    """The folder with the examples: the current directory, or the repository of this file."""
    for folder in (Path.cwd(), Path(__file__).resolve().parents[2]):
        if (folder / RECIPE).is_file():
            return folder
    raise StackError(f"no file {RECIPE}; run the demo in the repository's folder")
