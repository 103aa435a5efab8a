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
_FORBIDDEN_PARTS = frozenset({"", ".", "..", ".git"})
#: Files that git itself obeys or checks: a server that checks objects refuses the whole push for a bad one.
_OF_GIT = frozenset({".gitmodules", ".gitattributes"})
#: Short names by which Windows knows git's own (git's ``is_ntfs_dotgit`` and ``is_ntfs_dot_generic``).
_SHORT_OF_GIT = re.compile(r"(?:g[a-z0-9]{0,5})?~[0-9]+")
#: What HFS+ ignores in a name (git's ``next_hfs_char``).
_IGNORED_BY_HFS = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
#: What Windows takes for no name, for a stream of another file, or for a device.
_NO_NAME_ON_WINDOWS = re.compile(r"[\\:<>\"|?*\x00-\x1f\x7f]|[ .]$")
_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3]) *(?:\.|$)"
)
#: Without any of this a path is safe: most are, and this is one search.
_SUSPICIOUS = re.compile(
    r"[\\:<>\"|?*~\x00-\x1f\x7f\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]|[ .](?:/|$)"
    r"|(?:^|/)(?:/|$|\.|con|prn|aux|nul|com|lpt)",
    re.IGNORECASE,
)


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
    """Whether a destination would leave the repository, reach what git itself obeys, or mean another path, or none, on
    some system. The rules are git's for HFS+ and NTFS (``core.protectHFS``, ``core.protectNTFS``), its ``fsck``'s, and
    Windows' for names of files."""
    return _SUSPICIOUS.search(path) is not None and any(_is_unsafe(part) for part in path.split("/"))


def _is_unsafe(part: str) -> bool:
    name = _IGNORED_BY_HFS.sub("", part).casefold()
    return (
        name in _FORBIDDEN_PARTS
        or name in _OF_GIT
        or _SHORT_OF_GIT.fullmatch(name) is not None
        or _NO_NAME_ON_WINDOWS.search(part) is not None
        or _DEVICE.match(name) is not None
    )


def _place(source: str, destination: str, path: str) -> str:
    wildcard = _WILDCARD.search(source)
    if wildcard is None and not source.endswith("/"):
        return destination
    fixed = source[: wildcard.start()] if wildcard else source
    kept = path[fixed.rfind("/") + 1 :]
    return f"{destination.rstrip('/')}/{kept}"
