"""A server on the loopback that speaks the language of Hugging Face's hub, as far as pushes need it: repos, branches,
Git LFS and commits, for tokens with rights in some namespaces."""

import base64
import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import yaml

Answer = tuple[int, dict[str, Any]]


@dataclass
class HubRepo:
    private: bool
    branches: dict[str, list[dict[str, bytes]]] = field(default_factory=lambda: {"main": [{}]})
    """The files of each commit, from the first, by branch."""

    def files(self, branch: str = "main") -> dict[str, bytes]:
        return self.branches[branch][-1]


@dataclass
class ModelHub:
    tokens: dict[str, set[str]]
    """The namespaces that each may write to."""
    url: str = ""
    repos: dict[str, HubRepo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """What came by Git LFS, by its SHA-256."""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Method with path, and the authorization."""
    faults: list[Answer] = field(default_factory=list)
    """Answers to the next requests for a repo, in place of the hub's own."""
    uploading: threading.Event = field(default_factory=threading.Event)
    """Set when a file begins to come."""
    going_on: threading.Event = field(default_factory=threading.Event)
    """Files are taken once this is set."""

    def count(self, pattern: str) -> int:
        return sum(re.fullmatch(pattern, request) is not None for request, _ in self.requests)

    def answer(self, method: str, path: str, authorization: str | None, body: bytes) -> Answer:
        for pattern, handle in _ROUTES.items():
            if found := re.fullmatch(pattern, f"{method} {path}"):
                if method == "PUT":  # its address is what gives the right
                    return handle(self, *found.groups(), body)
                token = (authorization or "").removeprefix("Bearer ")
                if token not in self.tokens:
                    return 401, {"error": "Invalid username or password."}
                if self.faults:
                    return self.faults.pop(0)
                return handle(self, token, *map(unquote, found.groups()), body)
        return 404, {"error": f"no route {method} {path}"}


def _create(hub: ModelHub, token: str, body: bytes) -> Answer:
    given = json.loads(body)
    name = f"{given['organization']}/{given['name']}"
    if given["organization"] not in hub.tokens[token]:
        words = f'You don\'t have the rights to create a model under the namespace "{given["organization"]}". {token}'
        return 403, {"error": words}
    if name in hub.repos:
        return 409, {"error": "You already created this model repo", "url": f"{hub.url}/{name}"}
    hub.repos[name] = HubRepo(given["visibility"] == "private")
    return 200, {"url": f"{hub.url}/{name}"}


def _describe(hub: ModelHub, token: str, name: str, body: bytes) -> Answer:
    if name not in hub.repos or name.partition("/")[0] not in hub.tokens[token]:
        return 404, {"error": "Repository not found"}
    return 200, {"id": name, "sha": _commit_id(hub, name, "main")}


def _branch(hub: ModelHub, token: str, name: str, branch: str, body: bytes) -> Answer:
    branches = hub.repos[name].branches
    if branch in branches:
        return 409, {"error": "Reference already exists"}
    branches[branch] = [*branches["main"]]
    return 200, {}


def _check_card(hub: ModelHub, token: str, body: bytes) -> Answer:
    header = json.loads(body)["content"].split("---\n")[1]
    base = yaml.safe_load(header).get("base_model", "org/name")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        return 200, {"errors": [], "warnings": []}
    words = f'"base_model" with value "{base}" is not valid. Use a model id from https://hf.co/models.'
    return 400, {"errors": [{"message": words}], "warnings": []}


def _plan(hub: ModelHub, token: str, name: str, branch: str, body: bytes) -> Answer:
    files = []
    for file in json.loads(body)["files"]:
        mode = "lfs" if file["path"].endswith((".safetensors", ".gguf")) else "regular"
        old = hub.repos[name].files(branch).get(file["path"])
        oid = None if old is None else hashlib.sha256(old).hexdigest() if mode == "lfs" else _git_id(old)
        files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return 200, {"files": files}


def _git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _batch(hub: ModelHub, token: str, name: str, body: bytes) -> Answer:
    objects = []
    for each in json.loads(body)["objects"]:
        known = {"oid": each["oid"], "size": each["size"]}
        upload = {"actions": {"upload": {"href": f"{hub.url}/lfs/{each['oid']}"}}}
        objects.append(known if each["oid"] in hub.objects else known | upload)
    return 200, {"transfer": "basic", "objects": objects}


def _take_object(hub: ModelHub, oid: str, body: bytes) -> Answer:
    assert hashlib.sha256(body).hexdigest() == oid
    hub.objects[oid] = body
    return 200, {}


def _commit(hub: ModelHub, token: str, name: str, branch: str, body: bytes) -> Answer:
    files = dict(hub.repos[name].files(branch))
    for line in body.splitlines():
        operation = json.loads(line)
        value = operation["value"]
        if operation["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif operation["key"] == "lfsFile":
            files[value["path"]] = hub.objects[value["oid"]]
    hub.repos[name].branches[branch].append(files)
    commit = _commit_id(hub, name, branch)
    return 200, {"commitUrl": f"{hub.url}/{name}/commit/{commit}", "commitOid": commit, "success": True}


def _commit_id(hub: ModelHub, name: str, branch: str) -> str:
    return f"{len(hub.repos[name].branches[branch]):040x}"


def _describe_branch(hub: ModelHub, token: str, name: str, branch: str, body: bytes) -> Answer:
    return 200, {"id": name, "sha": _commit_id(hub, name, branch)}


_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES: dict[str, Any] = {
    r"POST /api/repos/create": _create,
    rf"GET /api/models/{_NAME}": _describe,
    rf"GET /api/models/{_NAME}/revision/(.+)": _describe_branch,
    rf"POST /api/models/{_NAME}/branch/(.+)": _branch,
    r"POST /api/validate-yaml": _check_card,
    rf"POST /api/models/{_NAME}/preupload/(.+)": _plan,
    rf"POST /{_NAME}\.git/info/lfs/objects/batch": _batch,
    r"PUT /lfs/(\w+)": _take_object,
    rf"POST /api/models/{_NAME}/commit/(.+)": _commit,
}


@contextmanager
def model_hub(port: int = 0, hub: ModelHub | None = None) -> Iterator[ModelHub]:
    """A hub that takes files at once; or one that was there before, on its port again."""
    served = hub or ModelHub({"hf_writer": {"org"}, "hf_reader": set()})
    served.going_on.set()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            path = self.path.partition("?")[0]
            authorization = self.headers.get("authorization")
            served.requests.append((f"{self.command} {path}", authorization))
            if self.command == "PUT":
                served.uploading.set()
                served.going_on.wait(30)
            status, answer = served.answer(self.command, path, authorization, self._body())
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = _serve

        def _body(self) -> bytes:
            if self.headers.get("transfer-encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("content-length") or 0))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            return body

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Tests kill clients in the middle."""
            if not isinstance(sys.exception(), OSError):
                super().handle_error(request, client_address)

    with Server(("127.0.0.1", port), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield served
        finally:
            served.going_on.set()
            server.shutdown()
            thread.join()
