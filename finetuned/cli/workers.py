"""`finetuned workers`."""

from typing import Any

from rich.table import Table

from finetuned import Client
from finetuned.address import DEFAULT_URL
from finetuned.cli.job_text import one_line
from finetuned.cli.options import AsJson, Key, Url
from finetuned.cli.terminal import plain_table, print_list


def workers(as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List the workers, and what runs on each of their devices."""
    with Client(url, key=key) as client:
        found = [worker.raw for worker in client.workers.list()]
    print_list(found, as_json, _worker_table, "no workers yet")


def _worker_table(workers: list[dict[str, Any]]) -> Table:
    table = plain_table()
    for name in ("worker", "status", "device", "name", "use"):
        table.add_column(name, no_wrap=name != "use", overflow="fold")
    for worker in workers:
        low = worker["disk"] is not None and worker["disk"]["low"]
        status = f"{worker['status']}, low disk" if low else worker["status"]
        for device in worker["devices"]:
            others, reason = device["jobs_of_other_owners"], device["reason"]
            used = [*device["jobs"], f"{others} of other owners" if others else "", reason or ""]
            use = "; ".join(filter(None, used)) or device["status"]
            table.add_row(worker["name"], status, str(device["number"]), device["name"], one_line(use))
    return table
