import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetuned import Client, Damaged, Refused, Unreachable
from tests.finetuned.fake_api import FakeApi, event, job
from tests.support.servers import free_port

ADAPTER = "GET /jobs/job_1/artifacts/adapter.tar"


@pytest.fixture
def client(api: FakeApi) -> Iterator[Client]:
    with Client(api.url) as client:
        yield client


def archive(*names: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as opened:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = 5
            opened.addfile(entry, io.BytesIO(b"hello"))
    return packed.getvalue()


def test_recipe_is_sent_as_its_owner_wrote_it(api: FakeApi, client: Client) -> None:
    api.answers["POST /jobs"] = (201, job())
    assert client.jobs.create(b'{"model":  1e-3}').id == "job_1"
    assert api.bodies == [b'{"model":  1e-3}']


def test_job_is_sent_with_its_owner(api: FakeApi, client: Client) -> None:
    api.answers["POST /jobs"] = (201, job())
    client.jobs.create({})
    with Client(api.url, owner="anna") as annas:
        annas.jobs.create({})
    assert api.owners == [None, "anna"]


def test_job_actions_have_routes_of_their_own(api: FakeApi, client: Client) -> None:
    for what in ("cancel", "pause", "resume", "retry"):
        api.answers[f"POST /jobs/job_1/{what}"] = (200, job(what))
    api.answers["POST /jobs/job_1/cancel?force=true"] = (200, job("kill"))
    named = client.jobs.at("job_1")
    actions = (named.cancel, named.pause, named.resume, named.retry)
    assert [act().status for act in actions] == ["cancel", "pause", "resume", "retry"]
    assert named.cancel(force=True).status == "kill"
    api.answers["DELETE /jobs/job_1"] = (200, {"id": "job_1", "deleted": True})
    named.delete()


def test_workers_are_read_as_a_list(api: FakeApi, client: Client) -> None:
    api.answers["GET /workers"] = (200, {"data": [{"name": "a"}]})
    assert [each.name for each in client.workers.list()] == ["a"]


def test_refusal_carries_the_services_words(api: FakeApi, client: Client) -> None:
    error = {"code": "recipe_invalid", "message": "model: required", "param": "model", "type": "invalid_request_error"}
    api.answers["POST /jobs"] = (422, {"error": error})
    with pytest.raises(Refused, match="model: required") as refused:
        client.jobs.create({})
    assert (refused.value.status, refused.value.code, refused.value.param) == (422, "recipe_invalid", "model")


def test_another_kind_of_server_is_told_as_such(api: FakeApi, client: Client) -> None:
    api.answers["GET /jobs/job_1"] = (404, b"<html>not here</html>")
    with pytest.raises(Refused, match="answered 404, and not as a finetuned service does"):
        client.jobs.get("job_1")


def test_no_server_is_told_with_the_address() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url) as client, pytest.raises(Unreachable, match=f"no finetuned service answers at {url}"):
        client.jobs.get("job_1")


def test_jobs_are_read_page_by_page(api: FakeApi, client: Client) -> None:
    api.answers["GET /jobs"] = (200, {"data": [job()], "has_more": True})
    jobs = iter(client.jobs.list())
    assert next(jobs).id == "job_1"
    api.answers["GET /jobs"] = (200, {"data": [job() | {"id": "job_0"}], "has_more": False})
    assert [each.id for each in jobs] == ["job_0"]


def test_broken_stream_is_taken_up_where_it_broke(api: FakeApi, client: Client) -> None:
    metrics = [event("metric", f"1.{step}", step=step) for step in (1, 2, 3)]
    api.streams = [
        metrics[0] + metrics[1] + "event: metric\nid: 1.3\n",
        metrics[2] + event("status", "2.3", status="succeeded"),
    ]
    notes: list[str] = []
    events = list(client.jobs.at("job_1").watch(reconnecting=notes.append))
    assert [each.data.get("step") for each in events] == [1, 2, 3, None]
    assert api.last_event_ids == [None, "1.2"]
    assert len(notes) == 1


def test_broken_stream_is_resumed_after_a_retry(api: FakeApi, client: Client) -> None:
    api.streams = [
        event("status", "1.0", status="failed") + event("status", "2.0", status="queued"),
        event("status", "3.0", status="succeeded"),
    ]
    assert [each.data["status"] for each in client.jobs.at("job_1").watch()] == ["failed", "queued", "succeeded"]


def test_stream_of_unknown_job_fails_at_once(api: FakeApi, client: Client) -> None:
    api.answers["GET /jobs/job_1/events"] = (404, {"error": {"code": "not_found", "message": "no job job_1"}})
    with pytest.raises(Refused, match="no job job_1"):
        list(client.jobs.at("job_1").watch())


def test_adapter_is_unpacked(api: FakeApi, client: Client, tmp_path: Path) -> None:
    api.answers[ADAPTER] = (200, archive("adapter/adapter_config.json"))
    assert client.jobs.at("job_1").download(tmp_path / "out") == tmp_path / "out" / "adapter"
    assert (tmp_path / "out" / "adapter" / "adapter_config.json").read_text() == "hello"
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["adapter"]


def test_best_has_a_folder_of_its_own(api: FakeApi, client: Client, tmp_path: Path) -> None:
    api.answers[ADAPTER.replace("adapter.tar", "best.tar")] = (200, archive("checkpoint-2/adapter_config.json"))
    assert client.jobs.at("job_1").download(tmp_path, best=True) == tmp_path / "best"
    assert (tmp_path / "best" / "adapter_config.json").read_text() == "hello"


def test_download_that_breaks_off_is_gone_on_with(api: FakeApi, client: Client, tmp_path: Path) -> None:
    api.downloads["/jobs/job_1/artifacts/adapter.tar"] = archive("adapter/adapter_config.json")
    api.breaks = [50]
    client.jobs.at("job_1").download(tmp_path)
    assert (tmp_path / "adapter" / "adapter_config.json").read_text() == "hello"
    assert api.ranges == [None, None, "bytes=50-"]
    assert [each.name for each in tmp_path.iterdir()] == ["adapter"]


def test_download_resumes_with_missing_bytes_only(api: FakeApi, client: Client, tmp_path: Path) -> None:
    content = archive("adapter/adapter_config.json")
    api.downloads["/jobs/job_1/artifacts/adapter.tar"] = content
    (tmp_path / f".adapter.tar.{hashlib.sha256(content).hexdigest()[:16]}.partial").write_bytes(content[:40])
    client.jobs.at("job_1").save_artifact("adapter.tar", tmp_path / "adapter.tar")
    assert (tmp_path / "adapter.tar").read_bytes() == content
    assert api.ranges == [None, "bytes=40-"]


def test_changed_download_is_reported_and_dropped(api: FakeApi, client: Client, tmp_path: Path) -> None:
    content = archive("adapter/adapter_config.json")
    api.downloads["/jobs/job_1/artifacts/adapter.tar"] = content
    (tmp_path / f".adapter.tar.{hashlib.sha256(content).hexdigest()[:16]}.partial").write_bytes(bytes(40))
    with pytest.raises(Damaged, match="other bytes"):
        client.jobs.at("job_1").save_artifact("adapter.tar", tmp_path / "adapter.tar")
    assert list(tmp_path.iterdir()) == []


def test_samples_are_read_as_a_list(api: FakeApi, client: Client) -> None:
    api.answers["GET /jobs/job_1/samples"] = (200, {"data": [{"step": 4, "index": 0, "prompt": "Who?"}]})
    (sample,) = client.jobs.at("job_1").samples(step=4)
    assert (sample.index, sample.prompt, sample.generated) == (0, "Who?", None)


def test_torn_archive_is_told(api: FakeApi, client: Client, tmp_path: Path) -> None:
    api.answers[ADAPTER] = (200, archive("adapter/adapter_config.json")[:514])
    with pytest.raises(Damaged):
        client.jobs.at("job_1").download(tmp_path / "out")


def test_archive_cannot_write_outside_the_folder(api: FakeApi, client: Client, tmp_path: Path) -> None:
    api.answers[ADAPTER] = (200, archive("../escaped"))
    with pytest.raises(Damaged, match="outside the destination"):
        client.jobs.at("job_1").download(tmp_path / "out")
    assert [each.name for each in tmp_path.rglob("*")] == ["out"]
