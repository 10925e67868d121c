"""DeepSpeed's ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054) through Accelerate: the ranks shard the optimizer's
state, then the gradients, then the weights, depending on the stage."""

from datetime import timedelta
from typing import Any

import deepspeed
import torch
from accelerate import Accelerator, DeepSpeedPlugin
from accelerate.utils import DistributedType, InitProcessGroupKwargs
from deepspeed.utils import lazy_init_hp_params_optimizer_state as link_moments
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state, safe_set_full_fp32_param
from deepspeed.utils import safe_set_full_optimizer_state as set_moment
from transformers.integrations import HfDeepSpeedConfig

from contract.recipe import Optimizer, Parallel
from trainer.data.packing import PackedBatch, pack
from trainer.engines.engine import Update
from trainer.engines.optim import clip_gradients, make_optimizer, set_learning_rate
from trainer.model.trained_model import TrainedModel

_MOMENTS = ("exp_avg", "exp_avg_sq")
_DEFAULT_STAGE = 2
_CLEAN_STEPS_TO_RAISE = 2000


def zero_stage(parallel: Parallel) -> int:
    return _DEFAULT_STAGE if parallel.zero_stage is None else parallel.zero_stage


def deepspeed_config(parallel: Parallel, max_grad_norm: float | None, fp16: bool) -> dict[str, Any]:
    """DeepSpeed's own configuration for a recipe."""
    stage = zero_stage(parallel)
    zero: dict[str, Any] = {"stage": stage}
    if stage == 3:
        # DeepSpeed searches this many parameters ahead of each module for another use of its weights. The default of
        # 1e9 covers all of a small model, which makes the second step ten times slower than the others.
        zero["stage3_max_reuse_distance"] = 10_000_000
    if parallel.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu"}
    if parallel.offload_parameters:
        zero["offload_param"] = {"device": "cpu"}
    return {
        # Ignored: the loop counts its examples and normalises the loss itself.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # 0 means none. Stage 0 clips without reporting the norm, so it is clipped here. A missing value becomes 1.0.
        "gradient_clipping": max_grad_norm if max_grad_norm and stage > 0 else 0.0,
        "zero_optimization": zero,
        # torch's AdamW, as in every engine. DeepSpeed would compile its own for a CPU.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # Its own loss scale is halved at each overflow, but never raised: in a step that raises it, DeepSpeed divides
        # the gradients by the new scale.
        "fp16": {"enabled": fp16, "hysteresis": 1, "loss_scale_window": 2**31 - 1},
    }


def start_deepspeed(parallel: Parallel, max_grad_norm: float | None, fp16: bool, patience: timedelta) -> Accelerator:
    """Raises RuntimeError if Accelerate silently runs without DeepSpeed."""
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        # Otherwise DeepSpeed compiles shared-memory collectives for CPUs, which takes a minute and needs a compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    accelerator = Accelerator(
        mixed_precision="fp16" if fp16 else "no",
        deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=deepspeed_config(parallel, max_grad_norm, fp16)),
        kwargs_handlers=[InitProcessGroupKwargs(backend="gloo" if on_cpu else "nccl", timeout=patience)],
    )
    if accelerator.distributed_type is not DistributedType.DEEPSPEED:
        raise RuntimeError(f"Accelerate runs {accelerator.distributed_type} in place of DeepSpeed")
    return accelerator


def shard_on_load(accelerator: Accelerator, dtype: torch.dtype) -> HfDeepSpeedConfig:
    """While the result is referenced, transformers shards a model among the ranks as it loads it, so that no rank holds
    it whole. Stage 3 does so anyway, but always in fp32 unless DeepSpeed's own configuration has bf16."""
    config = accelerator.state.deepspeed_plugin.deepspeed_config
    return HfDeepSpeedConfig({**config, "bf16": {"enabled": dtype is torch.bfloat16}})


class Zero:
    def __init__(self, module: TrainedModel, recipe: Optimizer, accelerator: Accelerator) -> None:
        self.module = module
        self._stage = accelerator.state.deepspeed_plugin.zero_stage
        self.name = f"deepspeed zero-{self._stage}"
        self.shards_parameters = self._stage == 3
        self.shards_gradients = self._stage >= 2
        if accelerator.mixed_precision == "fp16":
            # DeepSpeed does this itself, but not for a model that was loaded in shards.
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.half()
        self._engine, _ = accelerator.prepare(module, make_optimizer(module.named_parameters(), recipe))
        if self._engine.fp16_enabled():
            # The loop raises its own error for the job's owner.
            self._engine.optimizer.loss_scaler.raise_error_at_min_scale = False
        self._optimizer = self._engine.basic_optimizer
        self._trained = {name: p for name, p in module.model.named_parameters() if p.requires_grad}

    def accumulate(self, batch: PackedBatch, scale: float, sync_gradients: bool) -> torch.Tensor:
        sums = self._engine(batch)
        self._engine.set_gradient_accumulation_boundary(sync_gradients)
        self._engine.backward(sums[0] * scale, scale_wrt_gas=False)
        return sums.detach()

    def update(self, learning_rate: float, max_grad_norm: float | None) -> Update:
        """From stage 1 on DeepSpeed clips, with the norm of its configuration."""
        set_learning_rate(self._optimizer, learning_rate)
        if self._stage == 0:
            norm = clip_gradients(self._trained.values(), max_grad_norm)
            self._engine.step()
            return Update(norm)
        loss_scale = float(self._engine.optimizer.loss_scale) if self._engine.fp16_enabled() else None
        self._engine.step()
        overflow = loss_scale is not None and not self._engine.was_step_applied()
        if loss_scale is not None:
            self._raise_loss_scale()
        return Update(None if overflow else float(self._engine.get_global_grad_norm()), loss_scale)

    @torch.no_grad()
    def sums(self, batch: PackedBatch, log_probabilities: bool = False) -> torch.Tensor:
        return self._engine(batch, log_probabilities)

    def adapter(self) -> dict[str, torch.Tensor]:
        if self._stage == 0:
            return {name: parameter.detach() for name, parameter in self._trained.items()}
        return {name: safe_get_full_fp32_param(parameter).detach() for name, parameter in self._trained.items()}

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        if self._stage == 0:
            states = ((name, self._optimizer.state[parameter]) for name, parameter in self._trained.items())
            return {f"{name}/{key}": value for name, state in states for key, value in state.items()}
        self._link_moments()
        step = next(state["step"] for state in self._optimizer.state.values() if "step" in state)
        tensors = {f"{name}/step": torch.tensor(float(step)) for name in self._trained}
        for name, parameter in self._trained.items():
            tensors |= {f"{name}/{key}": safe_get_full_optimizer_state(parameter, key) for key in _MOMENTS}
        return tensors

    def load(self, adapter: dict[str, torch.Tensor], optimizer: dict[str, torch.Tensor]) -> None:
        if self._engine.fp16_enabled():
            # The module's own values are already rounded.
            for name, parameter in self._trained.items():
                safe_set_full_fp32_param(parameter, adapter[name])
        self._lay_out_optimizer_state()
        self._link_moments()
        steps = [value for key, value in optimizer.items() if key.endswith("/step")]
        with torch.no_grad():
            for name, parameter in self._trained.items():
                for key in _MOMENTS:
                    if self._stage == 0:
                        self._optimizer.state[parameter][key].copy_(optimizer[f"{name}/{key}"])
                    else:
                        set_moment(parameter, optimizer[f"{name}/{key}"], key)
            for laid_out in self._optimizer.state.values():
                laid_out["step"].fill_(float(steps[0]))

    def _lay_out_optimizer_state(self) -> None:
        """ZeRO does this in its first step. A step with a learning rate of zero, on nothing, changes no weight."""
        device = next(iter(self._trained.values())).device
        self.accumulate(pack([]).to(device), 0.0, sync_gradients=True)
        self.update(0.0, None)

    def _raise_loss_scale(self) -> None:
        """Raises the loss scale between two steps, as a GradScaler does; see deepspeed_config."""
        scaler = self._engine.optimizer.loss_scaler
        clean_steps = _clean_steps(scaler)
        if clean_steps and clean_steps % _CLEAN_STEPS_TO_RAISE == 0:
            scaler.cur_scale *= 2

    def _link_moments(self) -> None:
        """DeepSpeed 0.19 does this after the first group's first step, when the second group of LoRA+ has no moments
        yet."""
        if self._stage in (1, 2):
            zero = self._engine.optimizer
            for group, partition in zip(zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True):
                link_moments(group, partition, self._optimizer.state)

    def scaler_state(self) -> dict[str, float]:
        if not self._engine.fp16_enabled():
            return {}
        scaler = self._engine.optimizer.loss_scaler
        # A GradScaler counts from zero again after it raises its scale, and waits for exactly that number.
        return {"scale": scaler.cur_scale, "clean_steps": _clean_steps(scaler) % _CLEAN_STEPS_TO_RAISE}

    def load_scaler_state(self, state: dict[str, float]) -> None:
        if state:
            scaler = self._engine.optimizer.loss_scaler
            scaler.cur_scale, scaler.cur_iter, scaler.last_overflow_iter = state["scale"], state["clean_steps"], -1


def _clean_steps(scaler: Any) -> int:
    """Steps since the last overflow, even if the scale was raised meanwhile."""
    return scaler.cur_iter - scaler.last_overflow_iter - 1
