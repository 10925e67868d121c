"""Previews, training and exports have the tokens of tokenizer.json, whatever class of transformers the model names."""

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

from contract.recipe import Recipe
from dataset.example import Conversation, PlainText, conversation
from dataset.rendering.folder_tokenizer import read_tokenizer
from dataset.rendering.tokenise import encode
from tests.support.files import CHATML
from trainer.data.tokenizer import copy_tokenizer, load_tokenizer

TEXTS = [
    "Hello  World 123 e\u0301 \u212b\n\n12<|im_end|>\n",
    " <|im_start|>x<|im_end|> <|tool|> y  ",
    "\u2581a\tB",
    "it's 2024's",
]
EXAMPLES: list[Conversation | PlainText] = [
    conversation(
        [{"role": "user", "content": "Is 17 PRIME?"}, {"role": "assistant", "content": "  Y\u00c9s, 17 is. "}]
    ),
    PlainText("In 1984  Caf\u00e9s"),
]
CHARACTERS = sorted({*map(chr, range(32, 127)), "\n", "\t", "\u2581", *pre_tokenizers.ByteLevel.alphabet()})
MERGES = [("1", "2"), ("12", "3"), ("\u2581", "H"), ("h", "e"), ("\u0120", "w"), ("1", "7"), ("\u2581", "1")]


def byte_level() -> Tokenizer:
    """As SmolLM2's: digits one by one. With a normalizer too."""
    made = Tokenizer(models.BPE(*bpe_parts()))
    made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    return made


def metaspace() -> Tokenizer:
    """As Llama 2's: a space before every text is the normalizer's, and texts begin with BOS."""
    made = Tokenizer(models.BPE(*bpe_parts(), unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return made


def bpe_parts() -> tuple[dict[str, int], list[tuple[str, str]]]:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *CHARACTERS, *map("".join, MERGES)]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}, MERGES


def unigram() -> Tokenizer:
    pieces = ["<unk>", "<s>", "</s>", *CHARACTERS, "He", "\u2581H", "17"]
    made = Tokenizer(models.Unigram([(piece, -float(index)) for index, piece in enumerate(pieces)], unk_id=0))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Metaspace(prepend_scheme="first")]
    )
    return made


def word_piece() -> Tokenizer:
    pieces = ["<unk>", "<s>", "</s>", *CHARACTERS, *(f"##{character}" for character in CHARACTERS)]
    made = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_next")
    return made


KINDS: dict[str, list[Callable[[], Tokenizer]]] = {
    "BPE": [byte_level, metaspace],
    "Unigram": [unigram],
    "WordPiece": [word_piece],
    "WordLevel": [byte_level],
}


def rebuilders() -> list[str]:
    """Every class of AutoTokenizer that makes its backend in its own way."""
    classes = {tokenizer_class_from_name(name) for name in set(TOKENIZER_MAPPING_NAMES.values()) if name}
    return sorted(
        each.__name__
        for each in classes
        if inspect.isclass(each) and issubclass(each, PreTrainedTokenizerFast) and each is not PreTrainedTokenizerFast
    )


def write(folder: Path, backend: Tokenizer, **config: Any) -> Path:
    backend.add_special_tokens(["<|im_start|>", AddedToken("<|im_end|>", special=True, rstrip=False)])
    backend.add_tokens([AddedToken("<|tool|>", lstrip=True)])
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "bos_token_id": 1, "eos_token_id": 2}))
    names = {"bos_token": "<s>", "eos_token": "<|im_end|>", "unk_token": "<unk>", "chat_template": CHATML}
    (folder / "tokenizer_config.json").write_text(json.dumps(names | config))
    return folder


def recipe_of(model: object) -> Recipe:
    return Recipe.model_validate({"model": str(model), "dataset": "rows.jsonl"})


def export(model: Path, folder: Path) -> Path:
    folder.mkdir()
    shutil.copyfile(model / "config.json", folder / "config.json")
    copy_tokenizer(recipe_of(model), folder)
    return folder


@pytest.mark.parametrize("name", rebuilders())
def test_preview_training_and_export_share_their_tokens(name: str, tmp_path: Path) -> None:
    kind = getattr(tokenizer_class_from_name(name), "model", None)
    for number, make in enumerate(KINDS[kind.__name__ if kind else "BPE"]):
        model = write(tmp_path / f"model-{number}", make(), tokenizer_class=name)
        raw = Tokenizer.from_file(str(model / "tokenizer.json"))
        previewed, trained = read_tokenizer(model), load_tokenizer(recipe_of(model))
        exported = AutoTokenizer.from_pretrained(export(model, tmp_path / f"export-{number}"))
        for text in TEXTS:
            expected = raw.encode(text, add_special_tokens=False).ids
            assert trained([text], add_special_tokens=False)["input_ids"] == [expected]
            assert exported([text], add_special_tokens=False)["input_ids"] == [expected]
            assert trained(text)["input_ids"] == exported(text)["input_ids"] == raw.encode(text).ids
        assert encode(previewed, EXAMPLES) == encode(trained, EXAMPLES) == encode(exported, EXAMPLES)
        assert (tmp_path / f"export-{number}/tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("kept", ["PreTrainedTokenizerFast", "LlamaTokenizer"])
def test_export_carries_the_bases_own_files(kept: str, tmp_path: Path) -> None:
    backend = byte_level()
    if kept == "LlamaTokenizer":
        # What this class makes of a vocabulary anyway.
        vocabulary, merges = bpe_parts()
        backend = AutoTokenizer.from_pretrained(
            write(tmp_path / "made", Tokenizer(models.BPE(vocabulary, merges)), tokenizer_class=kept)
        ).backend_tokenizer
    dated = "{{ strftime_now('%d %b %Y') }}" + CHATML
    model = write(tmp_path / "base", backend, tokenizer_class=kept, chat_template=dated, spaces={"of": " its own"})
    (model / "additional_chat_templates").mkdir()
    (model / "additional_chat_templates" / "tool_use.jinja").write_text(dated)
    (model / "chat_template.jinja").write_text(dated)
    exported = export(model, tmp_path / "export")
    files = sorted(path.relative_to(model) for path in model.rglob("*") if path.is_file())
    assert sorted(path.relative_to(exported) for path in exported.rglob("*") if path.is_file()) == files
    assert [(exported / file).read_bytes() for file in files] == [(model / file).read_bytes() for file in files]


names = st.sampled_from(["<s>", "</s>", "<|im_end|>", "<|tool|>", "<new>", "a", None])
flags = st.fixed_dictionaries({flag: st.booleans() for flag in ("lstrip", "rstrip", "normalized", "single_word")})
configs = st.fixed_dictionaries(
    {},
    optional={
        "bos_token": names,
        "eos_token": names,
        "pad_token": names,
        "image_token": names,
        "add_bos_token": st.booleans(),
        "additional_special_tokens": st.lists(st.sampled_from(["<|tool|>", "<extra>", "12"]), unique=True),
        "extra_special_tokens": st.lists(st.sampled_from(["<|tool|>", "<other>"]), unique=True),
    },
)


@settings(deadline=None)
@given(
    configs,
    st.none() | st.dictionaries(st.sampled_from(["<|tool|>", "<|im_end|>", "12", "<added>"]), flags),
    st.none() | st.lists(st.sampled_from(["<legacy>", "<older>"]), unique=True),
    st.none() | st.fixed_dictionaries({}, optional={"eos_token": names, "pad_token": names}),
)
def test_configured_tokens_match_transformers(
    tmp_path_factory: pytest.TempPathFactory,
    config: dict[str, Any],
    decoder: dict[str, Any] | None,
    older: list[str] | None,
    special: dict[str, Any] | None,
) -> None:
    folder = tmp_path_factory.mktemp("model")
    backend = metaspace()
    write(folder, backend)
    config = {name: value for name, value in config.items() if value is not None}
    if decoder is not None:
        ids = {backend.token_to_id(token) or 900: token for token in decoder}
        config["added_tokens_decoder"] = {
            str(index): decoder[token] | {"content": token, "special": index % 2 == 0} for index, token in ids.items()
        }
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if older is not None:
        (folder / "added_tokens.json").write_text(json.dumps({token: 800 + i for i, token in enumerate(older)}))
    if special is not None:
        reported = {name: token for name, token in special.items() if token is not None}
        (folder / "special_tokens_map.json").write_text(json.dumps(reported))
    ours, theirs = read_tokenizer(folder), PreTrainedTokenizerFast.from_pretrained(folder)
    for add_special_tokens in (False, True):
        found = ours(TEXTS, add_special_tokens=add_special_tokens)["input_ids"]
        assert found == theirs(TEXTS, add_special_tokens=add_special_tokens)["input_ids"]
    assert ours.get_vocab() == theirs.get_vocab()
    assert (ours.bos_token, ours.eos_token) == (theirs.bos_token, theirs.eos_token)
    marked = {i for i, token in theirs.backend_tokenizer.get_added_tokens_decoder().items() if token.special}
    assert set(ours.all_special_ids) == marked | set(theirs.all_special_ids)


@pytest.mark.parametrize("where", ["nowhere", "tokenizer.json", "added_tokens_decoder", "extra", "generation config"])
def test_answer_ends_with_its_special_token(tmp_path: Path, where: str) -> None:
    backend, special = byte_level(), where != "nowhere"
    write(tmp_path, backend, eos_token="</s>")
    backend.add_tokens([AddedToken("<|im_end|>", special=where == "tokenizer.json")])
    index = backend.token_to_id("<|im_end|>")
    backend.save(str(tmp_path / "tokenizer.json"))
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    if where == "extra":
        config["extra_special_tokens"] = ["<|im_end|>"]
    if where == "added_tokens_decoder":
        config["added_tokens_decoder"] = {str(index): {"content": "<|im_end|>", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    if where == "generation config":
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, index]}))
    tokenizer = read_tokenizer(tmp_path)
    ((document,),) = encode(tokenizer, EXAMPLES[:1])
    learned = [index for index, flag in zip(document.input_ids, document.supervised, strict=True) if flag]
    assert tokenizer.decode(learned).endswith("17 is. <|im_end|>" if special else "17 is. <|im_end|>\n")
    assert (index in tokenizer.all_special_ids) == special


def test_gpt2_defaults_name_its_tokens(tmp_path: Path) -> None:
    write(tmp_path, byte_level())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "bos_token_id": 2, "eos_token_id": 2}))
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1024}')
    assert (read_tokenizer(tmp_path).bos_token, read_tokenizer(tmp_path).eos_token) == ("</s>", "</s>")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    assert read_tokenizer(tmp_path).eos_token is None


def test_hubs_model_has_the_tokens_of_its_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--org--name"
    snapshot = write(repository / "snapshots" / ("a" * 40), byte_level(), tokenizer_class="LlamaTokenizer")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    assert encode(load_tokenizer(recipe_of("org/name")), EXAMPLES) == encode(read_tokenizer(snapshot), EXAMPLES)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "config.json").write_text("{}")
    copy_tokenizer(recipe_of("org/name"), tmp_path / "export")
    exported = AutoTokenizer.from_pretrained(tmp_path / "export")
    assert encode(exported, EXAMPLES) == encode(read_tokenizer(snapshot), EXAMPLES)
