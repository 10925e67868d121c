"""Whether the trainer's torch can use the GPUs of this machine, as far as that can be known without loading torch."""

import ast
import importlib.util
from pathlib import Path

import pynvml

from worker.machine.inventory import driver

LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
"""The least driver branch by CUDA's major version:
https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html, table 1."""


def unusable_reason() -> str | None:
    """Why the built-in trainer cannot use the GPUs; None if nothing is known against it."""
    spec = importlib.util.find_spec("torch")  # imports nothing
    if spec is None or spec.origin is None:
        return "torch is not installed; install the packages of the trainer"
    version, cuda = read_versions(Path(spec.origin).with_name("version.py"))
    if cuda is None:
        return f"the trainer's torch {version} is built without CUDA; install a build for CUDA"
    try:
        with driver():
            found = str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError as error:
        return f"the driver does not say its version: {error}"
    return _compare(version, cuda, found)


def _compare(torch: str, cuda: str, found: str) -> str | None:
    least = LEAST_DRIVER.get(int(cuda.partition(".")[0]))
    branch = found.partition(".")[0]
    if least is None or not branch.isdecimal() or int(branch) >= least:
        return None
    return (
        f"the driver {found} is too old for the trainer's torch {torch}, which is built for CUDA {cuda} and needs a "
        f"driver {least} or newer; upgrade the driver and restart the worker"
    )


def read_versions(file: Path) -> tuple[str, str | None]:
    """torch's version and the CUDA version that it is built for, from its version.py."""
    values: dict[str, object] = {}
    for node in ast.parse(file.read_text()).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.Constant):
            values |= {target.id: value.value for target in targets if isinstance(target, ast.Name)}
    cuda = values.get("cuda")
    return str(values.get("__version__", "of an unknown version")), None if cuda is None else str(cuda)
