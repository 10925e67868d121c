from tests.finetuned.fake_api import FakeApi
from tests.finetuned.running import finetuned
from tests.service import free_port


def test_what_the_service_refuses_is_told_without_a_traceback(api: FakeApi) -> None:
    api.answers["POST /jobs"] = (422, {"error": {"code": "recipe_invalid", "message": "batch.micro_batch_size: got 0"}})
    done = finetuned("submit", "-", "--url", api.url)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "batch.micro_batch_size: got 0\n")


def test_a_service_that_is_not_there_is_told_with_what_would_do() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = finetuned("list", "--url", url)
    assert done.returncode == 1
    assert url in done.stderr
    assert "finetuned up" in done.stderr
