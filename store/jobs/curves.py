"""The metrics of a job as columns, whole or thinned."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

from sqlalchemy import Connection, TextClause, select, text
from sqlalchemy.orm import Session

from store.jobs.progress import METRIC_COLUMNS
from store.models import StepMetric
from store.session import Sessions, autocommit

ALWAYS = ("step", "time", "epoch", "tokens")
"""Columns that every answer has. Each grows from step to step."""
COLUMNS = METRIC_COLUMNS
LAST_STEP = 2**31 - 1
_PAGE = 5_000
"""Rows of one read of a whole table."""


@dataclass(frozen=True)
class CurveRange:
    """The steps and the columns of an answer."""

    columns: Sequence[str] = COLUMNS
    after: int = 0
    upto: int = LAST_STEP
    limit: int = 100_000
    """Most steps, where they are not thinned."""
    points: int | None = None
    """Thins the steps: they are divided into half as many groups, of each of which the steps stay that have the least
    or the largest value of a column; the first and the last step always stay."""


def read(session: Session | Connection, job_id: str, owner: str | None, wanted: CurveRange) -> str | None:
    """The metrics as columns, and all evaluations, as the text of a JSON object. `tokens` counts from the first step
    of the job. None where `owner`, or any owner with None, has no such job.

    PostgreSQL writes the JSON in one query: building Python objects of 10,000 steps, only to write them out again,
    takes three times as long.
    """
    query = _query(tuple(name for name in COLUMNS if name in {*ALWAYS, *wanted.columns}), wanted.points is not None)
    most = {"limit": wanted.limit} if wanted.points is None else {"groups": max(1, wanted.points // 2)}
    return session.scalar(query, {"id": job_id, "owner": owner, "after": wanted.after, "upto": wanted.upto, **most})


@lru_cache(maxsize=64)
def _query(columns: tuple[str, ...], thinned: bool) -> TextClause:
    # The rows come in the order of the subquery: sorting them again for each column costs more than the rest.
    written = ", ".join(f"'{name}', coalesce(json_agg({name}), '[]')" for name in columns)
    return text(
        f"""
        WITH its AS (SELECT id FROM jobs WHERE id = :id AND owner = coalesce(CAST(:owner AS text), owner)),
        before AS (SELECT coalesce(sum(tokens), 0) AS tokens FROM metrics WHERE job_id = :id AND step <= :after),
        {_thinned(columns) if thinned else _plain(columns)}
        SELECT json_build_object(
            'job_id', id, 'columns', columns, 'evaluations', evaluations, 'total', total, 'thinned', count < total
        )::text
        FROM its, counted, LATERAL (
            SELECT json_build_object({written}), count(*) FROM (SELECT * FROM kept ORDER BY step) AS ordered
        ) AS curves (columns, count), LATERAL (
            SELECT json_build_object(
                'step', coalesce(json_agg(step), '[]'), 'eval_loss', coalesce(json_agg(eval_loss), '[]'),
                'time', coalesce(json_agg(time), '[]')
            )
            FROM (
                SELECT DISTINCT ON ((data ->> 'step')::int)
                    (data ->> 'step')::int AS step, data -> 'eval_loss' AS eval_loss, time
                FROM events WHERE job_id = :id AND type = 'evaluation' ORDER BY (data ->> 'step')::int, seq DESC
            ) AS last
        ) AS evaluated (evaluations)
        """
    )


_ITS = "job_id = :id AND step > :after AND step <= :upto"


def _plain(columns: tuple[str, ...]) -> str:
    plain = ", ".join(name for name in columns if name != "tokens")
    running = "before.tokens + sum(metrics.tokens) OVER (ORDER BY step ROWS UNBOUNDED PRECEDING) AS tokens"
    return f"""
        counted AS (SELECT count(*) AS total FROM metrics WHERE {_ITS}),
        kept AS (SELECT {plain}, {running} FROM before, metrics WHERE {_ITS} ORDER BY step LIMIT :limit)"""


def _thinned(columns: tuple[str, ...]) -> str:
    """Of each group of steps the first with the least and the first with the largest value of each column. Ties keep
    one step alone: a constant column would keep all of them otherwise.

    Each group is a range of the primary key that is read three times: for the values, for their steps, and for the
    tokens up to these. One plan for any statistics: of a job that has just begun there are none."""
    varied = [name for name in columns if name not in ALWAYS]
    value = {name: f"{name}::int" if name == "overflow" else name for name in varied}
    bounds = "".join(f", min({value[name]}) AS min_{name}, max({value[name]}) AS max_{name}" for name in varied)
    firsts = [f"min(step) FILTER (WHERE {value[name]} = {end}_{name})" for name in varied for end in ("min", "max")]
    plain = ", ".join(f"metrics.{name}" for name in columns if name != "tokens")
    in_group = "job_id = :id AND step >= low AND step < next"
    return f"""
        span AS (SELECT min(step) AS first, max(step) AS last, max(step) - min(step) + 1::bigint AS size
                 FROM metrics WHERE {_ITS}),
        groups AS MATERIALIZED (
            SELECT low, next, count, chosen.steps || ARRAY[first, last] AS steps,
                sum(bounds.tokens) OVER (ORDER BY low) - bounds.tokens AS tokens
            FROM span, generate_series(0, :groups - 1) AS number, LATERAL (
                SELECT first + ((number * size + :groups - 1) / :groups)::int AS low,
                    first + (((number + 1) * size + :groups - 1) / :groups)::int AS next
            ) AS range, LATERAL (
                SELECT count(*), sum(tokens) AS tokens{bounds} FROM metrics WHERE {in_group}
            ) AS bounds, LATERAL (
                SELECT ARRAY[{", ".join(firsts) or "min(step)"}] AS steps FROM metrics WHERE {in_group}
            ) AS chosen
        ),
        counted AS (SELECT coalesce(sum(count), 0) AS total FROM groups),
        kept AS (
            SELECT {plain}, before.tokens + groups.tokens + (
                SELECT sum(tokens) FROM metrics AS earlier
                WHERE job_id = :id AND earlier.step >= low AND earlier.step <= metrics.step
            ) AS tokens
            FROM before, groups, LATERAL (SELECT DISTINCT unnest(steps) AS step) AS chosen,
                LATERAL (SELECT * FROM metrics WHERE {in_group} AND step = chosen.step LIMIT 1) AS metrics
        )"""


def list_steps(sessions: Sessions, job_id: str) -> Iterator[list[tuple[Any, ...]]]:
    """Every step with all columns, a page at a time; no connection is held in between. `tokens` counts from the first
    step."""
    page = select(*(getattr(StepMetric, name) for name in COLUMNS)).where(StepMetric.job_id == job_id)
    step, tokens = COLUMNS.index("step"), COLUMNS.index("tokens")
    last, total = 0, 0
    while True:
        with autocommit(sessions) as connection:
            rows = connection.execute(page.where(StepMetric.step > last).order_by(StepMetric.step).limit(_PAGE)).all()
        if not rows:
            return
        totals = list(accumulate((row[tokens] for row in rows), initial=total))[1:]
        yield [(*row[:tokens], count, *row[tokens + 1 :]) for row, count in zip(rows, totals, strict=True)]
        last, total = rows[-1][step], totals[-1]
