"""The field's standard words: columns, and the names within recipes, failures, exit reports and events."""

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "20261129_vocabulary"
down_revision = "20261129_audit"
branch_labels = None
depends_on = None

BATCH = {
    "micro_batch": "micro_batch_size",
    "accumulation": "gradient_accumulation_steps",
    "effective": "effective_batch_size",
}
RECIPE = {
    "batch": BATCH,
    "evaluation": {"share": "fraction"},
    "resources": {"share": "allow_sharing"},
    "checkpointing": {
        "state_minutes": "training_checkpoint_minutes",
        "keep_states": "keep_training_checkpoints",
    },
}
STARTED = {"micro_batch": "micro_batch_size", "effective_batch": "effective_batch_size"}
_AT_ONCE = 500

Data = dict[str, Any]


def upgrade() -> None:
    _requested_actions()
    op.alter_column("jobs", "receipt", new_column_name="exit_report")
    op.alter_column("devices", "holders", new_column_name="external_processes")
    op.alter_column("deliveries", "tries", new_column_name="attempts")
    op.alter_column("deliveries", "answer_status", new_column_name="response_status")
    _rewrite("jobs", ["id"], "recipe", _recipe)
    _rewrite("jobs", ["id"], "batch", lambda batch: _renamed(batch, BATCH))
    _rewrite("jobs", ["id"], "failure", _failure)
    _rewrite("jobs", ["id"], "exit_report", lambda report: _renamed(report, {"asked": "stop_requested"}))
    _rewrite("exports", ["id"], "failure", _failure)
    _rewrite("events", ["job_id", "seq"], "data", lambda data: _renamed(data, STARTED), "type = 'started'")
    _rewrite("events", ["job_id", "seq"], "data", _retry, "type = 'retry'")
    _rewrite("events", ["job_id", "seq"], "data", _status, "type = 'status' AND data->>'failure' IS NOT NULL")


def _requested_actions() -> None:
    op.drop_constraint(op.f("ck_jobs_wish"), "jobs")
    op.alter_column("jobs", "wish", new_column_name="requested_action")
    op.execute("UPDATE jobs SET requested_action = 'force_cancel' WHERE requested_action = 'kill'")
    op.execute("UPDATE jobs SET requested_action = 'preempt' WHERE requested_action = 'step_aside'")
    allowed = "requested_action IN ('cancel', 'force_cancel', 'pause', 'preempt')"
    op.create_check_constraint(op.f("ck_jobs_requested_action"), "jobs", allowed)


def _rewrite(table: str, key: list[str], column: str, change: Callable[[Data], Data], where: str = "true") -> None:
    """In Python, because PostgreSQL can change only jsonb, which forgets the order in which people wrote the fields."""
    connection = op.get_bind()
    columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in key]
    value: sa.ColumnClause[Any] = sa.column(column, sa.JSON())
    rows = sa.table(table, *columns, value)
    found = sa.select(*columns, value).where(sa.func.json_typeof(value) == "object", sa.text(where))
    its = [each == sa.bindparam(f"its_{each.name}") for each in columns]
    write = sa.update(rows).where(*its).values({column: sa.bindparam("new", type_=sa.JSON())})
    for part in connection.execute(found, execution_options={"yield_per": _AT_ONCE}).partitions():
        changed = [{**{f"its_{n}": v for n, v in zip(key, row, strict=False)}, "new": change(row[-1])} for row in part]
        connection.execute(write, changed)


def _renamed(data: Data, names: Mapping[str, str]) -> Data:
    return {names.get(name, name): value for name, value in data.items()}


def _recipe(recipe: Data) -> Data:
    return {
        name: _renamed(section, RECIPE[name]) if name in RECIPE and isinstance(section, dict) else section
        for name, section in recipe.items()
    }


def _failure(failure: Data) -> Data:
    failure = _renamed(failure, {"reason": "code"})
    if isinstance(failure.get("fault"), dict):
        failure["fault"] = _renamed(failure["fault"], {"place": "location"})
    return failure


def _retry(data: Data) -> Data:
    return _renamed(_failure(data), {**BATCH, "most": "max_retries"})


def _status(data: Data) -> Data:
    return {**data, "failure": _failure(data["failure"])}
