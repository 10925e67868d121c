import json
import subprocess
import sys

import pytest

from tests.network import NetworkMachine, two_machines

PROGRAM = """
import json, sys
from worker.attempt import network
print(json.dumps(network.environment(sys.argv[1], json.loads(sys.argv[2]))))
"""


def environment_on(machine: NetworkMachine, address: str, given: dict[str, str]) -> dict[str, str]:
    command = machine.command([sys.executable, "-c", PROGRAM, address, json.dumps(given)])
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, {"GLOO_SOCKET_IFNAME": "cable", "NCCL_SOCKET_IFNAME": "=cable"}),
        ({"NCCL_SOCKET_IFNAME": "ib0"}, {"GLOO_SOCKET_IFNAME": "cable"}),
    ],
    ids=["", "but for what the operator has chosen"],
)
def test_ranks_are_told_the_interface_that_has_the_machines_address(
    given: dict[str, str], told: dict[str, str]
) -> None:
    with two_machines() as (machine, _):
        assert environment_on(machine, machine.address, given) == told


def test_ranks_are_told_no_interface_where_none_has_the_address() -> None:
    with two_machines() as (machine, other):
        assert environment_on(machine, other.address, {}) == {}
