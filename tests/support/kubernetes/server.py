"""`python -m tests.support.kubernetes.server PORT` answers as an API server does. /test/... is for tests alone.

Deleting marks an object that has dependents or runs, as the real one does with foreground deletion and with pods. A
test then removes it.
"""

import json
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

_KINDS = {"jobsets": "JobSet", "pods": "Pod", "jobs": "Job", "workloads": "Workload", "localqueues": "LocalQueue"}
_VERBS = {"POST": "create", "DELETE": "delete"}
_NOW = "2026-12-01T00:00:00Z"

Objects = dict[tuple[str, str, str], dict[str, Any]]


class State:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.objects: Objects = {}
        """By namespace, plural and name."""
        self.calls: list[str] = []
        self.faults: list[dict[str, Any]] = []
        """What the next calls of a method meet: a status, or a lost reply."""
        self.denied: list[str] = []
        """Verbs and plurals, such as "create jobsets", that this user may not."""
        self.missing: list[str] = []
        """Groups with versions, such as "kueue.x-k8s.io/v1beta2", that are not installed."""


class Handler(BaseHTTPRequestHandler):
    state: State
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def _answer(self, method: str) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        with self.state.lock:
            if path.startswith("/test/"):
                self._send(200, _test(self.state, method, path, body))
                return
            self.state.calls.append(f"{method} {self.path}")
            fault = next((each for each in self.state.faults if each["method"] == method), None)
            if fault is not None:
                self.state.faults.remove(fault)
            if fault is not None and fault.get("before", True):
                self._fail(fault)
                return
            status, answer = _route(self.state, method, path, query, body)
            if fault is not None:
                self._fail(fault)
                return
        self._send(status, answer)

    def _fail(self, fault: dict[str, Any]) -> None:
        if fault["status"] is None:
            self.close_connection = True
            return
        self._send(fault["status"], _status(fault["status"], "a fault of the test"))

    def _send(self, status: int, answer: Any) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _test(state: State, method: str, path: str, body: Any) -> Any:
    what = path.removeprefix("/test/")
    if what == "calls":
        return state.calls
    if what == "faults":
        state.faults.append(body)
    elif what == "denied":
        state.denied = body
    elif what == "missing":
        state.missing = body
    elif method == "PUT":
        namespace, plural, name = what.split("/")
        known = state.objects.setdefault((namespace, plural, name), _new(namespace, plural, name))
        _merge(known, body)
    elif method == "DELETE":
        namespace, plural, name = what.split("/")
        state.objects.pop((namespace, plural, name), None)
    else:
        namespace, plural, name = what.split("/")
        return state.objects.get((namespace, plural, name))
    return None


def _merge(known: dict[str, Any], given: dict[str, Any]) -> None:
    for key, value in given.items():
        if isinstance(value, dict) and isinstance(known.get(key), dict):
            _merge(known[key], value)
        else:
            known[key] = value


def _new(namespace: str, plural: str, name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": str(uuid.uuid4()), "labels": {}}
    return {"kind": _KINDS.get(plural, plural), "metadata": metadata, "spec": {}, "status": {}}


def _route(state: State, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
    if path.endswith("/selfsubjectaccessreviews"):
        attributes = body["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (attributes["resource"], attributes.get("subresource"))))
        return 201, body | {"status": {"allowed": f"{attributes['verb']} {resource}" not in state.denied}}
    parts = path.strip("/").split("/")
    if "namespaces" not in parts:
        return 404, _status(404, "the server could not find the requested resource")
    namespace, *named = parts[parts.index("namespaces") + 1 :]
    plural, *rest = named or ["namespaces", namespace]
    verb = _VERBS.get(method, "get" if rest else "list")
    if f"{verb} {'/'.join([plural, *rest[1:]])}" in state.denied:
        return 403, _status(403, f"{plural} is forbidden")
    if "/".join(parts[1:3]) in state.missing:
        return 404, _status(404, "the server could not find the requested resource")
    if rest[1:] == ["pendingworkloads"]:
        found = state.objects.get((namespace, "pendingworkloads", rest[0]))
        return (200, found) if found else (404, _status(404, "not found"))
    if method == "POST":
        return _create(state, namespace, plural, body)
    if not rest:
        chosen = [each for key, each in state.objects.items() if key[:2] == (namespace, plural) and _fits(each, query)]
        return 200, {"kind": f"{_KINDS[plural]}List", "metadata": {"resourceVersion": "1"}, "items": chosen}
    key = (namespace, plural, rest[0])
    if key not in state.objects:
        return 404, _status(404, f'{plural} "{rest[0]}" not found')
    if method == "DELETE":
        return _delete(state, key, query, body or {})
    return 200, state.objects[key]


def _create(state: State, namespace: str, plural: str, body: dict[str, Any]) -> tuple[int, Any]:
    name = body["metadata"]["name"]
    if (namespace, plural, name) in state.objects:
        return 409, _status(409, f'{plural} "{name}" already exists')
    made = _new(namespace, plural, name)
    _merge(made, body)
    state.objects[namespace, plural, name] = made
    return 201, made


def _delete(
    state: State, key: tuple[str, str, str], query: dict[str, list[str]], body: dict[str, Any]
) -> tuple[int, Any]:
    found = state.objects[key]
    seconds = query["gracePeriodSeconds"][0] if "gracePeriodSeconds" in query else body.get("gracePeriodSeconds")
    policy = query["propagationPolicy"][0] if "propagationPolicy" in query else body.get("propagationPolicy")
    if str(seconds) == "0" or (key[1] == "jobsets" and policy != "Foreground"):
        del state.objects[key]
    else:
        found["metadata"]["deletionTimestamp"] = _NOW
    return 200, _status(200, "")


def _fits(found: dict[str, Any], query: dict[str, list[str]]) -> bool:
    wanted = [each.split("=", 1) for each in (query.get("labelSelector") or [""])[0].split(",") if each]
    return all(found["metadata"]["labels"].get(name) == value for name, value in wanted)


def _status(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


if __name__ == "__main__":
    Handler.state = State()
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print("listening", flush=True)  # noqa: T201
    server.serve_forever()
