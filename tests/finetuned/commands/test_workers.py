import json

from tests.finetuned.command_line import finetuned
from tests.finetuned.fake_api import FakeApi


def test_worker_list_is_a_table_or_json(api: FakeApi) -> None:
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
    workers = [{"name": "gpu-a", "status": "ready", "disk": None, "devices": devices}]
    api.answers["GET /workers"] = (200, {"data": workers})
    table = finetuned("workers", "--url", api.url, COLUMNS="120").stdout
    assert [line.rstrip() for line in table.splitlines()[1:]] == [
        "gpu-a   ready   0       A100  job_1; job_2; 1 of other owners",
        f"gpu-a   ready   1       A100  {busy.replace(chr(27), chr(0xFFFD))}",
        "gpu-a   ready   2       A100  free",
    ]
    assert json.loads(finetuned("workers", "--json", "--url", api.url).stdout) == workers


def test_low_disk_of_a_worker_is_shown(api: FakeApi) -> None:
    device = {"number": 0, "name": "A100", "status": "free", "jobs": [], "jobs_of_other_owners": 0, "reason": None}
    disk = {"free_bytes": 5, "total_bytes": 100, "reserve_bytes": 10, "low": True}
    worker = {"name": "gpu-a", "status": "ready", "disk": disk, "devices": [device]}
    api.answers["GET /workers"] = (200, {"data": [worker]})
    assert "gpu-a   ready, low disk  0" in finetuned("workers", "--url", api.url).stdout


def test_service_without_workers_says_so(api: FakeApi) -> None:
    api.answers["GET /workers"] = (200, {"data": []})
    assert finetuned("workers", "--url", api.url).stderr == "no workers yet\n"
