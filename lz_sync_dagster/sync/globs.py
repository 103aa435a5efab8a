"""Globs over paths of a repository, as the configuration writes them: ``*`` and ``?`` stay within a folder, ``**``
crosses folders, and a pattern that ends with ``/`` covers everything below that folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache


def matches(pattern: str, path: str) -> bool:
    """Whether a glob covers a path."""
    return _compiled(pattern).fullmatch(path) is not None


def matches_any(patterns: Sequence[str], path: str) -> bool:
    """Whether one of the globs covers a path."""
    return any(matches(pattern, path) for pattern in patterns)


def touches(patterns: Sequence[str], paths: Iterable[str]) -> bool:
    """Whether one of the globs covers one of the paths."""
    return any(matches_any(patterns, path) for path in paths)


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
