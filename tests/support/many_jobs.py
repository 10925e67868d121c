"""Fills a database with as many jobs, and all that comes with them, as a service has after years."""

import json
import re
from typing import Any

import sqlalchemy as sa

from contract.recipe import Recipe

ID = "lpad(to_hex(n), 24, '0')"

_TABLES = {
    "sweeps": f"""
        INSERT INTO sweeps (id, owner, name, fields, created_at)
        SELECT 'sweep_' || {ID}, 'default', 'a sweep', '["adapter.r"]', now() - n * interval '1 s'""",
    "datasets": f"""
        INSERT INTO datasets (id, owner, filename, purpose, path, bytes, status, format, rows, report, created_at)
        SELECT 'file-' || {ID}, 'default', 'rows.jsonl', 'fine-tune', '/rows.jsonl', 1000, 'processed', 'messages', 100,
               '{{}}', now() - n * interval '1 s'""",
    "jobs": f"""
        INSERT INTO jobs (id, owner, recipe, priority, status, attempt, retries, event_count, created_at, started_at,
                          finished_at, total_steps, worker, log_tail, command, exit_report, training_file, sweep_id,
                          sweep_values)
        SELECT 'job_' || {ID}, 'default', :recipe, 0, 'succeeded', 1, 0, 3, now() - n * interval '1 s', now(), now(), 9,
               'worker', repeat('log ', 1000), 'torchrun', '{{}}', 'file-' || {ID},
               'sweep_' || lpad(to_hex((n + 99) / 100), 24, '0'), '{{"adapter.r": 8}}'""",
    "events": f"""
        INSERT INTO events (job_id, seq, time, type, data)
        SELECT 'job_' || {ID}, seq, 1, 'status', '{{"status": "succeeded", "attempt": 1}}'""",
    "metrics": f"""
        INSERT INTO metrics (job_id, step, time, epoch, loss, learning_rate, overflow, skipped_steps, tokens,
                             supervised_tokens, tokens_per_second, memory_bytes, progress, eta_seconds)
        SELECT 'job_' || {ID}, seq, 1, 1, 1, 1, false, 0, 1, 1, 1, 1, 1, 0""",
    "artifacts": f"""
        INSERT INTO artifacts (job_id, name, kind, path, bytes, files, sha256, published_at)
        SELECT 'job_' || {ID}, 'adapter.tar', 'adapter', 'adapter', 1, '[]', repeat('0', 64), now()""",
    "exports": f"""
        INSERT INTO exports (id, job_id, format, source, status, attempt, created_at, finished_at)
        SELECT 'exp_' || {ID}, 'job_' || {ID}, 'merged', 'adapter.tar', 'succeeded', 1, now(), now()""",
    "evaluations": f"""
        INSERT INTO evaluations (id, job_id, source, dataset, sha256, settings, examples, done, status, scores, attempt,
                                 created_at, finished_at)
        SELECT 'eval_' || {ID}, 'job_' || {ID}, 'adapter.tar', :dataset, repeat('0', 64), :settings, 3, 3, 'succeeded',
               :scores, 1, now() - n * interval '1 s', now()""",
    "evaluated_rows": f"""
        INSERT INTO evaluated_rows (evaluation_id, number, data) SELECT 'eval_' || {ID}, seq, :row""",
    "pushes": f"""
        INSERT INTO pushes (id, job_id, artifact, repo, private, owner, secret, status, claims, failures, url,
                            commit_url, due_at, created_at, finished_at)
        SELECT 'push_' || {ID}, 'job_' || lpad('1', 24, '0'), 'adapter.tar', 'org/name', true, 'default', 'hub',
               'succeeded', 1, 0, 'https://hub/org/name', 'https://hub/org/name/1', null, now() - n * interval '1 s',
               now()""",
    "keys": f"""
        INSERT INTO keys (id, owner, admin, digest, hint, created_at)
        SELECT 'key_' || {ID}, 'owner-' || n, false, 'digest-' || n, 'hint', now() - n * interval '1 s'""",
    "quotas": "INSERT INTO quotas (owner, running_jobs) SELECT 'owner-' || n, 1",
    "webhooks": f"""
        INSERT INTO webhooks (id, owner, url, secret, events, enabled, created_at)
        SELECT 'wh_' || {ID}, 'owner-' || n % 1000, 'https://example.org', 'secret', '[]', true,
               now() - n * interval '1 s'""",
    "deliveries": f"""
        INSERT INTO deliveries (id, webhook_id, type, payload, status, attempts, due_at, created_at)
        SELECT 'msg_' || {ID}, 'wh_' || lpad('1', 24, '0'), 'job.succeeded', '{{}}', 'delivered', 1, now(),
               now() - n * interval '1 s'""",
    "memory_readings": """
        INSERT INTO memory_readings (worker, at, device, used_bytes, jobs)
        SELECT 'worker', now() - n / 9 * interval '30 s', n % 9 - 1, 1000000000 + n, '{job}'""",
    "audit": """
        INSERT INTO audit (owner, action, target, request_id) SELECT 'default', 'job.create', 'job', 'request'""",
}
_WORKER = """
    INSERT INTO workers (name, instance_id, address, machine, draining, seen_at)
    VALUES ('worker', '1', 'localhost', '{"gpus": [], "cores": 1, "cpu_bf16": false}', false, now())"""
_SCORES = {"loss": 1, "perplexity": 2.7, "exact_match": 0, "token_f1": 0.5, "rouge_l": 0.5}
_ANSWER = {"answer": "I.", "finish": "stop", "loss": 1, "exact_match": 0, "token_f1": 0.5, "rouge_l": 0.5}
_EVALUATED = {
    "dataset": {
        "path": "rows.jsonl",
        "filename": None,
        "format": "auto",
        "columns": None,
        "chat_template": None,
        "sha256": "0" * 64,
    },
    "settings": {"limit": 200, "max_length": 2048, "max_new_tokens": 256, "temperature": 0, "seed": 0},
    "scores": {"examples": 3, "supervised_tokens": 9, "base": _SCORES, "adapter": _SCORES},
    "row": {"number": 1, "prompt": "?", "reference": "!", "supervised_tokens": 3, "base": _ANSWER, "adapter": _ANSWER},
}
_TWICE = {"events", "evaluated_rows", "metrics"}

_IDS = {
    "job_id": "job_" + "1".rjust(24, "0"),
    "evaluation_id": "eval_" + "1".rjust(24, "0"),
    "webhook_id": "wh_" + "1".rjust(24, "0"),
    "sweep_id": "sweep_" + "1".rjust(24, "0"),
    "owner": "owner-1",
    "worker": "worker",
}
"""Of things that are there, by the parameter of a path."""
_NAME_ONE = {"path", "name", "export_id", "push_id", "dataset_id", "file_id", "model"}
"""Parameters that name one thing: their routes are no lists."""


def fill(engine: sa.Engine, jobs: int) -> None:
    """So many of everything."""
    recipe = Recipe.model_validate({"model": "org/base", "dataset": "rows.jsonl"}).model_dump(mode="json")
    values: dict[str, Any] = {"count": jobs, "recipe": json.dumps(recipe)}
    values |= {name: json.dumps(value) for name, value in _EVALUATED.items()}
    with engine.begin() as connection:
        for table, insert in _TABLES.items():
            rows = f"{insert} FROM generate_series(1, :count) AS n"
            if table in _TWICE:
                rows += ", generate_series(1, 3) AS seq"
            connection.execute(sa.text(rows), values)
        connection.exec_driver_sql(_WORKER)
        connection.execute(sa.text("ANALYZE"))


def lists(openapi: dict[str, Any]) -> list[str]:
    """The paths of all routes that may give many rows."""
    paths = [path for path, methods in openapi["paths"].items() if "get" in methods and path != "/health/ready"]
    names = {path: set(re.findall(r"\{(\w+)\}", path)) for path in paths}
    return [path.format(**_IDS) for path in paths if not names[path] & _NAME_ONE]
