"""`python -m worker.doctor [--json]`: looks at all that the service needs here, and prints a line for each,
or for each of its faults.

Exits with 1 if anything is at fault; its line says what to do. It runs beside the API or a worker, with their settings.
"""

import http.client
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from kombu.exceptions import OperationalError
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError

from contract import ids
from runtime import broker
from runtime.settings import read_settings
from storage.backends import FolderStorage, Storage, make_storage
from storage.errors import StorageUnavailable
from store import schema
from store.scheduling import workers
from store.session import make_engine, make_sessions
from worker.launchers import kubernetes_check, slurm_check
from worker.launchers.cluster_trainer import ClusterFault
from worker.launchers.profiles import KubernetesProfile, SlurmProfile
from worker.machine import cuda
from worker.machine.inventory import detect
from worker.settings import WorkerSettings

_RESERVES = 5
"""How many times the disk reserve should be free: a fault here comes before jobs wait."""
_LARGEST_CLOCK_DIFFERENCE = 60.0
_PROBE = b"doctor"


class CheckFailed(Exception):
    """What is wrong, and what to do. Each argument is a fault."""


Check = Callable[[WorkerSettings], str]
"""Returns what it found. Raises CheckFailed."""


def main() -> None:
    settings = read_settings(WorkerSettings)
    as_json = sys.argv[1:] == ["--json"]
    found = [each for name, check in CHECKS.items() for each in report(name, check, settings, as_json)]
    if as_json:
        sys.stdout.write(json.dumps([asdict(each) for each in found], indent=2) + "\n")
    sys.exit(0 if all(each.ok for each in found) else 1)


@dataclass(frozen=True)
class Finding:
    check: str
    ok: bool
    message: str


def report(name: str, check: Check, settings: WorkerSettings, as_json: bool = False) -> list[Finding]:
    """Makes one check, and prints its lines unless all are printed as JSON."""
    try:
        found = [Finding(name, True, check(settings))]
    except CheckFailed as failed:
        found = [Finding(name, False, str(fault)) for fault in failed.args]
    if not as_json:
        for each in found:
            sys.stdout.write(f"{'ok' if each.ok else 'FAULT':5}  {name:10}  {each.message}\n")
    return found


def check_database(settings: WorkerSettings) -> str:
    with _connected(settings) as connection:
        if (problem := schema.mismatch(schema.revision_of(connection))) is not None:
            raise CheckFailed(problem)
    return f"answers, with the schema {schema.HEAD}"


def check_clock(settings: WorkerSettings) -> str:
    with _connected(settings) as connection:
        theirs = float(connection.scalar(select(func.extract("epoch", func.clock_timestamp()))) or 0)
    difference = abs(time.time() - theirs)
    if difference > _LARGEST_CLOCK_DIFFERENCE:
        raise CheckFailed(f"this machine's clock and the database's differ by {difference:.0f} s: set up NTP on both")
    return "agrees with the database's"


@contextmanager
def _connected(settings: WorkerSettings) -> Iterator[Connection]:
    engine = make_engine(settings)
    try:
        with engine.begin() as connection:
            yield connection
    except SQLAlchemyError as error:
        words = str(error).splitlines()[0]
        raise CheckFailed(
            f"the database does not answer: {words}; look at FINETUNED_DATABASE_URL and its log"
        ) from error
    finally:
        engine.dispose()


def check_broker(settings: WorkerSettings) -> str:
    try:
        broker.ping(broker.make_publisher(settings))
    except (OperationalError, ValueError) as error:
        raise CheckFailed(f"it does not answer: {error}; look at FINETUNED_BROKER_URL and its log") from error
    return "answers"


def check_workers(settings: WorkerSettings) -> str:
    engine = make_engine(settings)
    try:
        with make_sessions(engine).begin() as session:
            ready = workers.alive_names(session) - workers.draining_names(session)
    except SQLAlchemyError as error:
        raise CheckFailed("unknown, as the database does not answer or has no schema") from error
    finally:
        engine.dispose()
    if not ready:
        raise CheckFailed("none is ready, so no job starts: start one, or read its log")
    return f"ready: {', '.join(sorted(ready))}"


def check_disk(settings: WorkerSettings) -> str:
    try:
        free = shutil.disk_usage(settings.home).free
    except OSError as error:
        raise CheckFailed(
            f"{settings.home}: {error.strerror}; make the folder, or set FINETUNED_HOME to another"
        ) from error
    if free < _RESERVES * settings.disk_reserve:
        raise CheckFailed(
            f"{settings.home} has {free / 1e9:.1f} GB free, and no job starts with less than FINETUNED_DISK_RESERVE, "
            f"{settings.disk_reserve / 1e9:.1f} GB: remove old run folders, or use a larger disk"
        )
    return f"{settings.home} has {free / 1e9:.0f} GB free"


def check_home(settings: WorkerSettings) -> str:
    return _try_storage(FolderStorage(settings.home), f"{settings.home}: make it writable for this user")


def check_bucket(settings: WorkerSettings) -> str:
    if settings.storage is None:
        return "not used"
    return _try_storage(make_storage(settings), f"{settings.storage}: look at the AWS_* variables and the key's rights")


def _try_storage(storage: Storage, advice: str) -> str:
    """Writes, reads and deletes a few bytes."""
    key = f"cache/{ids.new_id('probe_')}"
    try:
        with storage.open_writer(key) as writer:
            writer.write(_PROBE)
        found = b"".join(storage.read(key))
        storage.delete(key)
    except (StorageUnavailable, OSError) as error:
        raise CheckFailed(f"{advice}. It said: {error}") from error
    if found != _PROBE:
        raise CheckFailed(f"{advice}. It returns other bytes than were written")
    return "can be written, read and deleted in"


def check_gpus(settings: WorkerSettings) -> str:
    machine = detect(os.environ, settings.slots)
    if machine.gpus:
        reason = cuda.unusable_reason() if settings.trainer is None else None
        if reason is not None:
            raise CheckFailed(reason)
        return machine.describe()
    if Path("/dev/nvidiactl").exists() or os.environ.get("NVIDIA_VISIBLE_DEVICES", "void") not in ("", "none", "void"):
        raise CheckFailed(
            "this machine or container has GPUs, and their driver does not answer: try nvidia-smi; in a container "
            "install the NVIDIA Container Toolkit on the machine and start the container again"
        )
    return f"none here; jobs of a worker here run on the {machine.describe()}"


def check_slurm(settings: WorkerSettings) -> str:
    return _check_cluster(slurm_check.check_cluster, SlurmProfile, settings)


def check_kubernetes(settings: WorkerSettings) -> str:
    return _check_cluster(kubernetes_check.check_clusters, KubernetesProfile, settings)


def _check_cluster(check: Check, profile: type, settings: WorkerSettings) -> str:
    if not any(isinstance(each, profile) for each in settings.profiles.values()):
        return "not used, as no profile of FINETUNED_PROFILES names it"
    try:
        return check(settings)
    except ClusterFault as failed:
        raise CheckFailed(*failed.args) from failed


def check_port(settings: WorkerSettings) -> str:
    port = os.environ.get("FINETUNED_PORT")
    if port is None:
        return "the API is not on this machine, as FINETUNED_PORT is not set"
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=5)
    try:
        connection.request("GET", "/health/live")
        answer = connection.getresponse().read()
    except ConnectionRefusedError:
        return f"{port} is free; the API does not run here"
    except (OSError, http.client.HTTPException):
        answer = b""
    finally:
        connection.close()
    if answer != b'{"status":"ok"}':
        raise CheckFailed(f"another program answers at port {port}: stop it, or set FINETUNED_PORT to another")
    return f"the API answers at {port}"


CHECKS: dict[str, Check] = {
    "database": check_database,
    "clock": check_clock,
    "broker": check_broker,
    "workers": check_workers,
    "disk": check_disk,
    "home": check_home,
    "bucket": check_bucket,
    "gpus": check_gpus,
    "slurm": check_slurm,
    "kubernetes": check_kubernetes,
    "port": check_port,
}


if __name__ == "__main__":
    main()
