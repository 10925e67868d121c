import pytest

from contract.model.fp8_modules import takes_fp8

LAYER = "model.layers.3."


@pytest.mark.parametrize(
    ("module", "shape", "able"),
    [
        (LAYER + "self_attn.q_proj", [2048, 1024], True),
        (LAYER + "mlp.shared_experts.gate_proj", [768, 1024], True),
        (LAYER + "mlp.gate_proj", [760, 1024], False),  # no multiple of 16
        (LAYER + "input_layernorm", [1024], False),
        (LAYER + "mlp.gate", [128, 1024], False),
        (LAYER + "mlp.experts.7.up_proj", [768, 1024], False),
        (LAYER + "mlp.experts.gate_up_proj", [128, 1536, 1024], False),
        (LAYER + "block_sparse_moe.input_linear", [32, 1024, 1024], False),
        ("model.embed_tokens", [32000, 1024], False),
        ("lm_head", [32000, 1024], False),
    ],
)
def test_only_dense_modules_of_layers_take_fp8(module: str, shape: list[int], able: bool) -> None:
    assert takes_fp8(module, shape) is able
