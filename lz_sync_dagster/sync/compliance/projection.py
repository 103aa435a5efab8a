"""What of an asset's data an expression looks at. Pure.

Handing over only that is what makes controls fast: CEL converts all that it is given, and what many assets have in
common is judged once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lz_sync_dagster.sync.state.redaction import REDACTED

_PATH = re.compile(r"\bdata((?:\.[A-Za-z_]\w*)+)(\s*\(\s*(\w+)\s*,)?(\()?")
_BARE = re.compile(r"\bdata\b(?!\.[A-Za-z_])")
_KEY_IN = re.compile(r"""(["'])([^"'\\]+)\1\s+in\s+data((?:\.[A-Za-z_]\w*)+)""")
#: A macro on what a macro gives: its items are other ones.
_CHAINED = re.compile(r"\)\s*\.\s*(?:all|exists|exists_one|filter|map)\s*\(")
_MACROS = frozenset({"all", "exists", "exists_one", "filter", "map"})
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|' + r"'(?:[^'\\]|\\.)*'")


@dataclass(slots=True)
class Projection:
    """A part of a content: fields of a mapping, or of the items of a list.

    ``whole``: all of it; ``fields``: of a mapping; ``keys``: of a mapping, whether they are there; ``items``: fields of
    the mappings in a list. Without any of these only that it is there, or that it was redacted.
    """

    whole: bool = False
    fields: dict[str, Projection] = field(default_factory=dict)
    items: set[str] | None = None
    keys: set[str] | None = None

    def of(self, value: Any) -> Any:
        """The part of a value; a value of another shape is kept as it is."""
        if self.whole:
            return value
        if self.items is not None and isinstance(value, list):
            wanted = self.items
            return [
                {key: item[key] for key in wanted if key in item} if isinstance(item, Mapping) else item
                for item in value
            ]
        if (self.fields or self.keys) and isinstance(value, Mapping):
            found = {key: below.of(value[key]) for key, below in self.fields.items() if key in value}
            for key in self.keys or ():
                if key in value:
                    found.setdefault(key, True)
            return found
        if self.fields or self.keys or self.items is not None or value is None or value == REDACTED:
            return value
        return True


def projection_of(expression: str, paths: Iterable[tuple[str, ...]]) -> Projection:
    """What a CEL expression over ``data`` looks at, and whether there is something at these paths."""
    root = Projection()
    for match in _KEY_IN.finditer(expression):
        node = _at(root, tuple(match[3].split(".")[1:]))
        node.keys = {match[2]} | (node.keys or set())
    code = _STRING.sub('""', _KEY_IN.sub("true", expression))
    root.whole = bool(_BARE.search(code))
    for path in paths:
        _at(root, path)
    for match in _PATH.finditer(code):
        names = match[1].split(".")[1:]
        variable = match[3]
        if variable is not None and names[-1] in _MACROS and _CHAINED.search(code) is None:
            _take_items(_at(root, tuple(names[:-1])), _fields_of(code, variable))
        elif match[2] is not None or match[4] is not None:
            _at(root, tuple(names[:-1])).whole = True
        elif code[: match.start()].rstrip().endswith("has(") and code[match.end() :].lstrip().startswith(")"):
            _at(root, tuple(names))
        else:
            _at(root, tuple(names)).whole = True
    return root


def _at(root: Projection, path: tuple[str, ...]) -> Projection:
    for name in path:
        root = root.fields.setdefault(name, Projection())
    return root


def _take_items(node: Projection, wanted: set[str] | None) -> None:
    if wanted is None:
        node.whole = True
    else:
        node.items = wanted | (node.items or set())


def _fields_of(code: str, variable: str) -> set[str] | None:
    """The fields of a macro's variable that the code reads; ``None`` if it uses the variable in another way."""
    found: set[str] = set()
    for match in re.finditer(rf"\b{variable}\b(\.([A-Za-z_]\w*)\b(?!\s*\()|\s*,)?", code):
        if match[2] is not None:
            found.add(match[2])
        elif match[1] is None:
            return None
    return found
