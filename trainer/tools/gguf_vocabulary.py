"""A tokenizer.json as the vocabulary of a GGUF file. llama.cpp cuts words by rules that it knows by name, so only
tokenizers that cut by the same rules are written."""

import json
from pathlib import Path
from typing import Any

import gguf

from contract.model.portable_adapter import not_portable

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""ByteLevel's own."""
_DIGITS = r"\p{N}"
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_END = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _END
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _END
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_WORD = r"[^\r\n\p{L}\p{N}]?"
_TEKKEN = f"{_WORD}{_UPPER}*{_LOWER}+|{_WORD}{_UPPER}+{_LOWER}*" + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _END
_GPT4O = (
    f"{_WORD}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_WORD}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _END
)
_NAMES = {
    ((_GPT2,), False): "gpt-2",
    ((_DIGITS, _GPT2), False): "smollm",
    ((_LLAMA3,), False): "smaug-bpe",
    ((_LLAMA3,), True): "llama-bpe",
    ((_QWEN2,), False): "qwen2",
    ((_TEKKEN,), True): "tekken",
    ((_GPT4O,), False): "gpt-4o",
}
"""llama.cpp's name, by the expressions that cut a text and by whether a word in the vocabulary is a token whatever the
merges are (`ignore_merges`)."""

_SPACE = "▁"


def add_vocabulary(writer: gguf.GGUFWriter, folder: Path, size: int, ends: list[int]) -> None:
    """Adds the tokenizer of a folder for a model of `size` rows, whose answers end at the tokens `ends`. Raises
    InputError for a tokenizer that llama.cpp does not have."""
    tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
    model = tokenizer["model"]
    if model.get("type") != "BPE":
        raise _unknown(f"is of the type {model.get('type')}")
    by_spaces = bool(model.get("byte_fallback"))
    if by_spaces:
        writer.add_tokenizer_model("llama")
        writer.add_add_space_prefix(_begins_with_space(tokenizer))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_rule(tokenizer))
    words = _words(tokenizer, size)
    writer.add_token_list(words)
    writer.add_token_types(_types(tokenizer, words))
    if by_spaces:
        writer.add_token_scores(_scores(model, words))
    special = gguf.SpecialVocab(folder, load_merges=not by_spaces, n_vocab=size)
    if ends:
        special.special_token_ids["eos"] = ends[-1]
        special.special_token_ids["eot"] = ends[0]
    # "llama-bpe" and "tekken" would add it by themselves.
    special.add_special_token.setdefault("bos", False)
    special.add_to_gguf(writer, quiet=True)


def _rule(tokenizer: dict[str, Any]) -> str:
    steps = _steps(tokenizer.get("pre_tokenizer"))
    expressions = tuple(expression for step in steps for expression in _expressions(step))
    name = _NAMES.get((expressions, bool(tokenizer["model"].get("ignore_merges"))))
    if name is None:
        raise _unknown(f"cuts texts by {json.dumps(tokenizer.get('pre_tokenizer'), ensure_ascii=False)}")
    return name


def _steps(given: dict[str, Any] | None) -> list[dict[str, Any]]:
    if given is None:
        return []
    return [*given["pretokenizers"]] if given["type"] == "Sequence" else [given]


def _expressions(step: dict[str, Any]) -> list[str]:
    """Those by which a step cuts. Raises InputError for a step that does anything else."""
    match step:
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return [_GPT2] if step.get("use_regex", True) else []
        case {"type": "Digits", "individual_digits": True}:
            return [_DIGITS]
        case {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}:
            return [expression]
        case {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Removed", "invert": True}:
            return [expression]
    raise _unknown(f"cuts texts by {json.dumps(step, ensure_ascii=False)}")


def _begins_with_space(tokenizer: dict[str, Any]) -> bool:
    """Whether a text, and what follows a special token, gets a space in front. Where only the text gets one, this says
    no: the texts of chats begin with a special token."""
    normalizer = tokenizer.get("normalizer") or {}
    changes = normalizer.get("normalizers", [normalizer])
    if any(change.get("type") == "Prepend" for change in changes):
        return True
    return any(step.get("prepend_scheme") == "always" for step in _steps(tokenizer.get("pre_tokenizer")))


def _words(tokenizer: dict[str, Any], size: int) -> list[str]:
    """By id. A model may have more rows than its tokenizer has tokens."""
    words = {number: word for word, number in tokenizer["model"]["vocab"].items()}
    words |= {added["id"]: added["content"] for added in tokenizer["added_tokens"]}
    if max(words) >= size:
        raise _unknown(f"has the token {max(words)}, and the model has {size} rows")
    return [words.get(number, f"[PAD{number}]") for number in range(size)]


def _types(tokenizer: dict[str, Any], words: list[str]) -> list[gguf.TokenType]:
    model = tokenizer["model"]
    types = [gguf.TokenType.NORMAL if word in model["vocab"] else gguf.TokenType.UNUSED for word in words]
    if model.get("byte_fallback"):
        for number in (model["vocab"].get(f"<0x{byte:02X}>") for byte in range(256)):
            if number is not None:
                types[number] = gguf.TokenType.BYTE
    for added in tokenizer["added_tokens"]:
        types[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    if model.get("unk_token") in model["vocab"]:
        types[model["vocab"][model["unk_token"]]] = gguf.TokenType.UNKNOWN
    return types


def _scores(model: dict[str, Any], words: list[str]) -> list[float]:
    """llama.cpp joins the pair whose token has the highest score, and a tokenizer the pair whose merge comes first. The
    merges into one token follow one another, so the first of them gives the same."""
    scores: dict[str, float] = {}
    for place, merge in enumerate(model["merges"]):
        first, second = merge if isinstance(merge, list) else merge.split(" ")
        scores.setdefault(first + second, -float(place))
    lowest = -float(len(model["merges"]))
    return [scores.get(word, lowest) for word in words]


def _unknown(what: str) -> Exception:
    return not_portable(f"llama.cpp has no such tokenizer: it {what}")
