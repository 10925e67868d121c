"""How a Slurm job has ended, from what Slurm says of it and what its script has left. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from contract.failure import Failure, FailureCode
from worker.launchers.cluster_node import TAKEN
from worker.launchers.launcher import Ended

WARNING = 60
"""Seconds before its time limit that a job gets SIGTERM."""
_EARLY = 60 + 30
"""Seconds that Slurm may send it before that, and that a trainer may take to save."""
_CLOCKS = 3.0
"""Seconds that the clocks of controller and file system may differ."""
_NO_LAUNCH = 128 + 53
"""As Slurm's own programs exit where they cannot start the script, such as on a folder that is not there."""

_BY_ITSELF = ("COMPLETED", "FAILED")
"""States in which Slurm has the script's exit code, which may be seen earlier than the script's own file of it."""


@dataclass(frozen=True)
class Left:
    """What a job has left in its run folder."""

    exit_code: int | None
    """Its script's; None where that was killed."""
    was_stopped: bool
    """SIGTERM came from Slurm."""
    saved: bool = False
    """A training checkpoint further than that which it resumed from."""
    told_to_stop: bool = False
    """By a sign of this service: of the follower, or of a worker that takes the attempt for an orphan."""
    claimed_at: float | None = None
    """When its script began."""


def ending(details: Mapping[str, str], left: Left, *, stop_requested: bool) -> Ended:
    """`details` are `scontrol show job`'s, empty where Slurm has forgotten the job. `stop_requested`: by us."""
    state, limit = details.get("JobState", ""), details.get("TimeLimit", "")
    code = _exit_code(details, left)
    if stop_requested:
        return Ended(code)
    if not_begun_on(details, left) is not None:
        return Ended(code, Failure(code=FailureCode.NODE_LOST, message=_not_begun(details)))
    if is_forgotten(details, left):
        message = "Slurm's controller had forgotten that the job runs; what it has saved is resumed"
        return Ended(code, Failure(code=FailureCode.NODE_LOST, message=message))
    if state == "PREEMPTED" or details.get("PreemptTime", "None") != "None":
        return Ended(code, excused=True, message="Slurm has preempted the job; it goes on when Slurm has room")
    if state == "OUT_OF_MEMORY":
        message = "Slurm ended the job: it took more of the node's memory than it was given; see the profile's --mem"
        return Ended(code, Failure(code=FailureCode.OUT_OF_MEMORY, message=message))
    reached_limit = left.was_stopped and state != "CANCELLED" and _is_near_limit(details)
    if state == "TIMEOUT" or (reached_limit and not left.saved):
        message = f"the job reached the profile's time limit of {limit} before it had saved; a longer time_limit helps"
        return Ended(code, Failure(code=FailureCode.TRAINER_KILLED, message=message))
    if reached_limit:
        return Ended(code, excused=True, message=f"the job reached the time limit of {limit} and has saved; it goes on")
    if left.told_to_stop and (state == "CANCELLED" or _script_code(details) == TAKEN):
        return Ended(code, excused=True, message="another worker of the same name has ended the job; it goes on")
    if state == "CANCELLED":
        message = "the job was cancelled in Slurm, and not by this service; a retry goes on from what it has saved"
        return Ended(code, Failure(code=FailureCode.CANCELLED_IN_CLUSTER, message=message))
    if left.exit_code is None and state in _BY_ITSELF and _script_code(details) != TAKEN:
        return Ended(code)
    if state in ("NODE_FAIL", "BOOT_FAIL") or left.exit_code is None:
        nodes = f" on {details['NodeList']}" if details.get("NodeList", "(null)") != "(null)" else ""
        message = f"Slurm lost the job{nodes}: {state or 'it is unknown there'}"
        if _script_code(details) == TAKEN:
            message = "the job ended at its start: it was a second start of the attempt, or its worker had been silent"
        return Ended(code, Failure(code=FailureCode.NODE_LOST, message=message))
    return Ended(code)


def not_begun_on(details: Mapping[str, str], left: Left) -> str | None:
    """The node on which the script has not begun, for a fault of that node: its prolog failed, it cannot see the run
    folder, or it still has an earlier job of that id, which a killed controller has forgotten. None where it has begun,
    or was not to."""
    node = details.get("BatchHost", "(null)")
    if left.claimed_at is not None or left.told_to_stop or node in ("", "(null)"):
        return None
    state, code = details.get("JobState"), _script_code(details)
    # Somebody's scancel leaves the signal that it has sent.
    failed_prolog = state == "CANCELLED" and code == 0
    return node if failed_prolog or (state == "FAILED" and code in (TAKEN, _NO_LAUNCH)) else None


def _not_begun(details: Mapping[str, str]) -> str:
    if details.get("JobState") == "CANCELLED":
        nodes = details.get("NodeList", details["BatchHost"])
        return f"the job did not begin on {nodes}: its prolog failed, or Slurm had drained it; see `scontrol show node`"
    return (
        f"the job did not begin on {details['BatchHost']}: that node cannot write to the run folder; mount there what "
        "FINETUNED_HOME is on"
    )


def may_run(details: Mapping[str, str], left: Left) -> bool:
    """Whether the attempt's processes may be there although Slurm knows of none."""
    has_begun = left.claimed_at is not None and left.exit_code is None
    return has_begun and (not details or is_forgotten(details, left))


def is_forgotten(details: Mapping[str, str], left: Left) -> bool:
    """Whether Slurm knows another start than the one that has the attempt: a controller that was killed may take a job
    for pending that runs, and then start or cancel it without a thought for its processes."""
    start = details.get("StartTime", "")
    return left.claimed_at is not None and start.isdigit() and float(start) > left.claimed_at + _CLOCKS


def _exit_code(details: Mapping[str, str], left: Left) -> int:
    if left.exit_code is not None:
        return left.exit_code
    code = _script_code(details)
    return code if details.get("JobState") in _BY_ITSELF else code or 128 + 15


def _script_code(details: Mapping[str, str]) -> int:
    code, _, number = details.get("ExitCode", "0:0").partition(":")
    return 128 + int(number or 0) if int(number or 0) else int(code)


def _is_near_limit(details: Mapping[str, str]) -> bool:
    limit, taken = (seconds(details.get(name, "")) for name in ("TimeLimit", "RunTime"))
    return limit is not None and taken is not None and taken >= limit - WARNING - _EARLY


def seconds(given: str) -> int | None:
    """Of a duration as Slurm prints it, [DAYS-]HOURS:MINUTES:SECONDS; None for UNLIMITED."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", given)
    if found is None:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest
