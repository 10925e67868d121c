"""Uploads to the API as a process: what it holds in memory, what it leaves when it is killed, and what a hub sends."""

import hashlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from store.session import Sessions
from tests.support import service
from tests.support.database import empty_database
from tests.support.files import ROW, add_model_and_dataset
from tests.support.servers import free_port
from tests.support.service import Service
from tests.support.waiting import until

GOOD = json.dumps(ROW).encode() + b"\n"
MIB = 1 << 20


@pytest.fixture
def home(tmp_path: Path) -> Path:
    add_model_and_dataset(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, engine: sa.Engine, database_url: str, broker_url: str
) -> Iterator[Service]:
    """Takes files of 1 MB."""
    empty_database(engine)
    home = tmp_path_factory.mktemp("home")
    add_model_and_dataset(home)
    with api(home, database_url, broker_url, FINETUNED_LARGEST_DATASET="1000000") as live:
        yield live


@contextmanager
def api(home: Path, database_url: str, broker_url: str, **settings: str) -> Iterator[Service]:
    with service.running(home, database_url, broker_url, workers=(), **settings) as live:
        yield live


def resident(live: Service, what: str = "VmRSS") -> int:
    """Bytes of memory of the API's process."""
    status = Path(f"/proc/{live.api.pid}/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0]) << 10


def form(pieces: Iterator[bytes], name: str = "rows.jsonl") -> Iterator[bytes]:
    yield f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
    yield from pieces
    yield b"\r\n--x--\r\n"


def send(live: Service, pieces: Iterator[bytes], name: str = "rows.jsonl") -> dict[str, Any]:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = live.client.post("/datasets", content=form(pieces, name), headers=headers, timeout=120)
    assert answer.status_code == 201, answer.text
    return answer.json()


def checked(live: Service, dataset_id: str, seconds: float = 120) -> dict[str, Any]:
    return until(
        lambda: (found := live.client.get(f"/datasets/{dataset_id}").json())["status"] != "uploaded" and found, seconds
    )


@pytest.mark.exhaustive
@pytest.mark.slow
def test_api_memory_is_bounded_for_large_uploads(
    home: Path, sessions: Sessions, database_url: str, broker_url: str
) -> None:
    row = json.dumps({"prompt": "?", "completion": "a" * 10_000}).encode() + b"\n"
    piece = row * (MIB // len(row))
    with api(home, database_url, broker_url) as live:
        send(live, iter([GOOD]))  # what is imported at the first one is there
        before = resident(live)
        rows = send(live, (piece for _ in range(100)))
        line = send(live, (b"x" * MIB for _ in range(300)), "line.jsonl")
        assert resident(live, "VmHWM") - before < 50 * MIB
        assert checked(live, rows["id"])["rows"] == 100 * (MIB // len(row))
        found = checked(live, line["id"])
        assert found["status_details"] == "row 1: is longer than 64 MiB; split or shorten it"
        assert resident(live, "VmHWM") - before < 50 * MIB


def test_upload_that_breaks_off_leaves_nothing(live: Service) -> None:
    incoming = live.home / "incoming"

    def breaks() -> Iterator[bytes]:
        yield GOOD * (500_000 // len(GOOD))
        until(lambda: list(incoming.glob("*")))
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        send(live, breaks())
    until(lambda: not list(incoming.iterdir()))
    assert live.client.get("/datasets").json()["data"] == []
    assert "Traceback" not in (live.home / "api.log").read_text()


def test_oversized_upload_is_refused_while_sending(live: Service) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x", "content-length": str(10 << 30)}
    answer = live.client.post("/datasets", content=form(GOOD * 1000 for _ in range(10**9)), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    answer = live.client.post(
        "/datasets", content=form(GOOD * 1000 for _ in range(10**9)), headers={"content-type": headers["content-type"]}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_refusal_for_another_reason_ends_the_upload(live: Service) -> None:
    for path, kind, status in (("/datasets", "text/plain", 422), ("/jobs", "application/json", 413)):
        body = (GOOD * 1000 for _ in range(10**9))
        answer = live.client.post(path, content=body, headers={"content-type": kind})
        assert (answer.status_code, answer.headers["connection"]) == (status, "close")
    assert live.client.get("/datasets").headers.get("connection") != "close"


@pytest.mark.exhaustive
def test_interrupted_check_is_repeated_by_the_next_process(
    home: Path, sessions: Sessions, database_url: str, broker_url: str
) -> None:
    piece = GOOD * (MIB // len(GOOD))
    with api(home, database_url, broker_url) as live:
        dataset = send(live, (piece for _ in range(30)))
        assert dataset["status"] == "uploaded"
        live.api.kill()
        live.api.wait()
        live.start_api()
        assert checked(live, dataset["id"])["status"] == "processed"


class Hub(http.server.BaseHTTPRequestHandler):
    """As a hub answers for a file of a data set: by way of another address."""

    requested: list[dict[str, str]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.requested.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
        if self.path == "/datasets/org/name/resolve/main/data/train.jsonl":
            self.send_response(302)
            self.send_header("location", "/cdn/train")
            self.end_headers()
        elif self.path.endswith("/private.jsonl") and self.headers["authorization"] == "Bearer hf_annas_own":
            self.send_response(302)
            self.send_header("location", f"http://localhost:{self.headers['host'].split(':')[1]}/cdn/private")
            self.end_headers()
        elif self.path.startswith("/cdn/") or self.path == "/datasets/org/name/resolve/v1/rows.csv":
            body = b"text\na\n" if self.path.endswith(".csv") else GOOD * 5
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        elif self.path.endswith("/endless.jsonl"):
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(GOOD * 1000)
            except OSError:
                pass
        elif self.path.endswith("/torn.jsonl"):
            self.send_response(200)
            self.send_header("content-length", "1000000")
            self.end_headers()
            self.wfile.write(GOOD)
        else:
            self.send_response(404)
            self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        Hub.requested.clear()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_hub_file_is_fetched_and_checked(
    home: Path, sessions: Sessions, database_url: str, broker_url: str, hub: str
) -> None:
    variables = {"HF_ENDPOINT": hub, "HF_TOKEN": "hf_the_operators", "FINETUNED_LARGEST_DATASET": "1000000"}
    with api(home, database_url, broker_url, **variables) as live:

        def refer(**reference: str) -> Any:
            return live.client.post("/datasets", json={"hub": "org/name", **reference})

        dataset = refer(file="data/train.jsonl").json()
        assert (dataset["source"], dataset["filename"]) == ("org/name/data/train.jsonl", "train.jsonl")
        assert dataset["sha256"] == hashlib.sha256(GOOD * 5).hexdigest()
        assert checked(live, dataset["id"])["rows"] == 5
        csv = refer(file="rows.csv", revision="v1").json()
        assert csv["source"] == "org/name/rows.csv@v1"
        assert checked(live, csv["id"])["format"] == "text"
        for file, status, words in (
            ("none.jsonl", 422, "the hub answers 404"),
            ("torn.jsonl", 422, "the hub"),
            ("endless.jsonl", 413, "more than 1000000 bytes"),
        ):
            answer = refer(file=file)
            assert answer.status_code == status, answer.text
            assert words in answer.json()["error"]["message"]
        assert not list((home / "incoming").iterdir())
        assert all("authorization" not in requested for requested in Hub.requested)


def test_private_hub_file_needs_its_owners_secret(
    home: Path, sessions: Sessions, database_url: str, broker_url: str, hub: str
) -> None:
    with api(home, database_url, broker_url, HF_ENDPOINT=hub) as live:
        live.client.put("/secrets/hub", json={"value": "hf_annas_own"}).raise_for_status()
        private = {"hub": "org/name", "file": "private.jsonl"}
        assert "answers 404" in live.client.post("/datasets", json=private).text
        dataset = live.client.post("/datasets", json={**private, "secret": "hub"}).raise_for_status().json()
        assert checked(live, dataset["id"])["rows"] == 5
        sent = [requested.get("authorization") for requested in Hub.requested]
        assert sent == [None, "Bearer hf_annas_own", None]  # the last one to another host
        refused = live.client.post("/datasets", json={**private, "secret": "none"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, "secret")
    assert "hf_annas_own" not in (home / "api.log").read_text()


@pytest.mark.exhaustive
def test_hub_that_is_away_is_told(home: Path, sessions: Sessions, database_url: str, broker_url: str) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    with api(home, database_url, broker_url, HF_ENDPOINT=away) as live:
        began = time.monotonic()
        answer = live.client.post("/datasets", json={"hub": "org/name", "file": "a.jsonl"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "hub")
        assert "cannot be reached" in answer.json()["error"]["message"]
        assert time.monotonic() - began < 30
