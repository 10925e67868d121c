"""The loading rules of serving engines, on the folders that portable exports leave.

Written down from the sources of vLLM 0.33.0 (vllm/lora/peft_helper.py, lora_model.py, utils.py,
plugins/lora_resolvers/filesystem_resolver.py, config/lora.py) and SGLang 0.5.23 (sglang/srt/lora/lora_config.py,
lora.py, lora_manager.py, utils.py). Neither runs here: both need a GPU.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from tests.trainer.exported_adapters import ADAPTERS, SPEC, adapt
from trainer.tools.portable import save_portable

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
VLLM_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
VLLM_REFUSES = ("modules_to_save", "use_dora", "lora_bias", "alora_invocation_tokens", "layer_replication")
MERGED_MODULES = {
    "q_proj": "qkv_proj",
    "k_proj": "qkv_proj",
    "v_proj": "qkv_proj",
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
}
"""SGLang's names of the matrices that hold several modules."""
SGLANG_MODULES = {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}


@pytest.fixture(
    params=[
        each if each in ("patterns", "expression") else pytest.param(each, marks=pytest.mark.exhaustive)
        for each in ADAPTERS
    ]
)
def portable(
    request: pytest.FixtureRequest, recipe: dict[str, Any], make_model: Callable[[str], Path], tmp_path: Path
) -> Path:
    _, exported = adapt(recipe, make_model("llama"), ADAPTERS[request.param], tmp_path / "adapter")
    save_portable(exported, tmp_path / "portable", SPEC)
    return tmp_path / "portable"


def read_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
    return config


def read_shapes(folder: Path) -> dict[str, list[int]]:
    (file,) = folder.glob("*.safetensors")  # SGLang reads all that there are
    assert file.name == "adapter_model.safetensors"
    with safe_open(file, framework="pt") as tensors:
        return {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118


def test_portable_adapter_passes_the_rules_of_vllm(portable: Path) -> None:
    config = read_config(portable)
    assert not [name for name in VLLM_REFUSES if config.get(name)]
    init = config["init_lora_weights"]
    assert not isinstance(init, str) or init in VLLM_INITS
    assert config["bias"] == "none"
    assert config["r"] in VLLM_RANKS
    # The resolver of adapters in a folder compares the name with that of the served model.
    assert (config["peft_type"], config["base_model_name_or_path"]) == ("LORA", SPEC.base)
    for name, shape in read_shapes(portable).items():
        named = re.fullmatch(r"base_model\.model\.model\.layers\.\d+\.[\w.]+\.lora_(A|B)\.weight", name)
        assert named is not None, name
        assert shape[0 if named[1] == "A" else 1] == config["r"]


def test_portable_adapter_passes_the_rules_of_sglang(portable: Path) -> None:
    config = read_config(portable)
    assert not config["use_dora"]
    # The one scale for all modules, whatever use_rslora and the patterns say.
    assert config["lora_alpha"] / config["r"] == 1
    assert isinstance(config["lora_alpha"], int)
    assert not any(config[name] for name in ("use_rslora", "rank_pattern", "alpha_pattern"))
    assert isinstance(config["target_modules"], list)
    endings = {name.rpartition(".")[2] for name in config["target_modules"]}
    assert {MERGED_MODULES.get(name, name) for name in endings} <= SGLANG_MODULES
    assert not (portable / "added_tokens.json").exists()
    shapes = read_shapes(portable)
    adapted = {name.removesuffix(".lora_A.weight") for name in shapes if name.endswith(".lora_A.weight")}
    assert {name.rpartition(".")[2] for name in adapted} == endings
    assert len(shapes) == 2 * len(adapted)
    for module in adapted:
        parent, _, last = module.rpartition(".")
        together = [name for name in MERGED_MODULES if MERGED_MODULES[name] == MERGED_MODULES.get(last)]
        assert {f"{parent}.{name}" for name in together} <= adapted
