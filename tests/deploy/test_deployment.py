import subprocess
from pathlib import Path

import pytest


@pytest.mark.deploy
@pytest.mark.timeout(5400)
def test_deployment_survives_everything() -> None:
    subprocess.run([Path(__file__).with_name("run")], check=True)
