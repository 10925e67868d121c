"""An import only defines things: what is read, connected or configured, an entry point does."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

GUARD = Path(__file__).parents[1] / "worker" / "supervise" / "guard.py"

# Imports every module of a package, and compares what belongs to the whole process before and after.
SCRIPT = """
import importlib, logging, os, pkgutil, signal, socket, subprocess, sys, threading
import pynvml

package = sys.argv[1]
forbidden = []

def forbid(name):
    def refuse(*arguments, **options):
        forbidden.append(name)
        raise RuntimeError(f"an import calls {name}")
    return refuse

socket.socket.connect = forbid("connect")
socket.getaddrinfo = forbid("getaddrinfo")
subprocess.Popen.__init__ = forbid("Popen")
pynvml.nvmlInit = forbid("nvmlInit")

def state():
    return {
        "environment": dict(os.environ),
        "umask": (mask := os.umask(0o022), os.umask(mask))[0],
        "log": [type(handler).__name__ for handler in logging.getLogger().handlers] + [logging.getLogger().level],
        "hooks": (sys.excepthook is sys.__excepthook__, threading.excepthook is threading.__excepthook__),
        "signals": {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)},
        "threads": threading.active_count(),
        "files": [name for name in map(read, os.listdir("/proc/self/fd")) if name.startswith("socket:")],
    }

def read(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""

before = state()
root = importlib.import_module(package)
modules = [module.name for module in pkgutil.walk_packages(root.__path__, f"{package}.")]
for module in modules:
    importlib.import_module(module)
after = state()
assert forbidden == [], forbidden
assert before == after, {name: (before[name], after[name]) for name in before if before[name] != after[name]}
assert len(modules) > 3
"""


@pytest.mark.parametrize("package", ["api", "runtime", "storage", "store", "worker"])
def test_imports_have_no_effect(package: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FINETUNED_")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, package], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_guard_imports_the_standard_library_only() -> None:
    """It starts with each job, within milliseconds, and must work whatever happens to the code around it."""
    nodes = list(ast.walk(ast.parse(GUARD.read_text())))
    assert not [node for node in nodes if isinstance(node, ast.ImportFrom)]
    imported = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    assert imported <= sys.stdlib_module_names
