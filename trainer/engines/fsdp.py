"""Each rank holds a shard of every weight and gathers a layer when it needs it. This is torch's fully_shard (FSDP2)
itself: Accelerate silently omits it on a CPU."""

from typing import Any

import torch
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from contract.recipe import Optimizer
from trainer.data.packing import PackedBatch
from trainer.engines.engine import Update
from trainer.engines.optim import clip_gradients, make_optimizer, set_learning_rate
from trainer.model.trained_model import TrainedModel


class Fsdp:
    name = "fsdp"
    shards_parameters = True
    shards_gradients = True

    def __init__(self, module: TrainedModel, recipe: Optimizer, accelerator: Accelerator) -> None:
        self.module = module
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        for layer in _layers(module):
            fully_shard(layer, mesh=mesh)
        # Parameters outside the layers are gathered during the loss's own forward pass, which uses the head's weight
        # without calling the head.
        fully_shard(module, mesh=mesh)
        register_fsdp_forward_method(module, "generate")
        self._optimizer = make_optimizer(module.named_parameters(), recipe)
        self._trained = {name: p for name, p in module.model.named_parameters() if p.requires_grad}

    def accumulate(self, batch: PackedBatch, scale: float, sync_gradients: bool) -> torch.Tensor:
        self.module.set_requires_gradient_sync(sync_gradients)
        sums = self.module(batch)
        (sums[0] * scale).backward()
        return sums.detach()

    def update(self, learning_rate: float, max_grad_norm: float | None) -> Update:
        set_learning_rate(self._optimizer, learning_rate)
        norm = clip_gradients(self._trained.values(), max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return Update(norm)

    @torch.no_grad()
    def sums(self, batch: PackedBatch, log_probabilities: bool = False) -> torch.Tensor:
        return self.module(batch, log_probabilities)

    def adapter(self) -> dict[str, torch.Tensor]:
        # An evaluation leaves the root's weights gathered. PEFT's saving would shard them on rank 0 alone, and the next
        # pass would gather them there alone.
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


def _layers(module: TrainedModel) -> torch.nn.ModuleList:
    """The backbone's layers: the longest of the module lists that are in no other list."""
    backbone: Any = module.model.get_base_model().base_model
    lists = {name: part for name, part in backbone.named_modules() if isinstance(part, torch.nn.ModuleList)}
    return lists[min(lists, key=lambda name: (name.count("."), -len(lists[name])))]


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _like(value: torch.Tensor, parameter: Any) -> torch.Tensor:
    """This rank's shard, laid out as the parameter's; a step count has no shards."""
    if value.dim() == 0:
        return value.to(parameter.device)
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
