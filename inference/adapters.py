"""The base model and the adapters that are loaded on it."""

import itertools
import warnings
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModelForCausalLM
from peft.utils import ModulesToSaveWrapper

from contract.model.earlier_adapter import check_earlier_adapter
from contract.model.mixed_adapter import check_can_be_mixed
from inference.row import BASE
from trainer.model.adapter import weight_shapes

TOGETHER = ""
"""The group of all rows that one forward pass can take, the base's and those of plain LoRA."""


class Adapters:
    """Loads adapters by their folders, and deletes those used longest ago."""

    def __init__(self, base: Any, most: int) -> None:
        self.base = base
        self._model: Any = None
        """The base with adapters on it, once one was loaded."""
        self._shapes = weight_shapes(base)  # before an adapter changes their names
        self._most = most
        self._names: OrderedDict[Path, str] = OrderedDict()
        """The adapter used last is at the end."""
        self._apart: set[str] = set()
        """Adapters that PEFT cannot mix with others in a batch."""
        self._numbers = itertools.count()

    def load(self, folder: Path | None, in_use: Collection[str]) -> str | None:
        """PEFT's name of the adapter, loaded if it was not; None while no adapter can make room, because each is
        `in_use`. Raises InputError for a folder without a LoRA for this model."""
        if folder is None:
            return BASE
        if folder not in self._names:
            # PEFT itself would load a pickle if there were no safetensors, and ask the hub if there were neither.
            check_earlier_adapter(folder, self._shapes, Path(self.base.name_or_path).name)
            config = LoraConfig.from_pretrained(str(folder))
            check_can_be_mixed(config.bias, config.target_parameters)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PEFT's, about what trainer/ has checked
                if not self._make_room(in_use):
                    return None
                self._names[folder] = self._load(folder, config)
        self._names.move_to_end(folder)
        return self._names[folder]

    def _make_room(self, in_use: Collection[str]) -> bool:
        while len(self._names) >= self._most:
            unused = next((folder for folder, name in self._names.items() if name not in in_use), None)
            if unused is None:
                return False
            self._delete(self._names.pop(unused))
        return True

    def _load(self, folder: Path, config: Any) -> str:
        name = f"adapter-{next(self._numbers)}"
        if self._model is None:
            config.inference_mode = True
            self._model = PeftModelForCausalLM(self.base, config, adapter_name=name)
        try:
            self._model.load_adapter(folder, name, torch_device=str(self.base.device))
            self._model.set_adapter(name)  # the one before may be deleted
            self._model.eval()
            self._give_every_adapter_every_module([*self._names.values(), name])
        except Exception:
            self._model.peft_config.setdefault(name, config)  # PEFT may have taken it back, and left the layers
            self._delete(name)
            raise
        if config.use_dora or config.modules_to_save:
            self._apart.add(name)
        return name

    def _delete(self, name: str) -> None:
        self._model.delete_adapter(name)
        self._apart.discard(name)
        if not self._model.peft_config:
            self._model.unload()  # PEFT 0.21 answers without an adapter only where it has one
            self._model = None

    def _give_every_adapter_every_module(self, names: Collection[str]) -> None:
        """PEFT 0.21 looks up each adapter of a mixed batch in modules that only some of them have replaced."""
        for module in self._model.modules():
            if isinstance(module, ModulesToSaveWrapper):
                for name in names:
                    if name not in module.modules_to_save:
                        module.modules_to_save[name] = module.original_module

    def group(self, name: str) -> str:
        """Rows of one group are taken together."""
        return name if name in self._apart else TOGETHER

    def forward(self, names: list[str], **inputs: Any) -> Any:
        """The model's output for rows with these adapters, all of one group."""
        if self._model is None:
            return self.base(**inputs)
        if names[0] in self._apart:
            self._model.set_adapter(names[0])
            return self._model(**inputs)
        return self._model(**inputs, adapter_names=names)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.base.device
        return device
