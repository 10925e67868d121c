import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from contract.failure import FailureCode, InputError
from tests.trainer.adapters import load, logits, loss, ours, plain_base, save, some_rows, train

VARIANTS: dict[str, dict[str, Any]] = {
    "an expression": {"target_modules": r".*\.(q|v)_proj"},
    "all biases": {"bias": "all"},
    "adapted modules' biases": {"bias": "lora_only", "target_modules": ["q_proj"]},
    "rslora": {"rslora": True},
    "dora": {"dora": True},
    "gaussian": {"init": "gaussian"},
    "pissa": {"init": "pissa"},
    "pissa, approximate": {"init": "pissa_niter_16"},
    "pissa with dora": {"init": "pissa", "dora": True},
    "pissa with rslora and patterns": {
        "init": "pissa",
        "rslora": True,
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {"k_proj": 3},
    },
    "olora": {"init": "olora", "target_modules": ["q_proj", "embed_tokens"]},
    "modules trained whole": {"modules_to_save": ["lm_head", "embed_tokens", "norm"]},
    "patterns": {"rank_pattern": {"q_proj": 2, "mlp.up_proj": 8}, "alpha_pattern": {"q_proj": 1}},
}

CASES = [pytest.param("qwen2", adapter, id=name) for name, adapter in VARIANTS.items()] + [
    pytest.param("gpt2 with dropout", {}, id="gpt2"),
    pytest.param("gpt2 with dropout", {"bias": "all", "dora": True}, id="gpt2, biases and dora"),
    pytest.param("gpt2 with dropout", {"init": "pissa", "target_modules": ["c_attn", "mlp.c_proj"]}, id="gpt2, pissa"),
    pytest.param("llama", {"modules_to_save": ["embed_tokens"]}, id="embeddings tied to the head"),
]


@pytest.mark.parametrize(("kind", "adapter"), CASES)
def test_new_adapter_is_identical_in_plain_peft(
    kind: str, adapter: dict[str, Any], make_model: Callable[[str], Path], recipe: dict[str, Any], tmp_path: Path
) -> None:
    folder = make_model(kind)
    module = load(recipe, folder, adapter)
    losses = train(module, recipe)
    assert losses[0] == pytest.approx(train(load(recipe, folder, {}), recipe, steps=1)[0], rel=1e-4)
    assert losses[-1] < losses[0]
    reloaded = PeftModel.from_pretrained(plain_base(folder), save(module, tmp_path))
    torch.testing.assert_close(logits(reloaded), ours(module), rtol=1e-4, atol=1e-4)


def test_patterns_set_rank_and_scale_by_name(make_model: Callable[[str], Path], recipe: Any) -> None:
    layer = load(recipe, make_model("qwen2"), VARIANTS["patterns"]).model.get_base_model().model.layers[0]
    ranks = [module.r["default"] for module in (layer.self_attn.q_proj, layer.mlp.up_proj, layer.mlp.down_proj)]
    scales = [module.scaling["default"] for module in (layer.self_attn.q_proj, layer.mlp.up_proj, layer.mlp.down_proj)]
    assert ranks == [2, 8, 4]
    assert scales == [1 / 2, 8 / 8, 8 / 4]


@pytest.mark.parametrize("adapter", [{"bias": "all"}, {"modules_to_save": ["lm_head", "norm"]}, {"dora": True}])
def test_trained_extras_are_saved(
    adapter: dict[str, Any], make_model: Callable[[str], Path], recipe: dict[str, Any], tmp_path: Path
) -> None:
    module = load(recipe, make_model("qwen2"), adapter)
    before = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}
    train(module, recipe)
    moved = [name for name, p in module.named_parameters() if name in before and not torch.equal(p, before[name])]
    assert len(load_file(save(module, tmp_path) / "adapter_model.safetensors")) == len(moved)
    assert any("lora_A" not in name and "lora_B" not in name for name in moved)


@pytest.mark.parametrize(
    ("kind", "whole"), [("qwen2", ["lm_head", "embed_tokens", "norm"]), ("llama", ["embed_tokens"])]
)
def test_whole_modules_are_fp32_beside_bf16(
    kind: str, whole: list[str], make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    adapter = {"modules_to_save": whole, "dora": True}
    exact, rounded = (load(recipe, make_model(kind), adapter, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert {p.dtype for p in rounded.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in rounded.parameters() if not p.requires_grad} == {torch.bfloat16}
    losses = [train(module, recipe, rate=1e-3) for module in (exact, rounded)]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert losses[1][-1] < losses[1][0]


@pytest.mark.parametrize(
    ("kind", "adapter", "dtype", "reason", "param"),
    [
        ("qwen2", {"bias": "all"}, torch.bfloat16, FailureCode.PRECISION_UNAVAILABLE, "adapter.bias"),
        ("gpt2 with dropout", {"init": "olora"}, torch.float32, FailureCode.RECIPE_INVALID, "adapter.init"),
        ("qwen2", {"init": "pissa", "r": 99}, torch.float32, FailureCode.RECIPE_INVALID, "adapter.r"),
        ("qwen2", {"target_modules": "q"}, torch.float32, FailureCode.TARGET_MODULES_UNMATCHED, "target_modules"),
        ("qwen2", {"modules_to_save": ["x"]}, torch.float32, FailureCode.TARGET_MODULES_UNMATCHED, "modules_to_save"),
    ],
)
def test_impossible_adapter_is_refused_by_field(
    kind: str,
    adapter: dict[str, Any],
    dtype: torch.dtype,
    reason: FailureCode,
    param: str,
    make_model: Callable[[str], Path],
    recipe: dict[str, Any],
) -> None:
    with pytest.raises(InputError) as caught:
        load(recipe, make_model(kind), adapter, dtype)
    assert caught.value.failure.code == reason
    assert param in (caught.value.failure.param or "")


EARLIER = [
    pytest.param("qwen2", {}, id="plain"),
    pytest.param("qwen2", VARIANTS["pissa with rslora and patterns"], id="pissa with rslora and patterns"),
    pytest.param("qwen2", VARIANTS["pissa with dora"], id="pissa with dora"),
    pytest.param("qwen2", VARIANTS["all biases"], id="all biases"),
    pytest.param("qwen2", VARIANTS["modules trained whole"], id="modules trained whole"),
    pytest.param("llama", {"modules_to_save": ["embed_tokens"]}, id="embeddings tied to the head"),
    pytest.param("gpt2 with dropout", {"dora": True}, id="gpt2, dora"),
]


@pytest.mark.parametrize(("kind", "adapter"), EARLIER)
def test_earlier_adapter_goes_on_from_where_it_ended(
    kind: str, adapter: dict[str, Any], make_model: Callable[[str], Path], recipe: dict[str, Any], tmp_path: Path
) -> None:
    first = load(recipe, make_model(kind), adapter)
    train(first, recipe)
    batch = some_rows(recipe)
    second = load(recipe, make_model(kind), {"start_from": str(save(first, tmp_path / "first"))})
    with torch.no_grad():
        assert loss(second.eval(), batch).item() == pytest.approx(loss(first.eval(), batch).item(), rel=1e-5)
    second.train()
    losses = train(second, recipe, rate=1e-3)
    assert losses[-1] < losses[0]
    reloaded = PeftModel.from_pretrained(plain_base(make_model(kind)), save(second, tmp_path / "second"))
    torch.testing.assert_close(logits(reloaded), ours(second), rtol=1e-4, atol=1e-4)


def test_earlier_adapter_takes_new_dropout_in_fp32(
    make_model: Callable[[str], Path], recipe: dict[str, Any], tmp_path: Path
) -> None:
    folder = save(load(recipe, make_model("qwen2"), {"modules_to_save": ["norm"]}), tmp_path)
    module = load(recipe, make_model("qwen2"), {"start_from": str(folder), "dropout": 0.25}, torch.bfloat16)
    assert {p.dtype for p in module.parameters() if p.requires_grad} == {torch.float32}
    assert module.model.get_base_model().model.layers[0].mlp.up_proj.lora_dropout["default"].p == 0.25
    assert module.model.peft_config["default"].base_model_name_or_path == make_model("qwen2").name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"r": 8}, "has 4 x 128, .* needs 8 x 128"),
        ({"target_modules": ["q_proj"]}, "needs nothing"),
        ({"use_dora": True}, "has nothing"),
        ({"target_modules": ["w_proj"]}, "w_proj"),
        ({"bias": "all"}, "has nothing"),
    ],
)
def test_earlier_adapter_with_other_weights_is_refused(
    change: dict[str, Any], said: str, make_model: Callable[[str], Path], recipe: dict[str, Any], tmp_path: Path
) -> None:
    config = save(load(recipe, make_model("qwen2"), {}), tmp_path) / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(InputError, match=said) as caught:
        load(recipe, make_model("qwen2"), {"start_from": str(tmp_path)})
    assert caught.value.failure.param == "adapter.start_from"


@pytest.mark.parametrize(
    ("adapter", "dtype", "bits"),
    [
        ({"bias": "all"}, torch.bfloat16, None),
        ({"bias": "all"}, torch.float32, 4),
        ({"dora": True}, torch.float32, 8),
    ],
)
def test_untrainable_earlier_adapter_is_refused(
    adapter: dict[str, Any],
    dtype: torch.dtype,
    bits: int | None,
    make_model: Callable[[str], Path],
    recipe: dict[str, Any],
    tmp_path: Path,
) -> None:
    folder = save(load(recipe, make_model("qwen2"), adapter), tmp_path)
    with pytest.raises(InputError, match=r"adapter\.start_from") as caught:
        load(recipe, make_model("qwen2"), {"start_from": str(folder)}, dtype, base_bits=bits)
    assert caught.value.failure.code == FailureCode.PRECISION_UNAVAILABLE


def test_earlier_adapter_of_another_model_is_refused(
    make_model: Callable[[str], Path], recipe: dict[str, Any], tmp_path: Path
) -> None:
    folder = save(load(recipe, make_model("qwen2"), {}), tmp_path)
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "was/this"}))
    with pytest.raises(InputError, match=r"made for \"was/this\" and does not fit model-gpt2"):
        load(recipe, make_model("gpt2 with dropout"), {"start_from": str(folder)})
