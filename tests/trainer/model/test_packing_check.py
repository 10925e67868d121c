"""Which architectures take packed rows, and that those rows have the loss and gradients of transformers' own code."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    GraniteConfig,
    Lfm2Config,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    Mamba2Config,
    MistralConfig,
    Phi3Config,
    Qwen3Config,
    Qwen3MoeConfig,
    Qwen3NextConfig,
)

from dataset.document import Document
from tests.trainer.architectures import config_of
from trainer.data.packing import pack
from trainer.model import attention, packing_check
from trainer.model.packing_check import find_path
from trainer.model.row_path import RowPath
from trainer.model.small_config import shrink
from trainer.model.trained_model import TrainedModel

SOME = ("deepseek_v3", "gemma3_text", "glm4_moe", "gpt_oss", "llama4_text", "nemotron_h", "phi3", "qwen3_next")
PACKED = (
    *("afmoe", "apertus", "arcee", "bamba", "cohere", "cohere2", "deepseek_v2", "ernie4_5", "ernie4_5_moe", "exaone4"),
    *("falcon_h1", "flex_olmo", "gemma", "gemma2", "gemma3", "gemma3n_text", "gemma4_text", "glm", "glm4", "gpt2"),
    *("gpt_neox", "granite", "granitemoe", "granitemoehybrid", "helium", "hunyuan_v1_dense", "hunyuan_v1_moe"),
    *("jamba", "kimi_linear", "lfm2_moe", "llama", "longcat_flash", "mamba2", "minimax", "minimax_m2", "ministral"),
    *("ministral3", "mistral", "mixtral", "nanochat", "olmo2", "olmo3", "olmo_hybrid", "olmoe", "phi", "phimoe"),
    *("qwen2", "qwen2_moe", "qwen3", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_moe", "recurrent_gemma", "rwkv"),
    *("seed_oss", "smollm3", "starcoder2", "vaultgemma", "xlstm", "zamba2"),
)
KINDS = [*SOME, *(pytest.param(kind, marks=pytest.mark.exhaustive) for kind in PACKED)]
SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


class Plain:
    """A model in the place of one with an adapter."""

    def __init__(self, base: Any) -> None:
        self.base = base

    def __call__(self, **fields: Any) -> Any:
        return self.base(**fields)

    def get_base_model(self) -> Any:
        return self.base


def make(config: Any) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def documents(*lengths: int) -> list[Document]:
    torch.manual_seed(2)
    rows = [torch.randint(3, 90, (length,)).tolist() for length in lengths]
    return [Document(row, [place >= 1 for place in range(len(row))]) for row in rows]


def check_same_as_alone(model: Any, path: RowPath, parts: list[Document]) -> None:
    """Packed as against transformers' loss of each document, which is a mean."""
    reference = copy.deepcopy(model)
    module = TrainedModel(Plain(model), path)
    loss = module(pack(parts))[0]
    loss.backward()
    expected = torch.zeros(())
    for part in parts:
        ids = torch.tensor([part.input_ids])
        labels = torch.where(torch.tensor([part.supervised]), ids, -100)
        expected = expected + reference(input_ids=ids, labels=labels, use_cache=False).loss * part.targets
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    gradients = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    largest = max(gradient.abs().max().item() for gradient in gradients.values())
    for name, parameter in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5 * max(1, largest))


@pytest.mark.parametrize("kind", KINDS)
def test_architecture_is_packed_as_transformers_alone(kind: str) -> None:
    config = config_of(kind)
    config.output_router_logits = False
    path = find_path(config, None)
    assert path.packed, path.because
    check_same_as_alone(make(config), path, documents(9, 37, 2, 23))


@pytest.mark.parametrize(
    ("config", "plain_head"),
    [
        (GraniteConfig(**SIZES, logits_scaling=4.0, residual_multiplier=0.3), False),
        (CohereConfig(**SIZES, logit_scale=0.3), False),
        (Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=2.0, attn_logit_softcapping=1.0), False),
        (Lfm2Config(**SIZES, layer_types=["conv", "full_attention"]), True),
        (Phi3Config(**SIZES, sliding_window=7), True),
    ],
    ids=lambda value: getattr(value, "model_type", value),
)
def test_mechanism_is_taken_from_the_model(config: Any, plain_head: bool) -> None:
    path = find_path(config, None)
    assert (path.packed, path.plain_head) == (True, plain_head), path.because
    check_same_as_alone(make(config), path, documents(9, 37, 2, 23))


# Without shrinking: each example takes a second.
@settings(max_examples=8, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from([Gemma3TextConfig, MistralConfig, Phi3Config, Qwen3Config, Qwen3MoeConfig]),
    window=st.integers(1, 20),
    heads=st.sampled_from([(4, 1), (4, 2), (4, 4), (6, 3)]),
    head_dim=st.sampled_from([8, 12]),
    windowed=st.lists(st.booleans(), min_size=2, max_size=3),
    tied=st.booleans(),
)
def test_any_configuration_is_packed_as_alone(
    kind: Any, window: int, heads: tuple[int, int], head_dim: int, windowed: list[bool], tied: bool
) -> None:
    fields: dict[str, Any] = SIZES | {
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "hidden_size": heads[0] * head_dim,
        "num_hidden_layers": len(windowed),
        "tie_word_embeddings": tied,
        "sliding_window": window,
    }
    if kind is not Phi3Config:
        fields["head_dim"] = head_dim
    if kind is Qwen3MoeConfig:
        fields |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    if kind in (Gemma3TextConfig, Qwen3Config):
        fields["layer_types"] = ["sliding_attention" if each else "full_attention" for each in windowed]
        fields["use_sliding_window"] = True
    config = kind(**fields)
    path = find_path(config, None)
    assert path.packed, path.because
    check_same_as_alone(make(config), path, documents(9, 26, 2))


def without_reach(**unused: Any) -> None:
    return None


def without(name: str) -> Callable[..., Any]:
    attend = attention.attend_documents

    def attend_without(*args: Any, **kwargs: Any) -> Any:
        return attend(*args, **kwargs | {name: None})

    return attend_without


@pytest.mark.parametrize(
    ("config", "place", "fault"),
    [
        (MistralConfig(sliding_window=4096), "describe_reach", without_reach),
        (Gemma3TextConfig(sliding_window=512), "describe_reach", without_reach),
        (Llama4TextConfig(attention_chunk_size=8192), "describe_reach", without_reach),
        (Gemma2Config(), "attend_documents", without("softcap")),
        (GptOssConfig(), "attend_documents", without("s_aux")),
    ],
    ids=["window", "some windows", "chunks", "cap", "sinks"],
)
def test_check_notices_a_lost_mechanism(
    config: Any, place: str, fault: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = shrink(config)
    assert packing_check.check(small).packed
    monkeypatch.setattr(attention, place, fault)
    assert not packing_check.check(small).packed


@pytest.mark.parametrize(
    "config", [Mamba2Config(num_heads=64, hidden_size=2048), Qwen3NextConfig()], ids=["mamba2", "qwen3_next"]
)
def test_check_notices_a_state_along_the_row(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    small = shrink(config)
    assert packing_check.check(small).separated
    monkeypatch.setattr(packing_check, "_find_mixers", lambda *_: ())
    assert not packing_check.check(small).packed


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_length_dependent_positions_are_not_packed(rope_type: str) -> None:
    rope: dict[str, Any] = {"rope_type": rope_type, "rope_theta": 10_000.0, "factor": 2.0}
    if rope_type == "longrope":
        rope |= {"short_factor": [1.0] * 64, "long_factor": [2.0] * 64, "original_max_position_embeddings": 4096}
    assert find_path(LlamaConfig(), None).packed
    path = find_path(LlamaConfig(rope_parameters=rope), None)
    assert not path.packed
    assert "one document at a time" in path.because


class LeakyConfig(LlamaConfig):
    model_type = "leaky"


class LeakyModel(LlamaModel):
    def forward(self, input_ids: torch.Tensor, inputs_embeds: None = None, **fields: Any) -> Any:
        embedded = self.embed_tokens(input_ids)
        before = embedded.cumsum(dim=1) / torch.arange(1, embedded.shape[1] + 1)[:, None]
        return super().forward(inputs_embeds=embedded + 0.1 * before, **fields)


class LeakyForCausalLM(LlamaForCausalLM):
    config_class = LeakyConfig

    def __init__(self, config: LeakyConfig) -> None:
        super().__init__(config)
        self.model = LeakyModel(config)
        self.post_init()


@pytest.fixture(scope="module")
def _leaky() -> Iterator[None]:
    AutoConfig.register("leaky", LeakyConfig)
    AutoModelForCausalLM.register(LeakyConfig, LeakyForCausalLM)
    yield
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    del CONFIG_MAPPING._extra_content["leaky"], MODEL_FOR_CAUSAL_LM_MAPPING._extra_content[LeakyConfig]


@pytest.mark.usefixtures("_leaky")
def test_leaking_architecture_runs_one_by_one() -> None:
    config = LeakyConfig(**SIZES)
    path = find_path(config, None)
    assert not path.packed
    assert "packed, and" in path.because
    check_same_as_alone(make(config), path, documents(9, 37, 2))


def test_answer_is_kept_for_these_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packing_check._known.clear()
    first = find_path(LlamaConfig(), tmp_path)
    (file,) = (tmp_path / "packing").iterdir()
    packing_check._known.clear()
    # Of the same architecture, in another size.
    monkeypatch.setattr(packing_check, "check", lambda _: pytest.fail("it is known"))
    assert find_path(LlamaConfig(hidden_size=2048, num_hidden_layers=16), tmp_path) == first
    monkeypatch.setattr(packing_check, "check", lambda _: RowPath(False, because="another"))
    assert find_path(LlamaConfig(mlp_bias=True), tmp_path).because == "another"
    monkeypatch.setattr(packing_check, "_sources", lambda: "another")
    packing_check._known.clear()
    assert find_path(LlamaConfig(), tmp_path).because == "another"
    file.write_text(json.dumps({"packed": "damaged"})[:9])
    monkeypatch.undo()
    packing_check._known.clear()
    assert find_path(LlamaConfig(), tmp_path) == first


def test_check_leaves_random_numbers_alone() -> None:
    packing_check._known.clear()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    find_path(LlamaConfig(), None)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("kind", SOME)
def test_small_configuration_has_each_kind_of_layer(kind: str) -> None:
    config = type(config_of(kind))()
    small = shrink(config)
    for name in ("layer_types", "mlp_layer_types", "layers_block_type"):
        assert set(getattr(small, name, [])) == set(getattr(config, name, [])), name
    assert small.num_hidden_layers <= 8
