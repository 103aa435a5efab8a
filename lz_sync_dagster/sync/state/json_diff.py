"""What differs between two JSON values, field by field. Pure.

A path is dotted: ``networkInterfaces[name=nic0].networkIP``. Objects in a list are matched by the first of `KEYS` that
all of them have with different values, else by their place; lists of plain values are compared as a whole. A key that
is no plain word is quoted: ``labels["a.b"]``. The result does not depend on the order of keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

#: What tells the objects of a list apart, in this order.
KEYS = ("name", "key", "id", "role", "email", "deviceName", "constraint", "ipAddress", "type")

#: Differences that are told unless more are asked for.
LIMIT = 100
#: Characters of JSON that a value may have to be told in full.
VALUE_LIMIT = 2_000

_WORD = re.compile(r"[A-Za-z0-9_-]+")


class FieldChangeKind(StrEnum):
    """What became of a field."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field that differs. ``cut``: a value is too long; its beginning, as JSON text, stands for it."""

    path: str
    kind: FieldChangeKind
    before: Any
    after: Any
    cut: bool = False


@dataclass(frozen=True, slots=True)
class JsonDiff:
    """The differences in the order of their paths. ``truncated``: there are more."""

    changes: tuple[FieldChange, ...]
    truncated: bool


def json_diff(before: Any, after: Any, *, limit: int = LIMIT) -> JsonDiff:
    """What differs between two values. A value that is ``None`` as a whole has no fields."""
    found: list[FieldChange] = []
    for change in _changes("", {} if before is None else before, {} if after is None else after):
        if len(found) == limit:
            return JsonDiff(tuple(found), True)
        found.append(_bounded(change))
    return JsonDiff(tuple(found), False)


def _changes(path: str, before: Any, after: Any) -> Iterator[FieldChange]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from _of_members(path, before, after, _member)
    elif isinstance(before, list) and isinstance(after, list) and _is_of_objects(before) and _is_of_objects(after):
        key = _key_of(before, after)
        yield from _of_members(path, _by(before, key), _by(after, key), _item)
    elif not same(before, after):
        yield FieldChange(path, FieldChangeKind.CHANGED, before, after)


def _of_members(path: str, before: Mapping[str, Any], after: Mapping[str, Any], join: Any) -> Iterator[FieldChange]:
    for key in sorted(before.keys() | after.keys()):
        place = join(path, key)
        if key not in after:
            yield FieldChange(place, FieldChangeKind.REMOVED, before[key], None)
        elif key not in before:
            yield FieldChange(place, FieldChangeKind.ADDED, None, after[key])
        else:
            yield from _changes(place, before[key], after[key])


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same: ``true`` is not 1, and 1.0 is 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _is_of_objects(items: Sequence[Any]) -> bool:
    return all(isinstance(item, Mapping) for item in items)


def _key_of(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> str | None:
    for key in KEYS:
        if all(_is_told_apart(items, key) for items in (before, after)):
            return key
    return None


def _is_told_apart(items: Sequence[Mapping[str, Any]], key: str) -> bool:
    values = [item.get(key) for item in items]
    return all(isinstance(value, str | int) for value in values) and len({str(value) for value in values}) == len(items)


def _by(items: Sequence[Mapping[str, Any]], key: str | None) -> dict[str, Any]:
    if key is None:
        return {f"{place:06}": item for place, item in enumerate(items)}
    return {f"{key}={item[key]}": item for item in items}


def _member(path: str, key: str) -> str:
    if _WORD.fullmatch(key):
        return f"{path}.{key}" if path else key
    return f"{path}[{orjson.dumps(key).decode()}]"


def _item(path: str, key: str) -> str:
    return f"{path}[{int(key) if key.isdigit() else key}]"


def _bounded(change: FieldChange) -> FieldChange:
    before, after = _cut(change.before), _cut(change.after)
    if before is change.before and after is change.after:
        return change
    return FieldChange(change.path, change.kind, before, after, cut=True)


def _cut(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS).decode()
    return value if len(text) <= VALUE_LIMIT else text[:VALUE_LIMIT]
