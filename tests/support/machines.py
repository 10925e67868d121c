"""Machines with GPUs, as workers describe them."""

from contract.machine import Gpu, Machine

A100 = Gpu(uuid="GPU-1", name="NVIDIA A100", memory_bytes=80 * 2**30, compute_capability=(8, 0))
GPUS = Machine(gpus=[A100, A100.model_copy(update={"uuid": "GPU-2"})], cores=8, cpu_bf16=True)
