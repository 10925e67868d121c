"""Matches regular expressions that users wrote, which may take forever over one name."""

import json
import subprocess
import sys
import threading
from functools import lru_cache

from contract.failure import FailureCode, InputError
from contract.quote import quote

_SECONDS = 5
_AT_ONCE = threading.BoundedSemaphore(4)
"""Of this process."""
_MATCH = """
import ctypes, json, os, re, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nobody waits for the answer any more
os.nice(10)
expression, names = json.load(sys.stdin)
json.dump([name for name in names if re.fullmatch(expression, name)], sys.stdout)
"""


@lru_cache(maxsize=32)
def full_matches(param: str, expression: str, names: frozenset[str]) -> frozenset[str]:
    """Those of `names` that it matches as a whole; remembered, since one request asks several times. In a process of
    its own, which can be ended. Raises InputError about `param` where it takes too long."""
    with _AT_ONCE:
        try:
            found = subprocess.run(
                [sys.executable, "-I", "-S", "-c", _MATCH],
                input=json.dumps([expression, sorted(names)]),
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=True,
            )
        except subprocess.TimeoutExpired as error:
            message = f"{param}: {quote(expression)} takes too long to match; write it with fewer of *, + and |"
            raise InputError(FailureCode.TARGET_MODULES_UNMATCHED, message, param) from error
    return frozenset(json.loads(found.stdout))
