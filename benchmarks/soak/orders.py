"""What the jobs of a soak are: a seeded mix, and what is to become of each."""

import random
from dataclasses import dataclass, field
from typing import Any

from contract.failure import FailureCode
from contract.status import JobStatus

OWNERS = ["anna", "bela", "chen"]


@dataclass
class Order:
    kind: str
    owner: str
    recipe: dict[str, Any]
    steps: int
    end: JobStatus = JobStatus.SUCCEEDED
    """Which of its own it comes to; a user may cancel it before."""
    failure: FailureCode | None = None
    micro_batch: int | None = None
    """At which it fits into the memory, where it does not at first."""
    cancel: str | None = None
    """The request, where its owner changes their mind; at whatever moment that is."""
    job_id: str = ""
    refused: bool = field(default=False)
    """It had ended by then: POST /cancel was answered with 409."""


def orders(count: int, choose: random.Random, profile: str | None = None) -> list[Order]:
    """Each kind, and then more of them, as often as their weights say; those that a cluster takes, with a profile."""
    weights = {kind: weight for kind, (weight, _) in _KINDS.items() if profile is None or kind not in _OF_MACHINES}
    kinds = list(weights)[:count]
    kinds += choose.choices(list(weights), list(weights.values()), k=count - len(kinds))
    made = [_KINDS[kind][1](kind, choose.choice(OWNERS), choose) for kind in kinds]
    for order in made if profile else []:
        order.recipe["resources"] = {**order.recipe.get("resources", {}), "profile": profile}
    return made


def _plain(kind: str, owner: str, choose: random.Random, words: str = "", **recipe: Any) -> Order:
    steps = choose.randint(6, 16)
    name = f"steps={steps} every=2 sleep={choose.choice([0.1, 0.2])} {words}".strip()
    return Order(kind, owner, {"name": name, **recipe}, steps)


def _two_ranks(kind: str, owner: str, choose: random.Random) -> Order:
    return _plain(kind, owner, choose, "ranks=2", resources={"gpus": 2})


def _two_machines(kind: str, owner: str, choose: random.Random) -> Order:
    return _plain(kind, owner, choose, resources={"nodes": 2})


def _shared(kind: str, owner: str, choose: random.Random) -> Order:
    return _plain(kind, owner, choose, resources={"allow_sharing": True})


def _gives_way(kind: str, owner: str, choose: random.Random) -> Order:
    return _plain(kind, owner, choose, scheduling={"preemptible": True, "priority": -1})


def _urgent(kind: str, owner: str, choose: random.Random) -> Order:
    return _plain(kind, owner, choose, resources={"gpus": 2}, scheduling={"priority": 50})


def _fails(kind: str, owner: str, choose: random.Random) -> Order:
    order = _plain(kind, owner, choose, f"fail={FailureCode.LOSS_NOT_FINITE}")
    order.end, order.failure = JobStatus.FAILED, FailureCode.LOSS_NOT_FINITE
    return order


def _too_large(kind: str, owner: str, choose: random.Random) -> Order:
    order = _plain(kind, owner, choose, "fits=2", batch={"micro_batch_size": 4})
    order.micro_batch = 2
    return order


def _meets_a_full_disk(kind: str, owner: str, choose: random.Random) -> Order:
    return _plain(kind, owner, choose, f"fail={FailureCode.DISK_FULL} once")


def _dies_in_a_line(kind: str, owner: str, choose: random.Random) -> Order:
    return _plain(kind, owner, choose, f"half={choose.randint(3, 6)} once")


def _tears_its_state(kind: str, owner: str, choose: random.Random) -> Order:
    return _plain(kind, owner, choose, "torn kill=9 once")


def _cancelled(kind: str, owner: str, choose: random.Random) -> Order:
    order = _plain(kind, owner, choose, choose.choice(["", "ranks=2"]))
    order.cancel = choose.choice(["cancel", "cancel", "cancel?force=true"])
    return order


_KINDS = {
    "succeeds": (5, _plain),
    "two ranks": (3, _two_ranks),
    "two machines": (1, _two_machines),
    "shares": (1, _shared),
    "gives way": (2, _gives_way),
    "urgent": (1, _urgent),
    "fails": (2, _fails),
    "too large": (1, _too_large),
    "meets a full disk": (1, _meets_a_full_disk),
    "dies in a line of its events": (1, _dies_in_a_line),
    "tears its last state": (1, _tears_its_state),
    "cancelled": (3, _cancelled),
    "paused": (2, _plain),
}
_OF_MACHINES = {"shares", "gives way", "urgent"}
"""What concerns a worker's own devices alone."""
