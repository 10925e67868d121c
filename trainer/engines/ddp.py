"""Each rank holds the whole model, and the ranks exchange the gradients of what is trained: DistributedDataParallel
through Accelerate. Also the engine of a single rank."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator

from contract.recipe import Optimizer
from trainer.data.packing import PackedBatch
from trainer.engines.engine import Update
from trainer.engines.optim import clip_gradients, make_optimizer, restore_optimizer, set_learning_rate
from trainer.model.trained_model import TrainedModel


class Ddp:
    name = "ddp"
    shards_parameters = False
    shards_gradients = False

    def __init__(self, module: TrainedModel, recipe: Optimizer, accelerator: Accelerator, fp16: bool) -> None:
        self.module = module
        self._accelerator = accelerator
        # DDP broadcasts everything but what is to be ignored. Each rank has loaded the same frozen base.
        module._ddp_params_and_buffers_to_ignore = _frozen(module)
        # Both are on the device already. Accelerate calls a CPU "cpu:0", which PyTorch takes for another device: it
        # would copy every weight.
        self._model, self._optimizer = accelerator.prepare(
            module, make_optimizer(module.named_parameters(), recipe), device_placement=[False, False]
        )
        self._trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        # Not Accelerate's mixed precision, which silently omits fp16 on a CPU.
        device = accelerator.device.type
        self._autocast = torch.autocast(device, dtype=torch.float16, enabled=fp16)
        self._scaler = torch.amp.GradScaler(device, enabled=fp16)

    def accumulate(self, batch: PackedBatch, scale: float, sync_gradients: bool) -> torch.Tensor:
        with contextlib.nullcontext() if sync_gradients else self._accelerator.no_sync(self._model):
            with self._autocast:
                sums = self._model(batch)
            self._scaler.scale(sums[0] * scale).backward()
        return sums.detach()

    def update(self, learning_rate: float, max_grad_norm: float | None) -> Update:
        optimizer = self._optimizer.optimizer
        set_learning_rate(optimizer, learning_rate)
        loss_scale = self._scaler.get_scale() if self._scaler.is_enabled() else None
        self._scaler.unscale_(optimizer)
        norm = clip_gradients(self._trained, max_grad_norm)
        # Takes no step unless all gradients are finite.
        self._scaler.step(optimizer)
        self._scaler.update()
        optimizer.zero_grad()
        overflow = loss_scale is not None and not math.isfinite(norm)
        return Update(None if overflow else norm, loss_scale)

    @torch.no_grad()
    def sums(self, batch: PackedBatch, log_probabilities: bool = False) -> torch.Tensor:
        # Only the training pass is compiled. Without gradients the layers would be compiled again.
        with self._autocast, torch.compiler.set_stance("force_eager"):
            return self.module(batch, log_probabilities)

    def adapter(self) -> dict[str, torch.Tensor]:
        return {name: p.detach() for name, p in self.module.model.named_parameters() if p.requires_grad}

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        return dict(_optimizer_tensors(self.module.model, self._optimizer.optimizer))

    def load(self, adapter: dict[str, torch.Tensor], optimizer: dict[str, torch.Tensor]) -> None:
        own = self._optimizer.optimizer
        values: dict[int, dict[str, torch.Tensor]] = {}
        for index, name in enumerate(_names(self.module.model, own)):
            prefix = f"{name}/"
            values[index] = {key.removeprefix(prefix): optimizer[key] for key in optimizer if key.startswith(prefix)}
        restore_optimizer(own, values)

    def scaler_state(self) -> dict[str, float]:
        own = self._scaler.state_dict()
        return {"scale": own["scale"], "clean_steps": own["_growth_tracker"]} if own else {}

    def load_scaler_state(self, state: dict[str, float]) -> None:
        if state:
            own = self._scaler.state_dict()
            self._scaler.load_state_dict(own | {"scale": state["scale"], "_growth_tracker": state["clean_steps"]})


def _frozen(module: torch.nn.Module) -> list[str]:
    parameters = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    return parameters + [name for name, _ in module.named_buffers()]


def _optimizer_tensors(model: Any, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.Tensor]]:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, parameter in zip(_names(model, optimizer), parameters, strict=True):
        for key, value in optimizer.state[parameter].items():
            # Copies: the 8-bit optimizer's parameters share a table, which safetensors refuses to save twice.
            yield f"{name}/{key}", torch.as_tensor(value).clone()


def _names(model: Any, optimizer: torch.optim.Optimizer) -> list[str]:
    """Names of the optimizer's parameters, in its order. An independent order might change with its groups."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
