import json

from tests.finetuned.command_line import finetuned
from tests.finetuned.fake_api import FakeApi

PATH = "/v1/fine_tuning/jobs/job_1"
ANSWER = {"choices": [{"message": {"content": "[b]Hello[/b] \x1b[31m there"}}]}


def prepare(api: FakeApi, model: str | None, *checkpoints: str) -> None:
    api.answers[f"GET {PATH}"] = (200, {"model": "tiny", "fine_tuned_model": model})
    listed = [{"fine_tuned_model_checkpoint": each} for each in checkpoints]
    api.answers[f"GET {PATH}/checkpoints"] = (200, {"data": listed})
    api.answers["POST /v1/chat/completions"] = (200, ANSWER)


def test_job_and_base_answer_side_by_side(api: FakeApi) -> None:
    prepare(api, "ft:tiny:anna::1")
    done = finetuned("chat", "job_1", "Hi?", "--with", "base", "--url", api.url)
    assert done.stdout.splitlines() == ["base: [b]Hello[/b] \\u001b[31m there", "job: [b]Hello[/b] \\u001b[31m there"]
    sent = [json.loads(body) for body in api.bodies]
    assert [each["model"] for each in sent] == ["tiny", "ft:tiny:anna::1"]
    assert {each["messages"][0]["content"] for each in sent} == {"Hi?"}


def test_running_job_answers_with_its_newest_checkpoint(api: FakeApi) -> None:
    prepare(api, None, "ft:x:ckpt-step-8", "ft:x:ckpt-step-4")
    done = finetuned("chat", "job_1", "Hi?", "--json", "--url", api.url)
    assert json.loads(done.stdout)["job"]
    finetuned("chat", "job_1", "Hi?", "--checkpoint", "4", "--url", api.url)
    assert [json.loads(body)["model"] for body in api.bodies] == ["ft:x:ckpt-step-8", "ft:x:ckpt-step-4"]
    missing = finetuned("chat", "job_1", "Hi?", "--checkpoint", "5", "--url", api.url)
    assert (missing.returncode, "ckpt-step-8" in missing.stderr) == (1, True)


def test_checkpoint_of_a_further_page_answers(api: FakeApi) -> None:
    prepare(api, None, "ft:x:ckpt-step-4")
    first = {"id": "ftckpt_8", "fine_tuned_model_checkpoint": "ft:x:ckpt-step-8"}
    job = {"model": "tiny", "fine_tuned_model": None}
    api.busy = [(200, {}, job), (200, {}, {"data": [first], "has_more": True})]
    done = finetuned("chat", "job_1", "Hi?", "--checkpoint", "4", "--url", api.url)
    assert done.returncode == 0, done.stderr
    assert json.loads(api.bodies[0])["model"] == "ft:x:ckpt-step-4"


def test_job_without_an_adapter_says_so(api: FakeApi) -> None:
    prepare(api, None)
    done = finetuned("chat", "job_1", "Hi?", "--url", api.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "saved no adapter" in done.stderr
