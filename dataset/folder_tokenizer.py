"""The tokenizer of a model's folder, without transformers: tokenizer.json by the tokenizers library, and the chat
template as transformers writes it.

The template is a program of whoever made the model. The sandbox keeps it from all but its input, and bounds neither its
time nor its memory: only a process with limits may run it (dataset/child.py).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from jinja2 import Template, TemplateError
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock, Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from contract.failure import FailureReason, InputError
from contract.quote import cut
from dataset.tokenizer import TODAY

LARGEST_VOCABULARY = 256 << 20
"""Bytes of a tokenizer.json; Gemma's, among the largest, has 33 MB."""
LARGEST_TEMPLATE = 1 << 20

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def read_tokenizer(folder: Path) -> "FolderTokenizer":
    """Raises InputError for a folder without a whole tokenizer.json."""
    try:
        config = json.loads(_read(folder / "tokenizer_config.json", LARGEST_VOCABULARY) or "{}")
        raw = _read(folder / "tokenizer.json", LARGEST_VOCABULARY)
        if raw is None:
            raise _unsupported("has no tokenizer.json; one is needed to find the answers' tokens")
        return FolderTokenizer(tokenizers.Tokenizer.from_str(raw), config, _chat_template(folder, config))
    except InputError:
        raise
    # The tokenizers library raises Exception itself for a file that makes no sense to it.
    except Exception as error:
        raise _unsupported(f"cannot be read: {cut(str(error), 200)}") from error


class FolderTokenizer:
    """A dataset.tokenizer.Tokenizer."""

    def __init__(self, backend: tokenizers.Tokenizer, config: Mapping[str, Any], chat_template: Any) -> None:
        self.chat_template = chat_template
        self._backend = backend
        # What the file says of lengths is for who pads.
        backend.no_truncation()
        backend.no_padding()
        self._named = {name: token for name in _names(config) if (token := _content(config.get(name))) is not None}
        extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or ()
        if isinstance(extra, Mapping):
            self._named |= {name: token for name, given in extra.items() if (token := _content(given)) is not None}
            extra = ()
        added = config.get("added_tokens_decoder") or {}
        self._add([added[index] for index in sorted(added, key=int)])
        self._special = [*self._named.values(), *(token for given in extra if (token := _content(given)) is not None)]
        self._add([{"content": token, "special": True} for token in self._special])
        # Where the configuration says whether a text begins with BOS, it is so, whatever the file does.
        said = "add_bos_token" in config or "add_eos_token" in config
        self._begins: bool | None = bool(config.get("add_bos_token")) if said else None
        self._templates: dict[str, Template] = {}

    def _add(self, given: Sequence[Mapping[str, Any]]) -> None:
        known = self._backend.get_vocab(with_added_tokens=True)
        options = ("single_word", "lstrip", "rstrip", "normalized", "special")
        for token in given:
            if token["content"] not in known:
                chosen = {name: token[name] for name in options if name in token}
                added = tokenizers.AddedToken(token["content"], **chosen)
                (self._backend.add_special_tokens if token.get("special") else self._backend.add_tokens)([added])

    @property
    def bos_token(self) -> str | None:
        return self._named.get("bos_token")

    @property
    def bos_token_id(self) -> int | None:
        return None if self.bos_token is None else self._backend.token_to_id(self.bos_token)

    @property
    def eos_token(self) -> str | None:
        return self._named.get("eos_token")

    @property
    def all_special_ids(self) -> list[int]:
        found = (self._backend.token_to_id(token) for token in dict.fromkeys(self._special))
        return [token for token in found if token is not None]

    def get_vocab(self) -> dict[str, int]:
        return self._backend.get_vocab(with_added_tokens=True)

    def __call__(self, text: Any, *, add_special_tokens: bool = True, **_: Any) -> dict[str, Any]:
        if isinstance(text, str):
            ids = self._backend.encode(text, add_special_tokens=add_special_tokens and self._begins is None).ids
            begins = add_special_tokens and self._begins and self.bos_token_id is not None
            return {"input_ids": [self.bos_token_id, *ids] if begins else ids}
        encoded = self._backend.encode_batch(text, add_special_tokens=add_special_tokens)
        return {"input_ids": [each.ids for each in encoded], "offset_mapping": [each.offsets for each in encoded]}

    def token(self, index: int) -> str:
        """As people read it."""
        return str(self._backend.decode([index], skip_special_tokens=False))

    def apply_chat_template(
        self, conversation: Sequence[Any], *, tools: Any, tokenize: bool, add_generation_prompt: bool, **arguments: Any
    ) -> str:
        assert not tokenize
        if not conversation:
            raise ValueError("it has no words for a conversation without a message")
        return self._compiled(self._chosen(tools)).render(
            messages=conversation,
            tools=tools,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **self._named,
            **arguments,
        )

    def _chosen(self, tools: Any) -> str:
        if isinstance(self.chat_template, str):
            return self.chat_template
        name = "tool_use" if tools is not None and "tool_use" in self.chat_template else "default"
        if name not in self.chat_template:
            raise ValueError(f"it has the templates {cut(', '.join(sorted(self.chat_template)))}, and no default")
        return str(self.chat_template[name])

    def _compiled(self, text: str) -> Template:
        if text not in self._templates:
            self._templates[text] = template_environment().from_string(text)
        return self._templates[text]


def _names(config: Mapping[str, Any]) -> list[str]:
    """Those that every tokenizer may have, and what the model adds."""
    own = [name for name in config if name.endswith("_token") and not name.startswith("add_")]
    return list(dict.fromkeys([*_NAMED, *own]))


def _content(given: Any) -> str | None:
    given = given.get("content") if isinstance(given, Mapping) else given
    return given if isinstance(given, str) else None


def _chat_template(folder: Path, config: Mapping[str, Any]) -> Any:
    """The files go before the configuration."""
    found = {path.stem: _template(path) for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if (default := _template(folder / "chat_template.jinja")) is not None:
        found["default"] = default
    if found:
        return found["default"] if set(found) == {"default"} else found
    given = config.get("chat_template")
    return {each["name"]: each["template"] for each in given} if isinstance(given, list) else given


def _template(path: Path) -> str | None:
    return _read(path, LARGEST_TEMPLATE)


def _read(path: Path, largest: int) -> str | None:
    """None where it is not there. Raises InputError for one that is too large."""
    try:
        with path.open("rb") as file:
            read = file.read(largest + 1)
    except FileNotFoundError:
        return None
    if len(read) > largest:
        raise _unsupported(f"has a {path.name} of more than {largest >> 20} MiB")
    return read.decode()


def _unsupported(problem: str) -> InputError:
    return InputError(FailureReason.MODEL_UNSUPPORTED, f"model: its tokenizer {problem}", "model")


def template_environment() -> ImmutableSandboxedEnvironment:
    """As transformers' render_jinja_template makes it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    return environment


class _Generation(Extension):
    """{% generation %} ... {% endgeneration %}: marks of some templates, which change nothing of what is written."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

    def _write(self, caller: Any) -> Any:
        return caller()


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(format: str) -> str:
    return TODAY.strftime(format)


class _Dict:
    """dict itself, without the attributes of a class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """Holds no name by which Python's own could be reached."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, rest = args[0], args[1:]
        given = dict(*rest, **kwargs)
        for name in given:
            _check_name(name)
        Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace takes no name that begins with _, and got {cut(name)}")
