"""Which files of the landing zone are synced, and where each goes in the portal repository. Pure text; no repository
is opened."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lz_sync_dagster.config import MappingRule
from lz_sync_dagster.sync.globs import matches, matches_any

#: Where a selected file goes if no mapping rule covers it: below this folder, under its own path.
DEFAULT_DESTINATION = "docs/lz-reference"

_WILDCARD = re.compile(r"[*?]")
_FORBIDDEN_PARTS = frozenset({"", ".", "..", ".git", "git~1"})


class Mapping:
    """The configured selection and placement.

    Args:
        paths: globs from the repository's root; a file that matches one is selected. ``*`` and ``?`` stay within a
            folder, ``**`` crosses folders.
        rules: the first one with a ``source`` that matches places a file.
        exclude: globs of files that are not selected all the same.
    """

    def __init__(self, paths: Sequence[str], rules: Sequence[MappingRule], exclude: Sequence[str] = ()) -> None:
        self.paths = tuple(paths)
        self.rules = tuple(rules)
        self.exclude = tuple(exclude)

    def destinations(self, path: str) -> tuple[str, ...]:
        """The file's paths in the portal repository, in the order of the rule; none if it is not selected."""
        if not matches_any(self.paths, path) or matches_any(self.exclude, path):
            return ()
        for rule in self.rules:
            for source in rule.source:
                if matches(source, path):
                    return tuple(dict.fromkeys(_place(source, destination, path) for destination in rule.destination))
        return (f"{DEFAULT_DESTINATION}/{path}",)


def escapes(path: str) -> bool:
    """Whether a destination would leave the repository, reach git's own folder, or mean another path on some system."""
    parts = path.split("/")
    return any(part.casefold() in _FORBIDDEN_PARTS or "\\" in part or part.endswith((" ", ".")) for part in parts)


def _place(source: str, destination: str, path: str) -> str:
    wildcard = _WILDCARD.search(source)
    if wildcard is None and not source.endswith("/"):
        return destination
    fixed = source[: wildcard.start()] if wildcard else source
    kept = path[fixed.rfind("/") + 1 :]
    return f"{destination.rstrip('/')}/{kept}"
