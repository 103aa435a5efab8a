"""Reads the landing zone's tree: which files are selected, where each goes, and which must not be copied, and why."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from collections.abc import Mapping as MappingOf

import pygit2

from lz_sync_dagster.sync.git.mapping import Mapping
from lz_sync_dagster.sync.git.paths import MAX_PATH_BYTES, shortened
from lz_sync_dagster.sync.git.plan import SourceFile
from lz_sync_dagster.sync.git.tree import (
    EXECUTABLE_MODE,
    GITLINK_MODE,
    REGULAR_MODE,
    REGULAR_MODES,
    SYMLINK_MODE,
    Entry,
    TreeChange,
    TreeFile,
    files_of,
)
from lz_sync_dagster.sync.progress import Progress
from lz_sync_dagster.sync.state.redaction import holds_secret
from lz_sync_dagster.sync.store.repository import SyncedFile

#: The reason of a file that is withheld.
SECRET = "contains what looks like a secret; remove it from the landing zone and revoke it"  # noqa: S105

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
#: The longer ones first: UTF-32's begins with UTF-16's.
_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Source:
    """The landing zone at one commit.

    Args:
        max_file_bytes: larger files are not synced.
    """

    def __init__(self, repository: pygit2.Repository, commit: str, mapping: Mapping, *, max_file_bytes: int) -> None:
        self.repository = repository
        self.commit = commit
        self.mapping = mapping
        self.max_file_bytes = max_file_bytes

    @property
    def tree(self) -> pygit2.Tree:
        """The commit's tree."""
        return self.repository[self.commit].peel(pygit2.Commit).tree

    def data(self, file: SourceFile) -> bytes:
        """A file's bytes."""
        return self.repository[file.entry.blob].peel(pygit2.Blob).data

    def text(self, file: SourceFile) -> str:
        """A file's bytes as text; what is not UTF-8 shows as replacement characters."""
        return as_text(self.data(file))

    def all_files(self, known: MappingOf[tuple[str, str], SyncedFile], progress: Progress) -> list[SourceFile]:
        """Every selected file, once for each of its places.

        Args:
            known: the files of the last sync, by path and destination. A blob that was synced is not looked into again.
        """
        found = [
            (file, destination)
            for file in files_of(self.repository, self.tree)
            for destination in self.mapping.destinations(file.path)
        ]
        files = []
        for number, (file, destination) in enumerate(found, start=1):
            files.append(self.inspect(file, destination, known.get((file.path, destination))))
            if number % 500 == 0 or number == len(found):
                progress("reading files of the landing zone", number, len(found))
        return files

    def files(self, changes: Iterable[TreeChange]) -> list[SourceFile]:
        """The selected files among changes of the tree, once for each of their places."""
        return [
            self.inspect(change.after, destination)
            for change in changes
            if change.after is not None
            for destination in self.mapping.destinations(change.path)
        ]

    def selects(self, changes: Iterable[TreeChange]) -> bool:
        """Whether a selected file is among changes of the tree."""
        return any(self.mapping.destinations(change.path) for change in changes)

    def inspect(self, file: TreeFile, destination: str, known: SyncedFile | None = None) -> SourceFile:
        """A file of the tree, with the reason why it must not be synced."""
        entry = Entry(file.blob, EXECUTABLE_MODE if file.mode == EXECUTABLE_MODE else REGULAR_MODE)
        longest = max(len(file.path.encode()), len(destination.encode()))
        if longest > MAX_PATH_BYTES:
            too_long = (
                f"its path, or the one in the portal repository, has {longest} bytes; {MAX_PATH_BYTES} are allowed"
            )
            return SourceFile(shortened(file.path), shortened(destination), entry, 0, too_long)
        if file.mode not in REGULAR_MODES:
            kind = {SYMLINK_MODE: "is a symbolic link", GITLINK_MODE: "is a submodule"}.get(file.mode)
            return SourceFile(
                file.path, destination, entry, 0, f"{kind or 'is no regular file'}; only regular files are synced"
            )
        if not file.readable:
            return SourceFile(file.path, destination, entry, 0, "its name is not UTF-8; rename it")
        if known is not None and known.blob == file.blob and known.status == "synced":
            return SourceFile(file.path, destination, entry, known.size)
        try:
            size = self.repository.odb.read_header(file.blob)[1]
        except KeyError:  # a partial copy leaves large files out
            return SourceFile(file.path, destination, entry, 0, self._too_large(f"more than {self.max_file_bytes}"))
        if size > self.max_file_bytes:
            return SourceFile(file.path, destination, entry, size, self._too_large(str(size)))
        return SourceFile(
            file.path, destination, entry, size, _content_reason(self.repository[file.blob].peel(pygit2.Blob).data)
        )

    def _too_large(self, size: str) -> str:
        return f"has {size} bytes; sync_layers.git_sync.max_file_bytes allows {self.max_file_bytes}"


def as_text(data: bytes) -> str:
    """Bytes as text that every database takes; what is not UTF-8 shows as replacement characters."""
    return data.decode("utf-8-sig", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


def _content_reason(data: bytes) -> str | None:
    if data.startswith(_LFS_POINTER) and len(data) < 1024:
        return "is a Git LFS pointer; its content is not in the repository"
    return SECRET if is_secret(data) else None


def is_secret(data: bytes) -> bool:
    """Whether a file with this content is withheld for a secret in it."""
    return any(holds_secret(text) for text in _texts(data))


def _texts(data: bytes) -> Iterator[str]:
    """What a file may say, also in the encodings that put zero bytes between letters, with a byte order mark or
    without."""
    yield data.decode("utf-8", "replace")
    if b"\0" in data:
        yield data.replace(b"\0", b"").decode("utf-8", "replace")
    codec = next((codec for mark, codec in _ENCODINGS if data.startswith(mark)), None)
    if codec is not None:
        yield data.decode(codec, "replace")
