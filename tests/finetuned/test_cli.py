from tests.finetuned.command_line import finetuned
from tests.finetuned.fake_api import FakeApi
from tests.support.servers import free_port


def test_refusal_is_shown_without_a_traceback(api: FakeApi) -> None:
    api.answers["POST /jobs"] = (422, {"error": {"code": "recipe_invalid", "message": "batch.micro_batch_size: got 0"}})
    done = finetuned("submit", "-", "--url", api.url)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "batch.micro_batch_size: got 0\n")


def test_missing_service_is_reported_with_advice() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = finetuned("list", "--url", url)
    assert done.returncode == 3
    assert url in done.stderr
    assert "finetuned up" in done.stderr
