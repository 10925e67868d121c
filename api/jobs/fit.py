"""Refuses a recipe that cannot fit into the memory of any worker's machine."""

import json

from api.context import Services
from api.jobs.submission import Submission, lengths_of
from contract.failure import FailureCode, InputError
from estimate.plan import DeviceEstimate, LocalModel, plan_run
from estimate.work import LengthCounts

_MOST_CHANGES = 3
"""In a refusal."""


def refuse_what_cannot_fit(services: Services, submission: Submission) -> None:
    """Raises InputError. What is not known refuses nothing."""
    base = submission.base
    if isinstance(base, str) or base.architecture is None or not submission.machines:
        return
    # First as if every example had max_length tokens: then most recipes fit without a look at the dataset.
    if not _misfits(submission, base, ""):
        return
    lengths = lengths_of(services, submission)
    if not isinstance(lengths, str) and (misfits := _misfits(submission, base, lengths)):
        raise _refusal(misfits[0])


def _misfits(submission: Submission, base: LocalModel, lengths: LengthCounts | str) -> list[DeviceEstimate]:
    """The devices, the largest first, where the recipe fits on none of them."""
    devices = plan_run(submission.recipe, submission.training.count, submission.machines, base, lengths).devices
    return devices if all(on.fits is False for on in devices) else []


def _refusal(on: DeviceEstimate) -> InputError:
    param, largest = _largest(on)
    changes = " or ".join(json.dumps(change) for change in on.suggestions[:_MOST_CHANGES])
    message = (
        f"it would take about {_gib(on.memory.total)} on each device, {_gib(largest)} of it for {param[1]}, and the "
        f"largest, {on.device}, has {_gib(on.kind.memory_bytes or 0)}; "
        + (f"it would fit with {changes}" if changes else "no change of batch, base_bits or devices makes it fit")
        + "; force=true takes it as it is"
    )
    return InputError(FailureCode.DOES_NOT_FIT, f"{param[0]}: {message}", param[0])


def _largest(on: DeviceEstimate) -> tuple[tuple[str, str], int]:
    """The part that takes most: the field of the recipe that it comes of and its name, and its bytes."""
    memory = on.memory
    parts = {
        ("model", "the base's weights"): memory.weights,
        ("adapter", "what is trained"): memory.adapter + memory.gradients + memory.optimizer,
        ("batch", "activations and logits"): memory.activations + memory.logits,
        ("parallel", "communication buffers"): memory.communication_buffers,
    }
    return max(parts.items(), key=lambda part: part[1])


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
