import json
from typing import Any

from tests.finetuned.command_line import finetuned
from tests.finetuned.fake_api import FakeApi


def quota(owner: str, **limits: Any) -> dict[str, Any]:
    own = {"running_jobs": None, "queued_jobs": None, "bytes": None, **limits}
    used = {"running_jobs": 1, "queued_jobs": 0, "bytes": 1500}
    return {"owner": owner, "limits": {**own, "queued_jobs": 1000}, "own_limits": own, "used": used}


def test_quotas_are_listed_and_set(api: FakeApi) -> None:
    api.answers["GET /quotas"] = (200, {"data": [quota("anna", running_jobs=2, bytes=3000)], "has_more": False})
    api.answers["PUT /quotas/anna"] = (200, quota("anna", running_jobs=2))
    here = ("--url", api.url)
    (line,) = [each for each in finetuned("quotas", *here).stdout.splitlines() if "anna" in each]
    assert "1 of 2" in line
    assert "0 of 1000" in line
    assert "1.5 kB of 3.0 kB" in line
    done = finetuned("quotas", "set", "anna", "--running-jobs", "2", *here)
    assert "running jobs 1 of 2; queued jobs 0 of 1000; bytes 1.5 kB" in done.stderr
    assert json.loads(api.bodies[-1]) == {"running_jobs": 2, "queued_jobs": None, "bytes": None}
    assert json.loads(finetuned("quotas", "--json", *here).stdout)[0]["owner"] == "anna"


def test_limit_below_zero_is_refused(api: FakeApi) -> None:
    refused = finetuned("quotas", "set", "anna", "--bytes", "-1", "--url", api.url)
    assert (refused.returncode, len(api.bodies)) == (2, 0)
