from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kubernetes.cluster import FakeKubernetes, running_kubernetes


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKubernetes]:
    with running_kubernetes(tmp_path) as fake:
        monkeypatch.setenv("KUBECONFIG", str(fake.config))
        yield fake
