from tests.finetuned.command_line import finetuned
from tests.finetuned.fake_api import FakeApi

FREED = {"kind": "training_checkpoints", "count": 2, "bytes": 1_500_000}


def test_clean_prints_what_it_frees_by_kind(api: FakeApi) -> None:
    api.answers["POST /clean"] = (200, {"dry_run": False, "bytes": 1_500_000, "data": [FREED]})
    api.answers["POST /clean?dry_run=true"] = (200, {"dry_run": True, "bytes": 1_500_000, "data": [FREED]})
    done = finetuned("clean", "--dry-run", "--url", api.url)
    assert done.returncode == 0
    assert "training checkpoints" in done.stdout
    assert "1.5 MB" in done.stdout
    assert done.stderr == "1.5 MB would be freed\n"
    assert finetuned("clean", "--url", api.url).stderr == "1.5 MB are freed\n"
    assert '"count": 2' in finetuned("clean", "--json", "--url", api.url).stdout
