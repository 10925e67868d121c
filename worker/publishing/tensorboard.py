"""Writes TensorBoard's event file from a job's metrics: one record for each step, and one for each evaluation."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from contract.events import SCORES
from store.jobs.job_report import JobReport

SCALARS = {
    "loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/grad_norm",
    "loss_scale": "train/loss_scale",
    "epoch": "train/epoch",
    "tokens_per_second": "train/tokens_per_second",
    "memory_bytes": "train/memory_bytes",
    **{name: f"train/{name}" for name in SCORES},
}
"""TensorBoard groups tags by what is before the slash."""


class _Record(NamedTuple):
    time: float
    step: int
    values: Mapping[str, float]


def write(report: JobReport, path: Path) -> None:
    # Few jobs want it, and protobuf takes a while to load.
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    records = [*_steps(report), *_evaluations(report)]
    records.sort(key=lambda record: (record.step, record.time))
    first = records[0].time if records else 0
    writer = RecordWriter(path.open("wb"))
    writer.write(Event(wall_time=first, file_version="brain.Event:2").SerializeToString())
    for record in records:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in record.values.items()]
        event = Event(wall_time=record.time, step=record.step, summary=Summary(value=values))
        writer.write(event.SerializeToString())
    writer.close()


def _steps(report: JobReport) -> Iterator[_Record]:
    for row in report.metrics:
        found = {tag: getattr(row, name) for name, tag in SCALARS.items()}
        yield _Record(row.time, row.step, {tag: value for tag, value in found.items() if value is not None})


def _evaluations(report: JobReport) -> Iterator[_Record]:
    """With the time of their step: a report has that alone."""
    times = {row.step: row.time for row in report.metrics}
    first = report.metrics[0].time if report.metrics else 0.0
    for evaluation in report.evaluations:
        step = evaluation["step"]
        scores = {f"eval/{name}": evaluation[name] for name in SCORES if evaluation.get(name) is not None}
        yield _Record(times.get(step, first), step, {"eval/loss": evaluation["eval_loss"], **scores})
