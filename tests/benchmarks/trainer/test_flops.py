from benchmarks.trainer.flops import Size, operations, peak_of, size_of

SHAPES = {
    "model.embed_tokens.weight": [100, 8],
    "model.layers.0.self_attn.q_proj.weight": [8, 8],
    "model.layers.0.mlp.up_proj.weight": [32, 8],
    "model.layers.0.input_layernorm.weight": [8],
    "model.norm.weight": [8],
}


def test_flops_count_matrices_and_their_adapters() -> None:
    assert size_of(SHAPES, layers=1, width=8, r=2) == Size(
        body=8 * 8 + 32 * 8, head=100 * 8, adapter=2 * (16 + 40), layers=1, width=8
    )


def test_experts_count_as_far_as_a_token_uses_them() -> None:
    experts = {
        "model.layers.0.mlp.gate.weight": [4, 8],
        "model.layers.0.mlp.experts.0.up_proj.weight": [16, 8],
        "model.layers.0.mlp.experts.1.up_proj.weight": [16, 8],
        "model.layers.0.mlp.experts.down_proj": [2, 16, 8],
        "model.layers.0.mlp.experts.down_proj_bias": [2, 8],
    }
    plain = size_of(SHAPES, layers=1, width=8, r=2)
    mixed = size_of(SHAPES | experts, layers=1, width=8, r=2, active_experts=0.5)
    assert mixed.body - plain.body == 4 * 8 + (2 * 16 * 8 + 2 * 16 * 8) // 2
    assert mixed.adapter == plain.adapter


def test_head_counts_supervised_tokens_only() -> None:
    size = Size(body=1000, head=800, adapter=10, layers=2, width=8)
    linear = 4 * 1000 * 30 + 4 * 800 * 12 + 6 * 10 * 30
    assert operations(size, real=30, supervised=12, squares=0) == linear
    # Two documents of 10 and 20 tokens.
    assert operations(size, 30, 12, squares=500) - linear == 6 * 2 * 8 * 500


def test_gpu_that_is_not_listed_has_no_peak() -> None:
    assert peak_of("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_of("Some GPU") is None
