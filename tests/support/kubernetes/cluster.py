"""What a test writes into the API server, in the place of JobSet's controller, Kueue's and the kubelets."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.servers import free_port

NAMESPACE = "training"
_CONFIG = """apiVersion: v1
kind: Config
current-context: test
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
clusters: [{{name: test, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: test, user: {{token: none}}}}]
"""


@dataclass
class FakeKubernetes:
    port: int
    config: Path
    """For KUBECONFIG."""
    process: "subprocess.Popen[str] | None" = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.support.kubernetes.server", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "listening\n"

    def stop(self) -> None:
        """All that it kept is gone with it."""
        assert self.process is not None
        self.process.kill()
        self.process.communicate()

    def calls(self, start: str = "") -> list[str]:
        return [call for call in self._ask("GET", "calls") if call.startswith(start)]

    def fault(self, method: str, status: int | None = None, before: bool = True) -> None:
        """The next call of that method: a status, or a lost reply, before or after it is carried out."""
        self._ask("POST", "faults", {"method": method, "status": status, "before": before})

    def deny(self, *verbs: str) -> None:
        """Verbs and plurals, such as "create jobsets"."""
        self._ask("POST", "denied", list(verbs))

    def lack(self, *versions: str) -> None:
        """These groups with versions are not installed."""
        self._ask("POST", "missing", list(versions))

    def get(self, plural: str, name: str) -> Any:
        return self._ask("GET", f"{NAMESPACE}/{plural}/{name}")

    def put(self, plural: str, name: str, **fields: Any) -> None:
        self._ask("PUT", f"{NAMESPACE}/{plural}/{name}", fields)

    def remove(self, plural: str, name: str) -> None:
        self._ask("DELETE", f"{NAMESPACE}/{plural}/{name}")

    def queue(self, jobset: str, message: str) -> None:
        """Kueue has seen the JobSet and has no room."""
        pending = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": message}
        self._workload(jobset, pending)

    def evict(self, jobset: str, reason: str) -> None:
        self._workload(jobset, {"type": "Evicted", "status": "True", "reason": reason, "message": "to make room"})
        self.put("jobsets", jobset, spec={"suspend": True})

    def _workload(self, jobset: str, condition: dict[str, str]) -> None:
        labels = {"kueue.x-k8s.io/job-uid": self.get("jobsets", jobset)["metadata"]["uid"]}
        self.put("workloads", f"jobset-{jobset}", metadata={"labels": labels}, status={"conditions": [condition]})

    def admit(self, jobset: str) -> None:
        self.put("jobsets", jobset, spec={"suspend": False})

    def pod(self, jobset: str, phase: str, index: int = 0, **status: Any) -> None:
        labels = {"jobset.sigs.k8s.io/jobset-name": jobset}
        name = f"{jobset}-node-0-{index}"
        self.put("pods", name, metadata={"labels": labels}, spec={"nodeName": "n1"}, status={"phase": phase, **status})

    def job(self, jobset: str, reason: str, message: str = "") -> None:
        labels = {"jobset.sigs.k8s.io/jobset-name": jobset}
        condition = {"type": "Failed", "status": "True", "reason": reason, "message": message}
        self.put("jobs", f"{jobset}-node-0", metadata={"labels": labels}, status={"conditions": [condition]})

    def finish(self, jobset: str, kind: str) -> None:
        """ "Completed" or "Failed"."""
        self.put("jobsets", jobset, status={"conditions": [{"type": kind, "status": "True", "reason": "x"}]})

    def _ask(self, method: str, what: str, body: Any = None) -> Any:
        answer = httpx.request(method, f"http://127.0.0.1:{self.port}/test/{what}", content=json.dumps(body))
        return answer.raise_for_status().json()


@contextmanager
def running_kubernetes(folder: Path) -> Iterator[FakeKubernetes]:
    port = free_port()
    config = folder / "kubeconfig"
    config.write_text(_CONFIG.format(port=port))
    fake = FakeKubernetes(port, config)
    fake.start()
    try:
        yield fake
    finally:
        fake.stop()
