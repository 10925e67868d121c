import json
import subprocess
import sys

import pytest

from tests.support.network import NetworkMachine, two_machines

PROGRAM = """
import json, sys
from worker.launchers import network
print(json.dumps(network.environment(sys.argv[1], json.loads(sys.argv[2]))))
"""


def environment_on(machine: NetworkMachine, address: str, given: dict[str, str]) -> dict[str, str]:
    command = machine.command([sys.executable, "-c", PROGRAM, address, json.dumps(given)])
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("given", "reported"),
    [
        ({}, {"GLOO_SOCKET_IFNAME": "cable", "NCCL_SOCKET_IFNAME": "=cable"}),
        ({"NCCL_SOCKET_IFNAME": "ib0"}, {"GLOO_SOCKET_IFNAME": "cable"}),
    ],
    ids=["", "but for what the operator has chosen"],
)
def test_ranks_get_the_interface_of_the_address(given: dict[str, str], reported: dict[str, str]) -> None:
    with two_machines() as (machine, _):
        assert environment_on(machine, machine.address, given) == reported


def test_unknown_address_gives_no_interface() -> None:
    with two_machines() as (machine, other):
        assert environment_on(machine, other.address, {}) == {}
