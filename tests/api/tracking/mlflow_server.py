"""An MLflow server between the service and its tests: a small one in memory, or a real one from PyPI. Requests pass
through a relay that fails as a test wants."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.support.environments import installed
from tests.support.servers import free_port

VERSION = "3.17.2"
API = "/api/2.0/mlflow/"

Answer = tuple[int, dict[str, Any]]


@dataclass
class Mlflow:
    backend: Callable[[str, str, dict[str, Any]], Answer]
    url: str = ""
    faults: list[str] = field(default_factory=list)
    """What happens to the next requests: a status instead of an answer; "lost", which is carried out and not answered;
    "hang", which is neither before `release`; "" passes."""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers."""
    unread: int = 0
    """Answers that came after the client had left."""
    seconds: float = 0.5
    """Time in which it answers, unless a fault says otherwise."""
    release: threading.Event = field(default_factory=threading.Event)

    def ask(self, path: str, **body: Any) -> dict[str, Any]:
        status, answer = self.backend("GET" if path.split("/")[1].startswith("get") else "POST", path, body)
        assert status == 200, answer
        return answer

    def runs(self, job_id: str, experiment: str = "finetuned") -> list[dict[str, Any]]:
        found = self.ask("experiments/get-by-name", experiment_name=experiment)["experiment"]["experiment_id"]
        search = {"experiment_ids": [found], "filter": f"tags.`finetuned.job` = '{job_id}'", "max_results": 10}
        return self.ask("runs/search", **search).get("runs", [])

    def history(self, run: dict[str, Any], key: str) -> list[tuple[int, float]]:
        """Step and value of everything that was logged under the key."""
        found = self.ask("metrics/get-history", run_id=run["info"]["run_id"], metric_key=key)
        return sorted((int(each.get("step", 0)), each["value"]) for each in found.get("metrics", []))


@contextmanager
def relaying(backend: Callable[[str, str, dict[str, Any]], Answer]) -> Iterator[Mlflow]:
    mlflow = Mlflow(backend)
    one_at_a_time = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            self._pass("GET", query)

        def do_POST(self) -> None:
            self._pass("POST", json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def _pass(self, method: str, body: dict[str, Any]) -> None:
            path = urlsplit(self.path).path.removeprefix(API)
            mlflow.requests.append((path, {name.lower(): value for name, value in self.headers.items()}))
            fault = mlflow.faults.pop(0) if mlflow.faults else ""
            if fault == "hang":
                mlflow.release.wait(30)
                return
            with one_at_a_time:
                answer = (int(fault), {"message": "broken"}) if fault.isdigit() else backend(method, path, body)
            if fault == "lost":
                return
            self.send_response(answer[0])
            self.end_headers()
            try:
                self.wfile.write(json.dumps(answer[1]).encode())
            except BrokenPipeError:
                mlflow.unread += 1

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        mlflow.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield mlflow
        mlflow.release.set()
        server.shutdown()


def missing(what: str) -> Answer:
    return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"no {what}"}


class Memory:
    """As much of MLflow as the service uses. Unlike the real one's database it stores a repeated metric twice."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.all_runs: list[dict[str, Any]] = []
        self.metrics: dict[str, list[dict[str, Any]]] = {}

    def __call__(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        answer: Answer = getattr(self, path.replace("/", "_").replace("-", "_"))(**body)
        return answer

    def experiments_get_by_name(self, experiment_name: str) -> Answer:
        if experiment_name not in self.experiments:
            return missing("experiment")
        return 200, {"experiment": {"experiment_id": self.experiments[experiment_name]}}

    def experiments_create(self, name: str) -> Answer:
        if name in self.experiments:
            return 400, {"error_code": "RESOURCE_ALREADY_EXISTS"}
        self.experiments[name] = str(len(self.experiments) + 1)
        return 200, {"experiment_id": self.experiments[name]}

    def runs_search(self, experiment_ids: list[str], filter: str, max_results: int) -> Answer:
        wanted = {"key": "finetuned.job", "value": filter.split("'")[1]}
        runs = [each for each in self.all_runs if each["info"]["experiment_id"] in experiment_ids]
        return 200, {"runs": [each for each in runs if wanted in each["data"]["tags"]][:max_results]}

    def runs_create(self, experiment_id: str, run_name: str, start_time: int, tags: list[Any]) -> Answer:
        info = {"run_id": f"run-{len(self.all_runs)}", "experiment_id": experiment_id, "run_name": run_name}
        run = {
            "info": info | {"start_time": start_time, "status": "RUNNING"},
            "data": {"tags": tags, "params": [], "metrics": []},
        }
        self.all_runs.append(run)
        return 200, {"run": run}

    def runs_get(self, run_id: str) -> Answer:
        found = [each for each in self.all_runs if each["info"]["run_id"] == run_id]
        return (200, {"run": found[0]}) if found else missing("run")

    def runs_update(self, run_id: str, **changes: Any) -> Answer:
        self.runs_get(run_id)[1]["run"]["info"].update(changes)
        return 200, {}

    def runs_log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> Answer:
        assert len(metrics) <= 1000
        assert len(params) <= 100
        data = self.runs_get(run_id)[1]["run"]["data"]
        data["params"] += [each for each in params if each not in data["params"]]
        self.metrics.setdefault(run_id, []).extend(metrics)
        latest = {each["key"]: each for each in sorted(self.metrics[run_id], key=lambda each: each["step"])}
        data["metrics"] = list(latest.values())
        return 200, {}

    def metrics_get_history(self, run_id: str, metric_key: str) -> Answer:
        return 200, {"metrics": [each for each in self.metrics.get(run_id, []) if each["key"] == metric_key]}


@contextmanager
def real_server(folder: Path) -> Iterator[Callable[[str, str, dict[str, Any]], Answer]]:
    """`mlflow server` of PyPI on a database in `folder`."""
    port = free_port()
    command = [
        str(installed(f"mlflow=={VERSION}") / "bin" / "mlflow"),
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "mlflow.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(trust_env=False, timeout=60) as http:
            _wait_until_healthy(http, url, server)

            def ask(method: str, path: str, body: dict[str, Any]) -> Answer:
                at = f"{url}{API}{path}"
                answer = http.get(at, params=body) if method == "GET" else http.post(at, json=body)
                return answer.status_code, answer.json()

            yield ask
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait_until_healthy(http: httpx.Client, url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert server.poll() is None
        assert time.monotonic() < deadline
        try:
            http.get(f"{url}/health").raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.2)
