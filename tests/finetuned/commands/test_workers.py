import json

from tests.finetuned.fake_api import FakeApi
from tests.finetuned.running import finetuned


def test_workers_is_a_table_for_people_and_json_for_scripts(api: FakeApi) -> None:
    busy = "It is used by blender [3d] \x1b[31m (pid 7, 8.0 GiB), which is not a job's."
    devices = [
        {
            "number": 0,
            "name": "A100",
            "status": "leased",
            "jobs": ["job_1", "job_2"],
            "jobs_of_other_owners": 1,
            "reason": None,
        },
        {"number": 1, "name": "A100", "status": "busy", "jobs": [], "jobs_of_other_owners": 0, "reason": busy},
        {"number": 2, "name": "A100", "status": "free", "jobs": [], "jobs_of_other_owners": 0, "reason": None},
    ]
    workers = [{"name": "gpu-a", "status": "ready", "devices": devices}]
    api.answers["GET /workers"] = (200, {"data": workers})
    table = finetuned("workers", "--url", api.url, COLUMNS="120").stdout
    assert [line.rstrip() for line in table.splitlines()[1:]] == [
        "gpu-a   ready   0       A100  job_1; job_2; 1 of other owners",
        f"gpu-a   ready   1       A100  {busy.replace(chr(27), chr(0xFFFD))}",
        "gpu-a   ready   2       A100  free",
    ]
    assert json.loads(finetuned("workers", "--json", "--url", api.url).stdout) == workers


def test_a_service_without_workers_says_so(api: FakeApi) -> None:
    api.answers["GET /workers"] = (200, {"data": []})
    assert finetuned("workers", "--url", api.url).stderr == "no worker is there\n"
