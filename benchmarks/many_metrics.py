"""Metrics of jobs, as many as wanted, inserted by one statement."""

import sqlalchemy as sa

_INSERT = sa.text(
    "INSERT INTO metrics (job_id, step, time, epoch, loss, learning_rate, overflow, skipped_steps, tokens, "
    "supervised_tokens, tokens_per_second, memory_bytes, progress, eta_seconds) "
    "SELECT id, step, 0, 1, 1.5, 1e-4, false, 0, 100, 50, 1000, 1, 1, 0 "
    "FROM (SELECT id FROM jobs ORDER BY id LIMIT :jobs) trained, generate_series(1, :steps) step"
)


def insert_metrics(connection: sa.Connection, jobs: int, steps: int) -> None:
    """Of the first `jobs` jobs, `steps` each."""
    connection.execute(_INSERT, {"jobs": jobs, "steps": steps})


_INSERT_CURVE = sa.text(
    "INSERT INTO metrics (job_id, step, time, epoch, loss, learning_rate, grad_norm, overflow, skipped_steps, tokens, "
    "supervised_tokens, tokens_per_second, memory_bytes, progress, eta_seconds) "
    "SELECT :job_id, step, extract(epoch FROM now()) + (step - :steps) / 2.0, step / 1000.0, "
    "2 + random() * (3 - 2.0 * step / :steps), 1e-4 * (1 - step / 1e6), random(), false, 0, 8192, 4000, "
    "1000 * random(), 1, step / 1e6, 0 FROM generate_series(1, :steps) step"
)


def insert_curve(connection: sa.Connection, job_id: str, steps: int) -> None:
    """Of one job, noisy, with the last step now."""
    connection.execute(_INSERT_CURVE, {"job_id": job_id, "steps": steps})
