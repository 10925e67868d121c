"""The reference of the HTTP API, as Markdown, from the API's own openapi.json."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from api.app import create_app
from api.settings import ApiSettings

Schema = dict[str, Any]


def describe_api() -> Schema:
    """openapi.json, without a database or a running service."""
    nowhere = SecretStr("postgresql+psycopg://nobody@127.0.0.1:1/none")
    broker, key = SecretStr("redis://127.0.0.1:1"), SecretStr("-" * 32)
    settings = ApiSettings(database_url=nowhere, broker_url=broker, home=Path("/none"), secret_key=key)
    return create_app(settings).openapi()


def render() -> str:
    """All routes by tag, then all schemas."""
    described = describe_api()
    schemas = described["components"]["schemas"] | _bodies(described)
    by_tag: dict[str, list[str]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            tag = operation.get("tags", ["other"])[0]
            by_tag.setdefault(tag, []).extend(_operation(f"{method.upper()} {path}", operation))
    lines = [line for tag in by_tag for line in (f"## {tag}", "", *by_tag[tag])]
    lines += ["## Schemas", ""]
    for name, schema in sorted(schemas.items()):
        lines += _schema(name, schema)
    return "\n".join(lines)


def _bodies(described: Schema) -> dict[str, Schema]:
    """The schemas of request bodies, which stand in their routes, by their titles."""
    operations = [operation for methods in described["paths"].values() for operation in methods.values()]
    contents = [each for one in operations for each in one.get("requestBody", {}).get("content", {}).values()]
    return {each["schema"]["title"]: each["schema"] for each in contents if "title" in each["schema"]}


def _operation(title: str, operation: Schema) -> Iterator[str]:
    yield from (f"### `{title}`", "", _prose(operation.get("description") or operation["summary"]), "")
    if parameters := operation.get("parameters", []):
        yield from ("| Parameter | In | Type | |", "| --- | --- | --- | --- |")
        for each in parameters:
            notes = _notes(each["schema"] | {"description": each.get("description", "")}, each["required"])
            yield _row(f"`{each['name']}`", each["in"], _type(each["schema"]), notes)
        yield ""
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield from (f"**Body** ({kind}): {_body(content['schema'])}", "")
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            kinds = [_response(kind, content) for kind, content in response.get("content", {}).items()]
            yield from (f"**{status}**: {', or '.join(kinds) or 'no body'}", "")


def _body(schema: Schema) -> str:
    return f"[{schema['title']}](#{_anchor(schema['title'])})" if "title" in schema else _type(schema)


def _response(kind: str, content: Schema) -> str:
    schema = _type(content.get("schema", {}))
    return schema if kind == "application/json" else f"{schema} ({kind})"


def _schema(name: str, schema: Schema) -> Iterator[str]:
    yield from (f"({_anchor(name)})=", f"### {name}", "")
    if "description" in schema:
        yield from (_prose(schema["description"]), "")
    if "properties" not in schema:
        yield from (_type(schema), "")
        return
    yield from ("| Field | Type | |", "| --- | --- | --- |", *_fields(schema), "")


def _fields(schema: Schema, prefix: str = "") -> Iterator[str]:
    """A row for each field, followed by those of an object in it."""
    for field, value in schema["properties"].items():
        inner = [each for each in (value, *value.get("anyOf", [])) if "properties" in each]
        required = field in schema.get("required", [])
        kind, value = ("object", value | {"default": None}) if inner else (_type(value), value)
        yield _row(f"`{prefix}{field}`", kind, _notes(value, required))
        for each in inner:
            yield from _fields(each, f"{prefix}{field}.")


def _notes(schema: Schema, required: bool) -> str:
    """The description, and whether it may be left out."""
    notes = [_prose(schema.get("description", ""))] + ["Required."] * required
    if schema.get("default") is not None:
        notes.append(f"Default: `{json.dumps(schema['default'])}`.")
    return " ".join(notes)


def _type(schema: Schema) -> str:
    """A schema in a few words, with links to the named ones."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{_anchor(name)})"
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return " or ".join(dict.fromkeys(_type(each) for each in schema[choice]))
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("type") == "object":
        return _object(schema)
    return " ".join([str(schema.get("type", "any")), *_limits(schema)])


def _object(schema: Schema) -> str:
    if "properties" in schema:
        return "object with " + ", ".join(f"`{name}`" for name in schema["properties"])
    values = schema.get("additionalProperties")
    return f"object of {_type(values)}" if isinstance(values, dict) and values else "object"


def _limits(schema: Schema) -> Iterator[str]:
    words = {
        "minimum": "from {}",
        "exclusiveMinimum": "above {}",
        "maximum": "to {}",
        "exclusiveMaximum": "below {}",
        "format": "({})",
    }
    yield from (text.format(schema[key]) for key, text in words.items() if key in schema)


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _prose(text: str) -> str:
    """A description, in which nothing but `code` is markup: neither .*_proj nor <this>."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([\\*_<\[\]])", r"\\\1", part) for part in parts)


def _anchor(name: str) -> str:
    return f"schema-{name.lower().replace('_', '-')}"
