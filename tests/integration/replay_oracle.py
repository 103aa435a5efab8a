"""What the portal repository has to hold after a sync, worked out naively from the documented rules and from what git
says of the repositories. Nothing of the package is used here."""

from __future__ import annotations

import subprocess
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

#: Parts of a destination that no repository should have.
_UNSAFE = {"", ".", "..", ".git", "git~1"}


class Entry(NamedTuple):
    """A line of ``git ls-tree``."""

    mode: str
    oid: str


class Account(NamedTuple):
    """What is to be said of a file at a destination: ``synced``, or the kind of reason why not."""

    verdict: str
    oid: str


def git(repository: Path, *arguments: str, data: bytes = b"") -> bytes:
    return subprocess.run(
        ["git", f"--git-dir={repository}", *arguments], input=data, check=True, capture_output=True
    ).stdout


def listing(repository: Path) -> dict[bytes, Entry]:
    """Everything in the branch's tree that is no folder."""
    found = {}
    for line in git(repository, "ls-tree", "-r", "-z", "--full-tree", "main").split(b"\0"):
        if line:
            facts, _, path = line.partition(b"\t")
            mode, _, oid = facts.decode().split(" ")
            found[path] = Entry(mode, oid)
    return found


class Contents:
    """The bytes of a repository's blobs."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self._known: dict[str, bytes] = {}

    def __getitem__(self, oid: str) -> bytes:
        return self._known[oid]

    def read(self, oids: set[str]) -> None:
        """Read the blobs that are not known yet."""
        wanted = sorted(oids - self._known.keys())
        answer = git(self.repository, "cat-file", "--batch", data="".join(f"{oid}\n" for oid in wanted).encode())
        for oid in wanted:
            head, _, answer = answer.partition(b"\n")
            name, kind, size = head.decode().split(" ")
            assert (name, kind) == (oid, "blob"), head
            self._known[oid], answer = answer[: int(size)], answer[int(size) + 1 :]


def is_of_the_sync(path: bytes) -> bool:
    """Whether a file of the portal repository is the sync's book-keeping."""
    return path.startswith(b".lz-sync/")


@dataclass
class Oracle:
    """Knows which files of the portal repository the sync owns; all others are the portal's."""

    landing_zone: Path
    portal: Path
    max_file_bytes: int
    owned: set[bytes] = field(default_factory=set)
    accounts: dict[tuple[str, str], Account] = field(default_factory=dict)
    governance: bytes = b""

    def __post_init__(self) -> None:
        self.source = Contents(self.landing_zone)

    def expect(self, *, excludes_internal: bool, shares: bool) -> dict[bytes, Entry]:
        """The portal's tree after the next sync. ``owned`` and ``accounts`` are then what they are after it."""
        files = listing(self.landing_zone)
        present = {path: entry for path, entry in listing(self.portal).items() if not is_of_the_sync(path)}
        self.source.read({entry.oid for entry in files.values() if entry.mode != "160000"})
        self.governance = self.source[files[b"pmo.yaml"].oid] if b"pmo.yaml" in files else b""
        own, taken = Places(), Places()
        for path in present.keys() - self.owned:
            own.add(text(path))
        self.accounts = {}
        wanted: dict[bytes, Entry] = {}
        for path, entry in sorted(files.items()):
            for destination in destinations(path, excludes_internal=excludes_internal, shares=shares):
                result = Entry("100755" if entry.mode == "100755" else "100644", entry.oid)
                raw = destination.encode()
                verdict = self._own_fault(path, destination, entry)
                if verdict is None and unsafe(destination):
                    verdict = "unsafe"
                if verdict is None and taken.blocks(destination):
                    verdict = "collision"
                mine = raw in present and (raw in self.owned or present[raw] == result)
                if verdict is None and not mine and own.blocks(destination):
                    verdict = "own"
                if verdict is None:
                    taken.add(destination)
                    wanted[raw] = result
                self.accounts[text(path), destination] = Account(verdict or "synced", entry.oid)
        kept = {path: entry for path, entry in present.items() if path not in self.owned}
        self.owned.clear()
        self.owned.update(wanted)
        return kept | wanted

    def _own_fault(self, path: bytes, destination: str, entry: Entry) -> str | None:
        """Why a file is not synced wherever it would go."""
        if max(len(text(path).encode()), len(destination.encode())) > 1000:
            return "long"
        if entry.mode in ("120000", "160000"):
            return {"120000": "link", "160000": "submodule"}[entry.mode]
        data = self.source[entry.oid]
        try:
            path.decode()
        except UnicodeDecodeError:
            return "name"
        if len(data) > self.max_file_bytes:
            return "large"
        if data.startswith(b"version https://git-lfs.github.com/spec/"):
            return "lfs"
        return "secret" if b"PRIVATE KEY" in data else None


class Places:
    """Paths that are taken, letter case and Unicode form aside."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def add(self, path: str) -> None:
        self._files.add(same(path))
        self._folders.update(folders(same(path)))

    def blocks(self, path: str) -> bool:
        """Whether a file at this path would be, contain or lie below one of them."""
        return same(path) in self._files | self._folders or bool(folders(same(path)) & self._files)


def same(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def folders(path: str) -> set[str]:
    return {path[:end] for end, letter in enumerate(path) if letter == "/"}


def text(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def unsafe(destination: str) -> bool:
    return any(part.lower() in _UNSAFE or "\\" in part or part != part.rstrip(" .") for part in destination.split("/"))


def destinations(path: bytes, *, excludes_internal: bool, shares: bool) -> list[str]:
    """The default mapping, with ``docs/internal/**`` excluded or ``docs/shared/**`` in a second place."""
    name = text(path)
    if excludes_internal and name.startswith("docs/internal/"):
        return []
    if name.startswith("docs/"):
        second = [name.replace("docs/shared/", "handbook/", 1)] if shares and name.startswith("docs/shared/") else []
        return [name.replace("docs/", "docs/lz-reference/", 1), *second]
    if name.startswith("terraform/") and name.endswith(".tf"):
        return ["docs/lz-reference/" + name]
    single = {"pmo.yaml": "config/lz-pmo.yaml"}
    single |= {file: "docs/lz-reference/" + file for file in ("ENFORCEMENT_GATES.md", "RUNBOOKS.md")}
    return [single[name]] if name in single else []


def short(path: str) -> str:
    """A path that is too long is stored shortened."""
    return path if len(path) < 900 else path[:300]


def differences(what: str, expected: dict[Any, Any], found: dict[Any, Any]) -> list[str]:
    """One line for each thing that is missing, too much or different."""
    return (
        [f"{what}: {name!r} is missing ({expected[name]})" for name in sorted(expected.keys() - found.keys())]
        + [f"{what}: {name!r} is too much ({found[name]})" for name in sorted(found.keys() - expected.keys())]
        + [
            f"{what}: {name!r} is {found[name]}, not {expected[name]}"
            for name in sorted(expected.keys() & found.keys())
            if expected[name] != found[name]
        ]
    )
