"""Which fields a resource's data has, and which kinds of value: the shape that schema drift is told from. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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


def kind_of(value: Any) -> str:
    """The JSON type of a value: null, boolean, number, string, list or object."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, Mapping) else "list"


def fields_of(data: Any) -> dict[str, frozenset[str]]:
    """The kinds of value at every path: ``networkInterfaces[].networkIP``; ``labels.*`` for keys that people chose.

    What is deeper than `DEPTH`, longer than `PATH_LENGTH` or beyond the first `FIELDS` paths is left out.
    """
    found: dict[str, set[str]] = {}
    for path, kind in _walk("", data, DEPTH):
        if path in found:
            found[path].add(kind)
        elif len(found) < FIELDS:
            found[path] = {kind}
    return {path: frozenset(kinds) for path, kinds in found.items()}


def _walk(path: str, value: Any, depth: int) -> Iterator[tuple[str, str]]:
    if path:
        yield path, kind_of(value)
    if depth == 0:
        return
    if isinstance(value, Mapping):
        chosen = len(value) > _MOST_KEYS or path.rsplit(".", 1)[-1] in CHOSEN_KEYS
        for key in sorted(map(str, value)):
            name = "*" if chosen or not _WORD.fullmatch(key) else key
            below = f"{path}.{name}" if path else name
            if len(below) <= PATH_LENGTH:
                yield from _walk(below, value.get(key), depth - 1)
    elif isinstance(value, list | tuple) and len(path) + 2 <= PATH_LENGTH:
        for item in value:
            yield from _walk(f"{path}[]", item, depth - 1)
