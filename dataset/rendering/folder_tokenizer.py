"""The tokenizer of a model's folder without transformers: tokenizer.json through the tokenizers library, and the chat
template as transformers renders it.

The template is a program by the model's author. Jinja's sandbox limits what it can reach, but neither its time nor its
memory: only a process with limits may run it (dataset/sandbox/child.py).
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from jinja2 import Template

from contract.failure import FailureCode, InputError
from contract.formatting import truncate
from contract.json_objects import unique_object
from dataset.rendering.template_environment import template_environment

MAX_VOCABULARY_BYTES = 256 << 20
"""Bytes of a tokenizer.json; Gemma's, among the largest, has 33 MB."""
MAX_TEMPLATE_BYTES = 1 << 20

GENERIC_CLASS = "PreTrainedTokenizerFast"
"""The transformers class that takes tokenizer.json unchanged. Many others replace parts of it."""

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def read_tokenizer(folder: Path) -> "FolderTokenizer":
    """Raises InputError for a folder without a complete tokenizer.json."""
    try:
        raw = _read(folder / "tokenizer.json", MAX_VOCABULARY_BYTES)
        if raw is None:
            raise _unsupported(
                "has no tokenizer.json, which is needed to find the answers' tokens; write one: "
                "transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
            )
        backend = _backend(raw)
        config = _config(folder, backend)
        if config.get("split_special_tokens"):
            raise _unsupported(
                "has split_special_tokens in tokenizer_config.json, by which the tokens that end answers would be "
                "learned as text, and generation would never stop; set it to false"
            )
        return FolderTokenizer(backend, config, _chat_template(folder, config), _ends(folder))
    except InputError:
        raise
    # A configuration may have any shape.
    except Exception as error:
        raise _unsupported(f"cannot be read: {truncate(str(error), 200)}") from error


def _backend(raw: str) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(raw)
    # The library raises plain Exception for a file that it cannot parse.
    except Exception as error:
        raise _unsupported(
            f"cannot be read from tokenizer.json: {truncate(str(error), 200)}; the file is damaged, or of a newer "
            f"version of the tokenizers library than the {tokenizers.__version__} here"
        ) from error


def _config(folder: Path, backend: tokenizers.Tokenizer) -> dict[str, Any]:
    """tokenizer_config.json, merged with the other files of older folders."""
    config = _read_json(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:
        config |= _read_json(folder / "special_tokens_map.json")
        if added := _read_json(folder / "added_tokens.json"):
            special = {_content(config.get(name)) for name in _names(config)}
            config["added_tokens_decoder"] = {
                str(index): {"content": token, "special": token in special} for token, index in added.items()
            }
    is_generic = config.get("tokenizer_class") in (GENERIC_CLASS, "TokenizersBackend")
    if not is_generic and "eos_token" not in config:
        # GPT-2's own folder, for one, leaves these names to its class in transformers.
        for model in _model_configs(folder):
            for name in ("bos_token", "eos_token"):
                if isinstance(index := model.get(f"{name}_id"), int):
                    config.setdefault(name, backend.id_to_token(index))
    return config


def _model_configs(folder: Path) -> list[dict[str, Any]]:
    """The model's configuration, and that of its text part if it has several."""
    whole = _read_json(folder / "config.json")
    text = whole.get("text_config")
    return [whole, text] if isinstance(text, dict) else [whole]


def _ends(folder: Path) -> set[int]:
    """The tokens at which the model's own configuration stops generation."""
    configs = [_read_json(folder / "generation_config.json"), *_model_configs(folder)]
    given = [config.get("eos_token_id") for config in configs]
    return {index for each in given for index in (each if isinstance(each, list) else [each]) if index is not None}


class FolderTokenizer:
    """A dataset.rendering.tokenizer.Tokenizer: tokenizer.json unchanged, with the tokens that the configuration
    adds."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        config: Mapping[str, Any],
        chat_template: Any,
        ends: Collection[int] = (),
    ) -> None:
        self.config = config
        self.chat_template = chat_template
        self._backend = backend
        # The file's length settings are for padded batches.
        backend.no_truncation()
        backend.no_padding()
        named = {name: config.get(name) for name in _names(config)}
        extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or ()
        if isinstance(extra, Mapping):
            named |= extra
            extra = ()
        self.named = {name: token for name, given in named.items() if (token := _content(given)) is not None}
        """Special tokens by the names that templates use."""
        backend.add_tokens(_added(backend, config.get("added_tokens_decoder") or {}, [*named.values(), *extra]))
        special = {*self.named.values(), *(_content(token) for token in extra)}
        self.all_special_ids = sorted(
            index
            for index, token in backend.get_added_tokens_decoder().items()
            # White space never ends a turn.
            if (token.special or token.content in special or index in ends) and token.content.strip()
        )
        """Ids of tokens that tokenizer.json marks as special or the configuration names, and of added tokens that end
        generation."""
        self._templates: dict[str, Template] = {}

    @property
    def bos_token(self) -> str | None:
        return self.named.get("bos_token")

    @property
    def bos_token_id(self) -> int | None:
        return None if self.bos_token is None else self._backend.token_to_id(self.bos_token)

    @property
    def eos_token(self) -> str | None:
        return self.named.get("eos_token")

    @property
    def parts(self) -> dict[str, Any]:
        """Everything that determines texts and tokens, apart from the programs."""
        return {
            "tokenizer": self._backend.to_str(),
            "special": self.all_special_ids,
            "named": self.named,
            "chat_template": self.chat_template,
        }

    def get_vocab(self) -> dict[str, int]:
        return self._backend.get_vocab(with_added_tokens=True)

    def __call__(self, text: Any, *, add_special_tokens: bool = True, **_: Any) -> dict[str, Any]:
        if isinstance(text, str):
            return {"input_ids": self._backend.encode(text, add_special_tokens=add_special_tokens).ids}
        encoded = self._backend.encode_batch(text, add_special_tokens=add_special_tokens)
        return {"input_ids": [each.ids for each in encoded], "offset_mapping": [each.offsets for each in encoded]}

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        left_out = set(self.all_special_ids) if skip_special_tokens else ()
        return str(self._backend.decode([i for i in ids if i not in left_out], skip_special_tokens=False))

    def apply_chat_template(
        self,
        conversation: Sequence[Any],
        *,
        tools: Any = None,
        tokenize: bool,
        add_generation_prompt: bool,
        **arguments: Any,
    ) -> str:
        assert not tokenize
        if not conversation:
            raise ValueError("it has no words for a conversation without a message")
        return self._compiled(self._chosen(tools)).render(
            messages=conversation,
            tools=tools,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **self.named,
            **arguments,
        )

    def _chosen(self, tools: Any) -> str:
        if isinstance(self.chat_template, str):
            return self.chat_template
        name = "tool_use" if tools is not None and "tool_use" in self.chat_template else "default"
        if name not in self.chat_template:
            raise ValueError(f"it has the templates {truncate(', '.join(sorted(self.chat_template)))}, and no default")
        return str(self.chat_template[name])

    def _compiled(self, text: str) -> Template:
        if text not in self._templates:
            self._templates[text] = template_environment().from_string(text)
        return self._templates[text]


def _added(
    backend: tokenizers.Tokenizer, decoder: Mapping[str, Mapping[str, Any]], special: Iterable[Any]
) -> list[tokenizers.AddedToken]:
    """Added tokens as transformers adds them: the configuration's flags override those of tokenizer.json, and a special
    token that neither has is new. All at once, since the cost of each call grows with the number of tokens."""
    added = [_token(decoder[index], {}) for index in sorted(decoder, key=int)]
    known = {token.content for token in (*backend.get_added_tokens_decoder().values(), *added)}
    for given in special:
        if (content := _content(given)) is not None and content not in known:
            added.append(_token(given if isinstance(given, Mapping) else {"content": content}, {"special": True}))
            known.add(content)
    return added


def _token(given: Mapping[str, Any], changes: Mapping[str, bool]) -> tokenizers.AddedToken:
    flags = {flag: given[flag] for flag in _FLAGS if flag in given}
    return tokenizers.AddedToken(given["content"], **{**flags, **changes})


def _names(config: Mapping[str, Any]) -> list[str]:
    """Names that every tokenizer may have, and those that the model adds."""
    own = [name for name in config if name.endswith("_token") and not name.startswith("add_")]
    return list(dict.fromkeys([*_NAMED, *own]))


def _content(given: Any) -> str | None:
    given = given.get("content") if isinstance(given, Mapping) else given
    return given if isinstance(given, str) else None


def _chat_template(folder: Path, config: Mapping[str, Any]) -> Any:
    """The chat template or templates; files override the configuration."""
    found = {path.stem: _template(path) for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if (default := _template(folder / "chat_template.jinja")) is not None:
        found["default"] = default
    if found:
        return found["default"] if set(found) == {"default"} else found
    given = config.get("chat_template")
    if given is None:
        # Of older models for images and text, whose processors read it.
        given = _read_json(folder / "chat_template.json").get("chat_template")
    return {each["name"]: each["template"] for each in given} if isinstance(given, list) else given


def _read_json(path: Path) -> dict[str, Any]:
    """Empty if the file does not exist."""
    text = _read(path, MAX_VOCABULARY_BYTES)
    if text is None:
        return {}
    try:
        read = json.loads(text, object_pairs_hook=unique_object)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(read, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return read


def _template(path: Path) -> str | None:
    return _read(path, MAX_TEMPLATE_BYTES)


def _read(path: Path, max_bytes: int) -> str | None:
    """None if the file does not exist. Raises InputError if it is too large."""
    try:
        with path.open("rb") as file:
            read = file.read(max_bytes + 1)
    except FileNotFoundError:
        return None
    if len(read) > max_bytes:
        raise _unsupported(f"has a {path.name} of more than {max_bytes >> 20} MiB")
    return read.decode()


def _unsupported(problem: str) -> InputError:
    return InputError(FailureCode.MODEL_UNSUPPORTED, f"model: its tokenizer {problem}", "model")
