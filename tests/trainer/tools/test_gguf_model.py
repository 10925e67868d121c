"""A merged model as GGUF, in the real llama.cpp.

In fp32, log probabilities differ by the order of sums alone: 1e-5 is allowed, and 2e-3 for Gemma, whose GELU comes from
a table in 16 bits. Weights rounded to 16 bits differ by up to 5e-4 of themselves, and those of 8 bits by up to 1/254 of
the largest in their block.
"""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from contract.export import ExportFormat, ExportSpec
from contract.failure import InputError
from contract.model.portable_adapter import GGUF_ARCHITECTURES
from contract.recipe import Recipe
from tests.trainer.adapters import load, save, train
from tests.trainer.gguf_models import LlamaCpp, write_base
from trainer.tools import gguf_vocabulary
from trainer.tools.gguf_model import F32, save_merged_gguf, write_gguf

PLAIN = ("llama", "phi3")
KINDS = [
    *PLAIN,
    *(pytest.param(kind, marks=pytest.mark.exhaustive) for kind in GGUF_ARCHITECTURES if kind not in PLAIN),
]
PROMPTS = [[1, 40, 41, 42, 43, 44, 45, 2, 50, 51], [5, 60, 7, 80, 9], [300, 17, 201]]
ALLOWED: dict[ExportFormat, float] = {"merged-gguf-f16": 5e-3, "merged-gguf-q8_0": 5e-2}


@torch.inference_mode()
def log_probabilities(model: Any, ids: list[int]) -> torch.Tensor:
    """Of the token after `ids`."""
    row: torch.Tensor = model.eval()(input_ids=torch.tensor([ids])).logits[0, -1].float()
    return row.log_softmax(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_answers_as_the_merged_model(
    recipe: dict[str, Any], make_model: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    model = make_model(kind)
    module = load(recipe, model, {"dora": True, "target_modules": "all-linear"})
    train(module, recipe)
    adapter = {"start_from": str(save(module, tmp_path / "adapter"))}
    exported = Recipe.model_validate(recipe | {"model": str(model), "adapter": adapter})
    module.take_one_by_one("a test calls the model itself")
    wanted = [log_probabilities(module.model, prompt) for prompt in PROMPTS]
    for form, allowed in ALLOWED.items():
        save_merged_gguf(exported, tmp_path / form, ExportSpec(format=form, base="org/base"))
        found = LlamaCpp(tmp_path / form / "model.gguf", None, len(wanted[0]))
        for prompt, row in zip(PROMPTS, wanted, strict=True):
            torch.testing.assert_close(found.next_log_probabilities(prompt), row, atol=allowed, rtol=0)
        lines = (tmp_path / form / "Modelfile").read_text().splitlines()
        assert lines == ["FROM ./model.gguf", 'PARAMETER stop "<|im_end|>"']
    untrained = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    assert (log_probabilities(untrained, PROMPTS[0]) - wanted[0]).abs().max() > 4 * max(ALLOWED.values())


def test_file_says_what_the_model_is(recipe: dict[str, Any], make_model: Callable[[str], Path], tmp_path: Path) -> None:
    module = load(recipe, make_model("llama"), {})
    train(module, recipe, steps=1)
    adapter = {"start_from": str(save(module, tmp_path / "adapter"))}
    exported = Recipe.model_validate(recipe | {"model": str(make_model("llama")), "adapter": adapter})
    save_merged_gguf(exported, tmp_path / "out", ExportSpec(format="merged-gguf-q8_0", base="org/base"))
    read = gguf.GGUFReader(tmp_path / "out" / "model.gguf")
    fields = {name: field.contents() for name, field in read.fields.items()}
    assert fields["tokenizer.ggml.pre"] == "gpt-2"
    assert fields["tokenizer.ggml.eos_token_id"] == 2
    assert "<|im_start|>" in fields["tokenizer.chat_template"]
    kinds = {tensor.name: tensor.tensor_type.name for tensor in read.tensors}
    assert kinds["blk.0.attn_q.weight"] == "Q8_0"
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    assert (tmp_path / "out" / "generation_config.json").exists()


LONG = 64
"""More tokens than a small model's original context."""
ROPES: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("llama", {"rope_type": "linear", "factor": 4.0}),
    "llama3": (
        "llama",
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    "long": (
        "phi3",
        {
            "rope_type": "longrope",
            "short_factor": [1.0] * 8,
            "long_factor": [1.0, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0],
            "original_max_position_embeddings": 32,
        },
    ),
}


@pytest.mark.parametrize("name", ROPES)
def test_rotary_embeddings_are_those_of_the_model(make_model: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    kind, given = ROPES[name]
    config = AutoModelForCausalLM.from_pretrained(make_model(kind)).config
    config.rope_parameters = config.rope_parameters | given
    assert_same(make_model(kind), config, tmp_path, list(range(3, 3 + LONG)))


@pytest.mark.parametrize("biases", [{"attention_bias": True}, {"attention_bias": True, "mlp_bias": True}])
def test_biases_are_those_of_the_model(
    make_model: Callable[[str], Path], tmp_path: Path, biases: dict[str, bool]
) -> None:
    config = AutoModelForCausalLM.from_pretrained(make_model("llama")).config
    for bias in biases:
        setattr(config, bias, True)
    assert_same(make_model("llama"), config, tmp_path, PROMPTS[0])


def assert_same(folder: Path, config: Any, tmp_path: Path, prompt: list[int]) -> None:
    """A random model of a configuration answers alike in llama.cpp."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    write_gguf(model, folder, [2], tmp_path / "model.gguf", F32)
    found = LlamaCpp(tmp_path / "model.gguf", None, config.vocab_size).next_log_probabilities(prompt)
    torch.testing.assert_close(found, log_probabilities(model, prompt), atol=1e-5, rtol=0)


def test_context_ends_with_the_window(make_model: Callable[[str], Path], tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_model("mistral"), dtype=torch.float32)
    model.config.sliding_window = 48
    write_gguf(model, make_model("mistral"), [2], tmp_path / "model.gguf", F32)
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    assert fields["llama.context_length"].contents() == 48


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "activation": ("llama", {"hidden_act": "gelu"}, 'llama with the activation "gelu"'),
    "scale": ("gemma2", {"query_pre_attn_scalar": 100}, "query_pre_attn_scalar 100"),
    "rope": ("qwen3", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, '"dynamic"'),
    "layers": ("gemma2", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_model_that_llama_cpp_computes_otherwise_is_refused(
    make_model: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    kind, changes, words = REFUSED[name]
    model = AutoModelForCausalLM.from_pretrained(make_model(kind), dtype=torch.float32)
    for field, value in changes.items():
        setattr(model.config, field, value)
    with pytest.raises(InputError, match=words) as refused:
        write_gguf(model, make_model(kind), [2], tmp_path / "model.gguf", F32)
    assert refused.value.failure.param == "format"


TEXTS = (
    "Hello world, it's 12345 o'clock; DON'T  panic!\n\n\tdef f(x):\n        return x**2  # naïve café\r\n",
    "  two spaces, 日本語のテキスト and 한국어, emoji 🙂🙂 and ½ or Ⅷ. ",
    "McDonald's HTTPServer isn'T  XMLHttpRequest2go /* a/b */\n \n x",
    "١٢٣٤ and ﬁ, e\u0301 é; zero\u200bwidth \u3000wide",
)
BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def split(expression: str) -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(expression), "isolated"), BYTE_LEVEL])


RULES: dict[str, Callable[[], Any]] = {
    "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "smaug-bpe": lambda: split(gguf_vocabulary._LLAMA3),
    "llama-bpe": lambda: split(gguf_vocabulary._LLAMA3),
    "qwen2": lambda: split(gguf_vocabulary._QWEN2),
    "tekken": lambda: split(gguf_vocabulary._TEKKEN),
    "gpt-4o": lambda: split(gguf_vocabulary._GPT4O),
}
IGNORE_MERGES = ("llama-bpe", "tekken")
SPECIAL = ["<unk>", "<s>", "</s>"]


def byte_level(rule: str) -> Tokenizer:
    made = Tokenizer(models.BPE(ignore_merges=rule in IGNORE_MERGES))
    made.pre_tokenizer = RULES[rule]()
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXTS * 2, trainer)
    return made


def by_spaces(prefix: bool) -> Tokenizer:
    """As Llama 2's, or as Gemma's, which puts no space in front."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    trainer = trainers.BpeTrainer(vocab_size=500, show_progress=False)
    trained.train_from_iterator([" ".join(text.split()) for text in TEXTS], trainer)
    model = json.loads(trained.to_str())["model"]
    first = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    words = {word: number for number, word in enumerate([*first, *model["vocab"]])}
    merges = [tuple(merge) for merge in model["merges"]]
    made = Tokenizer(models.BPE(vocab=words, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    steps = [normalizers.Prepend("▁")] if prefix else []
    made.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    made.add_special_tokens(SPECIAL)
    return made


@pytest.mark.parametrize("rule", [*RULES, "as Llama 2", "as Gemma"])
def test_text_is_read_by_llama_cpp_as_here(tmp_path: Path, rule: str) -> None:
    tokenizer = byte_level(rule) if rule in RULES else by_spaces(prefix=rule == "as Llama 2")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(tmp_path)
    torch.manual_seed(0)
    size = tokenizer.get_vocab_size() + 5  # more rows than tokens, as many a model has
    config = LlamaConfig(
        vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    write_base(tmp_path, tmp_path / "model.gguf")
    if rule in RULES:
        assert gguf.GGUFReader(tmp_path / "model.gguf").fields["tokenizer.ggml.pre"].contents() == rule
    reads = LlamaCpp(tmp_path / "model.gguf", None, size)
    for text in TEXTS:
        # By the rules of these two, llama.cpp cuts a combining mark off its letter.
        text = unicodedata.normalize("NFC", text) if rule in ("tekken", "gpt-4o") else text
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert len(ids) < 200
        torch.testing.assert_close(
            reads.next_log_probabilities(text), reads.next_log_probabilities(ids), atol=0, rtol=0
        )


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "is of the type Unigram": lambda: Tokenizer(models.Unigram([("<unk>", 0.0)], unk_id=0)),
    "cuts texts by": lambda: _cut_by(split(r"\d+|\D+")),
    '"Whitespace"': lambda: _cut_by(pre_tokenizers.Whitespace()),
    '"add_prefix_space": true': lambda: _cut_by(pre_tokenizers.ByteLevel(add_prefix_space=True)),
}


def _cut_by(step: Any) -> Tokenizer:
    made = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    made.pre_tokenizer = step
    return made


@pytest.mark.parametrize("words", TOKENIZERS)
def test_tokenizer_that_llama_cpp_lacks_is_refused(tmp_path: Path, words: str) -> None:
    TOKENIZERS[words]().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match=words) as refused:
        gguf_vocabulary.add_vocabulary(gguf.GGUFWriter(None, "llama"), tmp_path, 10, [])
    assert refused.value.failure.param == "format"
    assert "llama.cpp has no such tokenizer" in refused.value.failure.message
