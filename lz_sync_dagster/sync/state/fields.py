"""Which fields a resource's data has, and which kinds of value: the shape that schema drift is told from. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

#: How deep a shape is looked at, how many fields it has at most, and how long a path may be.
DEPTH, FIELDS, PATH_LENGTH = 12, 2_000, 512
#: A map with more keys than this has keys that people chose.
_MOST_KEYS = 200

#: Maps whose keys people choose: the shape says that there are some, not which.
CHOSEN_KEYS = frozenset(
    {
        "labels",
        "annotations",
        "resourceLabels",
        "userLabels",
        "defaultLabels",
        "matchLabels",
        "nodeSelector",
        "resourceManagerTags",
        "environmentVariables",
        "serviceConfig",
        "redisConfigs",
        "engineConfigs",
        "properties",
        "parameters",
        "variables",
        "namedPorts",
        "options",
    }
)
_WORD = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*")
_CONTAINERS = frozenset({"object", "list"})
_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    dict: "object",
    list: "list",
}


def kind_of(value: Any) -> str:
    """The JSON type of a value: null, boolean, number, string, list or object."""
    return _KINDS.get(type(value)) or ("object" if isinstance(value, Mapping) else "list")


@lru_cache(maxsize=20_000)
def _is_word(key: str) -> bool:
    return _WORD.fullmatch(key) is not None


def fields_of(data: Any) -> dict[str, frozenset[str]]:
    """The kinds of value at every path: ``networkInterfaces[].networkIP``; ``labels.*`` for keys that people chose.

    What is deeper than `DEPTH`, longer than `PATH_LENGTH` or beyond the first `FIELDS` paths is left out.
    """
    found: dict[str, set[str]] = {}
    _look_into(data, "", DEPTH, found)
    return {path: frozenset(kinds) for path, kinds in found.items()}


def _look_into(value: Any, path: str, depth: int, found: dict[str, set[str]]) -> None:
    """Take everything below a value."""
    if depth == 0:
        return
    if isinstance(value, Mapping):
        chosen = len(value) > _MOST_KEYS or path.rpartition(".")[2] in CHOSEN_KEYS
        for key in sorted(map(str, value)):
            name = "*" if chosen or not _is_word(key) else key
            _take(value.get(key), f"{path}.{name}" if path else name, depth - 1, found)
    elif isinstance(value, list | tuple):
        for item in value:
            _take(item, f"{path}[]", depth - 1, found)


def _take(value: Any, path: str, depth: int, found: dict[str, set[str]]) -> None:
    """Take a value and everything below it."""
    if len(path) > PATH_LENGTH:
        return
    kind = kind_of(value)
    kinds = found.get(path)
    if kinds is not None:
        kinds.add(kind)
    elif len(found) < FIELDS:
        found[path] = {kind}
    if kind in _CONTAINERS:
        _look_into(value, path, depth, found)
