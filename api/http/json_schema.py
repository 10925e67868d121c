"""JSON schemas for the API's OpenAPI description."""

from typing import Any

from pydantic import BaseModel


def whole_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a model, its parts in their places: "#/$defs" leads nowhere inside another document."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def put(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                part = parts[value["$ref"].rpartition("/")[2]]
                return put({**part, **{name: inner for name, inner in value.items() if name != "$ref"}})
            return {name: put(inner) for name, inner in value.items() if name != "discriminator"}
        return [put(inner) for inner in value] if isinstance(value, list) else value

    return put(schema)  # type: ignore[no-any-return]
