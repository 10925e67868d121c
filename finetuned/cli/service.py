"""`finetuned status` and `finetuned open`."""

import webbrowser
from collections import Counter
from itertools import islice
from typing import Any

from finetuned import Client
from finetuned.address import DEFAULT_URL
from finetuned.cli.options import Key, OneAsJson, Url
from finetuned.cli.terminal import note, print_json, print_plain

_JOBS_READ = 1000


def status(as_json: OneAsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Say whether the service answers, and what it is doing."""
    with Client(url, key=key) as client:
        workers = list(client.workers.list())
        jobs = Counter(job.status for job in islice(client.jobs.list(), _JOBS_READ))
    devices = Counter(device.status for worker in workers for device in worker.devices)
    found: dict[str, Any] = {
        "url": client.url,
        "workers": Counter(worker.status for worker in workers),
        "devices": devices,
        "jobs": jobs,
    }
    if as_json:
        print_json(found)
        return
    print_plain(f"the service answers at {client.url}")
    for name in ("workers", "devices", "jobs"):
        counts = ", ".join(f"{count} {status}" for status, count in found[name].items())
        print_plain(f"{name + ':':<9}{counts or 'none'}")


def open_dashboard(as_json: OneAsJson = False, url: Url = DEFAULT_URL) -> None:
    """Open the dashboard in the browser, and print its address."""
    with Client(url) as client:
        client.check()
        address = f"{client.url}/"
    if as_json:
        print_json({"url": address})
    else:
        print_plain(address)
    if not webbrowser.open(address):
        note("no browser could be started here; open the address in yours")
