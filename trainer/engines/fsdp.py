"""Each rank holds a part of every weight, and gathers a layer when it needs it: torch's fully_shard (FSDP2) itself, for
Accelerate does without it on a CPU and does not say so."""

from typing import Any

import torch
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from contract.recipe import Optimizer
from trainer.engines.engine import Update
from trainer.engines.optim import clip_gradients, make_optimizer, set_learning_rate
from trainer.model.loss import SupervisedLoss
from trainer.model.packing import Packed


class Fsdp:
    name = "fsdp"
    divides_weights = True
    divides_gradients = True

    def __init__(self, module: SupervisedLoss, recipe: Optimizer, accelerator: Accelerator) -> None:
        self.module = module
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        for layer in _layers(module):
            fully_shard(layer, mesh=mesh)
        # What stands outside the layers is whole during the loss's own forward pass, which takes the head's weight
        # without calling the head.
        fully_shard(module, mesh=mesh)
        register_fsdp_forward_method(module, "generate")
        self._optimizer = make_optimizer(module.named_parameters(), recipe)
        self._trained = {name: p for name, p in module.model.named_parameters() if p.requires_grad}

    def accumulate(self, batch: Packed, scale: float, exchange: bool) -> torch.Tensor:
        self.module.set_requires_gradient_sync(exchange)
        loss = self.module(batch)
        (loss * scale).backward()
        return loss.detach()

    def update(self, learning_rate: float, max_grad_norm: float | None) -> Update:
        set_learning_rate(self._optimizer, learning_rate)
        norm = clip_gradients(self._trained.values(), max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return Update(norm)

    @torch.no_grad()
    def loss_sum(self, batch: Packed) -> float:
        return self.module(batch).item()

    def adapter(self) -> dict[str, torch.Tensor]:
        # An evaluation leaves the root's weights whole. PEFT's saving would divide them on rank 0 alone, and the next
        # pass gather them there alone.
        self.module.reshard()
        return {name: _whole(parameter.detach()) for name, parameter in self._trained.items()}

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        states = ((name, self._optimizer.state[parameter]) for name, parameter in self._trained.items())
        return {f"{name}/{key}": _whole(value) for name, state in states for key, value in state.items()}

    def load(self, adapter: dict[str, torch.Tensor], optimizer: dict[str, torch.Tensor]) -> None:
        for name, parameter in self._trained.items():
            prefix = f"{name}/"
            own = {key.removeprefix(prefix): value for key, value in optimizer.items() if key.startswith(prefix)}
            self._optimizer.state[parameter] = {key: _like(value, parameter) for key, value in own.items()}

    def scaler_state(self) -> dict[str, float]:
        return {}

    def load_scaler_state(self, state: dict[str, float]) -> None:
        assert not state, "the contract has no fp16 with this engine"


def _layers(module: SupervisedLoss) -> torch.nn.ModuleList:
    """The backbone's layers: of its lists the one that lies in no other, and the longest of these."""
    backbone: Any = module.model.get_base_model().base_model
    lists = {name: part for name, part in backbone.named_modules() if isinstance(part, torch.nn.ModuleList)}
    return lists[min(lists, key=lambda name: (name.count("."), -len(lists[name])))]


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _like(value: torch.Tensor, parameter: Any) -> torch.Tensor:
    """This rank's part, as of the parameter; a number of steps has no parts."""
    if value.dim() == 0:
        return value.to(parameter.device)
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
