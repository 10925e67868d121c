"""Stands in for NVIDIA's driver library, on PYTHONPATH before the real one: GPUs that are not there.

The file that FAKE_NVML names holds them, and is read at each call: a test may change it while a worker runs. Without
FAKE_NVML there is no driver.

    {"driver": "the driver's version", "gpus": [{
        "uuid": "GPU-...", "name": "...", "capability": [9, 0], "memory_total": bytes, "memory_used": bytes,
        "processes": [{"pid": 1, "memory": bytes or null, "kind": "compute" or "graphics"}],
        "mig": [null for a place that nobody has, or {"uuid": "MIG-...", and all of a GPU's but capability and mig}],
        "errors": {"a function of this module, or * for each": "the error that it raises: NVMLError_..."}
    }]}

All but "gpus" and "uuid" may be left out. A handle is a UUID.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

NVML_DEVICE_MIG_ENABLE = 1
nvmlMemory_v2 = 0x02000028

RESERVED = 2**30
"""Bytes of each GPU that the driver has for itself; only the second version of the memory's figures leaves it out."""

times_initialised = 0


class NVMLError(Exception):
    def __str__(self) -> str:
        return type(self).__name__.removeprefix("NVMLError_")


class NVMLError_FunctionNotFound(NVMLError):
    pass


class NVMLError_GpuIsLost(NVMLError):
    pass


class NVMLError_LibraryNotFound(NVMLError):
    pass


class NVMLError_NoPermission(NVMLError):
    pass


class NVMLError_NotFound(NVMLError):
    pass


class NVMLError_NotSupported(NVMLError):
    pass


class NVMLError_Uninitialized(NVMLError):
    pass


class NVMLError_Unknown(NVMLError):
    pass


def nvmlInit() -> None:
    global times_initialised
    if "FAKE_NVML" not in os.environ:
        raise NVMLError_LibraryNotFound
    times_initialised += 1


def nvmlShutdown() -> None:
    global times_initialised
    _gpus()
    times_initialised -= 1


def nvmlSystemGetDriverVersion() -> str:
    return json.loads(Path(os.environ["FAKE_NVML"]).read_text()).get("driver", "580.65.06")


def nvmlDeviceGetCount() -> int:
    return len(_gpus())


def nvmlDeviceGetHandleByIndex(index: int) -> str:
    return _answering(_gpus()[index], "nvmlDeviceGetHandleByIndex")["uuid"]


def nvmlDeviceGetHandleByUUID(uuid: str) -> str:
    return _device(uuid, "nvmlDeviceGetHandleByUUID")["uuid"]


def nvmlDeviceGetUUID(handle: str) -> str:
    return _device(handle, "nvmlDeviceGetUUID")["uuid"]


def nvmlDeviceGetName(handle: str) -> str:
    return _device(handle, "nvmlDeviceGetName").get("name", "a GPU that is not there")


def nvmlDeviceGetCudaComputeCapability(handle: str) -> tuple[int, int]:
    return tuple(_device(handle, "nvmlDeviceGetCudaComputeCapability").get("capability", (9, 0)))


def nvmlDeviceGetMemoryInfo(handle: str, version: int | None = None) -> Any:
    device = _device(handle, "nvmlDeviceGetMemoryInfo")
    reserved = RESERVED if version is None else 0
    return SimpleNamespace(total=device.get("memory_total", 80 * 2**30), used=device.get("memory_used", 0) + reserved)


def nvmlDeviceGetComputeRunningProcesses_v3(handle: str) -> list[Any]:
    return _processes(_device(handle, "nvmlDeviceGetComputeRunningProcesses_v3"), "compute")


def nvmlDeviceGetGraphicsRunningProcesses_v3(handle: str) -> list[Any]:
    return _processes(_device(handle, "nvmlDeviceGetGraphicsRunningProcesses_v3"), "graphics")


def nvmlDeviceGetMigMode(device: str) -> list[int]:
    gpu = _device(device, "nvmlDeviceGetMigMode")
    if "mig" not in gpu:
        raise NVMLError_NotSupported
    return [NVML_DEVICE_MIG_ENABLE, NVML_DEVICE_MIG_ENABLE]


def nvmlDeviceGetMaxMigDeviceCount(device: str) -> int:
    return len(_device(device, "nvmlDeviceGetMaxMigDeviceCount")["mig"])


def nvmlDeviceGetMigDeviceHandleByIndex(device: str, index: int) -> str:
    instance = _device(device, "nvmlDeviceGetMigDeviceHandleByIndex")["mig"][index]
    if instance is None:
        raise NVMLError_NotFound
    return instance["uuid"]


def _gpus() -> list[dict[str, Any]]:
    if times_initialised == 0:
        raise NVMLError_Uninitialized
    return json.loads(Path(os.environ["FAKE_NVML"]).read_text())["gpus"]


def _device(uuid: str, function: str) -> dict[str, Any]:
    for gpu in _gpus():
        for device in (gpu, *filter(None, gpu.get("mig", []))):
            if device["uuid"] == uuid:
                return _answering(device, function)
    raise NVMLError_NotFound


def _answering(device: dict[str, Any], function: str) -> dict[str, Any]:
    errors = device.get("errors", {})
    if error := errors.get(function, errors.get("*")):
        raise globals()[error]
    return device


def _processes(device: dict[str, Any], kind: str) -> list[Any]:
    return [
        SimpleNamespace(pid=process["pid"], usedGpuMemory=process.get("memory"))
        for process in device.get("processes", [])
        if process["kind"] == kind
    ]
