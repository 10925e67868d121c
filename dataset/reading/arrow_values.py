"""Converts an Arrow array to JSON values."""

import itertools
from dataclasses import dataclass
from typing import Any

import pyarrow
import pyarrow.compute
from pyarrow import types

from contract.json_objects import RepeatedKey, unique_object
from dataset.refusal import BadFile


@dataclass(frozen=True)
class NotJson:
    """Stands for a value whose type JSON does not have, such as a time or bytes. It does no harm in a column that
    nothing reads."""

    type: str

    def __str__(self) -> str:
        return self.type


def to_values(array: Any) -> list[Any]:
    """One JSON value per element. A null in a struct counts as missing, since Arrow writes one for each field that only
    other rows have. Raises BadFile."""
    kind = array.type
    if isinstance(kind, pyarrow.BaseExtensionType):
        return to_values(array.storage)
    if types.is_dictionary(kind):
        values = to_values(array.dictionary)
        return [None if index is None else values[index] for index in array.indices.to_pylist()]
    if types.is_struct(kind):
        return _structs(array)
    if types.is_map(kind) and _is_text(kind.key_type):
        return _maps(array)
    if _is_list(kind):
        return _lists(array)
    if types.is_null(kind) or types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        return list(array.to_pylist())
    if _is_text(kind):
        return list(array.to_pylist())
    other = NotJson(str(kind))
    return [other if valid else None for valid in array.is_valid().to_pylist()]


def value_bytes(array: Any) -> int:
    """Bytes of the values, counting each value of a dictionary as often as it occurs."""
    kind = array.type
    if isinstance(kind, pyarrow.BaseExtensionType):
        return value_bytes(array.storage)
    if types.is_dictionary(kind):
        if not (_is_text(kind.value_type) or types.is_binary(kind.value_type)):
            return int(array.indices.nbytes)
        lengths = pyarrow.compute.binary_length(array.dictionary)
        return pyarrow.compute.sum(lengths.take(array.indices)).as_py() or 0
    if types.is_struct(kind):
        return sum(map(value_bytes, array.flatten()))
    if types.is_map(kind):
        return value_bytes(_of_maps(array, array.keys)) + value_bytes(_of_maps(array, array.items))
    return value_bytes(array.flatten()) if _is_list(kind) else int(array.nbytes)


def _is_text(kind: Any) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_list(kind: Any) -> bool:
    of_views = types.is_list_view(kind) or types.is_large_list_view(kind)
    return bool(of_views or types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _structs(array: Any) -> list[Any]:
    names = [field.name for field in array.type]
    if len(set(names)) < len(names):
        raise BadFile(f"has a struct with two fields of one name, among {', '.join(names)}")
    rows: list[dict[str, Any] | None] = [{} if valid else None for valid in array.is_valid().to_pylist()]
    for name, field in zip(names, array.flatten(), strict=True):
        for row, value in zip(rows, to_values(field), strict=True):
            if row is not None and value is not None:
                row[name] = value
    return rows


def _lists(array: Any) -> list[Any]:
    elements = iter(to_values(array.flatten()))
    lengths = pyarrow.compute.list_value_length(array).to_pylist()
    return [None if length is None else [next(elements) for _ in range(length)] for length in lengths]


def _maps(array: Any) -> list[Any]:
    keys, items = (iter(to_values(_of_maps(array, each))) for each in (array.keys, array.items))
    offsets = array.offsets.to_pylist()
    maps = [
        _object(list(zip(itertools.islice(keys, end - begin), itertools.islice(items, end - begin), strict=True)))
        for begin, end in itertools.pairwise(offsets)
    ]
    return [each if valid else None for each, valid in zip(maps, array.is_valid().to_pylist(), strict=True)]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    try:
        return unique_object(pairs)
    except RepeatedKey as error:
        raise BadFile(f"has a map that cannot be read: {error}") from error


def _of_maps(array: Any, child: Any) -> Any:
    """The keys or items of these maps only: a slice of maps still has all of them."""
    begin, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
    return child.slice(begin, end - begin)
