"""Which files of the landing zone are synced, and where each goes in the portal repository. Pure text; no repository
is opened."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from lz_sync_dagster.config import MappingRule

#: Where a selected file goes if no mapping rule covers it: below this folder, under its own path.
DEFAULT_DESTINATION = "docs/lz-reference"

_WILDCARD = re.compile(r"[*?]")
_FORBIDDEN_PARTS = frozenset({"", ".", "..", ".git", "git~1"})


class Mapping:
    """The configured selection and placement.

    Args:
        paths: globs from the repository's root; a file that matches one is selected. ``*`` and ``?`` stay within a
        folder,
            ``**`` crosses folders.
        rules: the first one whose ``source`` matches places a file.
    """

    def __init__(self, paths: Sequence[str], rules: Sequence[MappingRule]) -> None:
        self.paths = tuple(paths)
        self.rules = tuple(rules)

    def destination(self, path: str) -> str | None:
        """The path in the portal repository, or ``None`` if the file is not selected."""
        if not any(matches(pattern, path) for pattern in self.paths):
            return None
        for rule in self.rules:
            if matches(rule.source, path):
                return _place(rule, path)
        return f"{DEFAULT_DESTINATION}/{path}"


def matches(pattern: str, path: str) -> bool:
    """Whether a glob covers a path. A pattern that ends with ``/`` covers everything below that folder."""
    return _compiled(pattern).fullmatch(path) is not None


def escapes(path: str) -> bool:
    """Whether a destination would leave the repository, reach git's own folder, or mean another path on some system."""
    parts = path.split("/")
    return any(part.casefold() in _FORBIDDEN_PARTS or "\\" in part or part.endswith((" ", ".")) for part in parts)


def _place(rule: MappingRule, path: str) -> str:
    wildcard = _WILDCARD.search(rule.source)
    if wildcard is None and not rule.source.endswith("/"):
        return rule.destination
    fixed = rule.source[: wildcard.start()] if wildcard else rule.source
    kept = path[fixed.rfind("/") + 1 :]
    return f"{rule.destination.rstrip('/')}/{kept}"


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    if pattern.endswith("/"):
        pattern += "**"
    text, position = "", 0
    while position < len(pattern):
        if pattern.startswith("**/", position):
            text, position = text + "(?:[^/]+/)*", position + 3
        elif pattern.startswith("**", position):
            text, position = text + ".+", position + 2
        elif pattern[position] == "*":
            text, position = text + "[^/]*", position + 1
        elif pattern[position] == "?":
            text, position = text + "[^/]", position + 1
        else:
            text, position = text + re.escape(pattern[position]), position + 1
    return re.compile(text, re.DOTALL)
