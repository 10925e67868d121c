"""What a follower and the trackers exchange."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

from contract.events import SCORES
from contract.formatting import truncate
from store.trackings import Followed, News, Position

METRICS = ("loss", "learning_rate", "grad_norm", "loss_scale", "epoch", "tokens_per_second", "memory_bytes", *SCORES)


class TrackerError(Exception):
    """What a tracker answered instead of accepting what was sent; for the owner of the job."""


class Sent(NamedTuple):
    run: str
    """Id of the job's run in the tracker."""
    position: Position


class Tracker(Protocol):
    most_events: int
    """Most events and metrics of one send."""
    interval: timedelta
    """Time from one send that brings the tracker up to date to the next one."""
    whole_at_end: bool
    """Whether it gets the whole run in one send, when the job has ended."""
    send_seconds: float
    """Time for one send."""

    async def send(self, followed: Followed, secret: str | None, news: News) -> Sent:
        """Sends the news that the tracker lacks. Raises TrackerError, Forbidden, OSError, httpx.HTTPError,
        httpx.InvalidURL, UnicodeError."""


class Point(NamedTuple):
    """The numbers of one step, or of the evaluation after it."""

    step: int
    time: float
    values: Mapping[str, float]


def points_after(position: Position, news: News) -> Iterator[Point]:
    """What of the news is to be plotted. A step or an evaluation that an attempt repeats is not."""
    for event in news.events:
        step, time = event.data.get("step", 0), event.data["time"]
        if event.type == "metric" and step > position.step:
            values = {name: event.data[name] for name in METRICS if event.data[name] is not None}
            yield Point(step, time, values)
        elif event.type == "evaluation" and step > position.eval_step:
            # An evaluation of before the update has no scores.
            scores = {f"eval_{name}": event.data[name] for name in SCORES if event.data.get(name) is not None}
            yield Point(step, time, {"eval_loss": event.data["eval_loss"], **scores})


def position_after(position: Position, news: News) -> Position:
    """The position of a tracker that has the news."""
    if not news.events:
        return position
    evaluations = [event.data["step"] for event in news.events if event.type == "evaluation"]
    cursor = news.events[-1].cursor
    return Position(
        max(position.seq, cursor.seq),
        max(position.step, cursor.step),
        max(position.eval_step, *evaluations, -1),
    )


def run_name(followed: Followed) -> str:
    return str(followed.place["run_name"] or followed.name or followed.job_id)


def parameters(recipe: Mapping[str, Any]) -> dict[str, str]:
    """The recipe's fields by their dotted paths, except those about tracking."""
    return dict(_flattened("", {name: value for name, value in recipe.items() if name != "tracking"}))


def _flattened(prefix: str, section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in section.items():
        if isinstance(value, dict) and value:
            yield from _flattened(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else truncate(str(value), 1000)
