import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from contract.failure import InputError
from contract.machine import Machine, check_machine, check_machines, machines_for, usable_devices
from tests.support.jobs import make_recipe
from worker.launchers.profiles import Profile, offering, read_profiles

A100 = {
    "launcher": "slurm",
    "gres": "gpu:a100",
    "gpu_memory": "80GB",
    "gpus_per_node": 8,
    "max_nodes": 4,
    "max_jobs": 2,
}
CPU = {"launcher": "slurm", "max_jobs": 3}


def machine(**profiles: dict[str, Any]) -> Machine:
    """As the API reads it of a worker with these profiles."""
    known = {name: TypeAdapter[Profile](Profile).validate_python(keys) for name, keys in profiles.items()}
    login = offering(Machine(gpus=[], cores=2, cpu_bf16=False), known)
    return Machine.model_validate_json(login.model_dump_json())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            '{"a": {"launcher": "pbs"}}',
            "profile a: Input tag 'pbs' found using 'launcher' does not match any of the expected tags",
        ),
        ('{"a": {"launcher": "slurm", "partitions": "x"}}', "profile a, partitions: Extra inputs are not permitted"),
        ('{"a": {"launcher": "slurm", "gres": "gpu"}}', "profile a: gres and gpu_memory go together"),
        ('{"a": {"launcher": "slurm", "gpu_memory": "80 apples", "gres": "gpu"}}', "profile a, gpu_memory: "),
        ('{"a": {"launcher": "slurm", "options": ["--comment=x"]}}', 'profile a: options: got "--comment=x"'),
        ('{"a": {"launcher": "slurm", "options": ["sleep"]}}', 'profile a: options: got "sleep"'),
        ("{}", "at least 1 item"),
        ("nothing", "Invalid JSON"),
    ],
)
def test_wrong_profile_is_named_with_its_key(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "profiles.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(problem)):
        read_profiles(str(tmp_path / "profiles.json"))


def test_file_of_profiles_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read .*none.json: No such file"):
        read_profiles(str(tmp_path / "none.json"))


def test_profiles_are_read_from_their_file(tmp_path: Path) -> None:
    (tmp_path / "profiles.json").write_text(json.dumps({"a100": A100, "cpu": CPU}))
    found = read_profiles(str(tmp_path / "profiles.json"))
    assert isinstance(found, dict)
    assert found["a100"].gpu_memory == 80_000_000_000


def test_job_takes_one_place_of_its_profile_alone() -> None:
    login = machine(a100=A100, cpu=CPU)
    recipe = make_recipe(resources={"profile": "cpu"})
    assert login.devices == 5
    assert usable_devices(recipe, login) == {2, 3, 4}
    assert login.devices_needed(make_recipe(resources={"profile": "a100", "gpus": 8, "nodes": 4})) == 1
    assert usable_devices(make_recipe(), login) == frozenset()


def test_profile_keeps_to_clusters_and_others_to_machines() -> None:
    own = Machine(gpus=[], cores=2, cpu_bf16=False)
    assert usable_devices(make_recipe(resources={"profile": "cpu"}), own) == frozenset()
    assert machines_for(make_recipe(), [own, machine(cpu=CPU)]) == [own]


def test_nodes_of_two_workers_do_not_add_up() -> None:
    small, large = machine(a100=A100 | {"max_nodes": 2}), machine(a100=A100)
    recipe = make_recipe(resources={"profile": "a100", "nodes": 4})
    check_machines(recipe, machines_for(recipe, [small, large]))
    assert usable_devices(recipe, small) == frozenset()
    assert usable_devices(recipe, large) == {0, 1}
    with pytest.raises(InputError, match="got 4, each on a machine of its own, and 2 can train this"):
        check_machines(recipe, [small, small])


def test_plans_see_the_profiles_gpus() -> None:
    nodes = machines_for(make_recipe(resources={"profile": "a100"}), [machine(a100=A100)])
    assert len(nodes) == 4
    assert {gpu.memory_bytes for node in nodes for gpu in node.gpus} == {80_000_000_000}


@pytest.mark.parametrize(
    ("resources", "param", "words"),
    [
        ({"profile": "h100"}, "resources.profile", 'got "h100"; the workers offer a100, cpu'),
        ({}, "resources.profile", "no worker trains on a machine of its own; the workers offer a100, cpu"),
        ({"profile": "a100", "gpus": 9}, "resources.gpus", "a node of profile a100 runs 8 ranks"),
        ({"profile": "cpu", "gpus": 2}, "resources.gpus", "a node of profile cpu runs 1 ranks"),
        ({"profile": "a100", "nodes": 5}, "resources.nodes", "got 5, each on a machine of its own, and 4 can"),
    ],
)
def test_more_than_a_profile_has_is_refused(resources: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        check_machines(make_recipe(resources=resources), [machine(a100=A100, cpu=CPU)])
    assert error.value.failure.param == param
    assert words in str(error.value)


def test_worker_takes_what_its_profile_has() -> None:
    check_machine(make_recipe(resources={"profile": "a100", "gpus": 8, "nodes": 4}), machine(a100=A100))
