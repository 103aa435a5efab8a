"""Reads the landing zone's tree: which files are selected, where each goes, and which must not be copied, and why."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass
from hashlib import sha256

import pygit2

from lz_sync_dagster.sync.git.mapping import Mapping
from lz_sync_dagster.sync.git.plan import SourceFile
from lz_sync_dagster.sync.git.tree import GITLINK_MODE, REGULAR_MODES, SYMLINK_MODE, Entry, TreeFile, files_of
from lz_sync_dagster.sync.progress import Progress
from lz_sync_dagster.sync.state.redaction import holds_secret
from lz_sync_dagster.sync.store.repository import SyncedFile

#: The reason of a file that is withheld.
SECRET = "contains what looks like a secret; remove it from the landing zone and revoke it"  # noqa: S105

#: Longer paths are not synced: they would not fit into the indexes of PostgreSQL.
MAX_PATH_BYTES = 1000

_EXECUTABLE = 0o100755
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
#: The longer ones first: UTF-32's begins with UTF-16's.
_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, slots=True)
class SourceTree:
    """The selected files at a commit of the landing zone."""

    repository: pygit2.Repository
    commit: str
    files: tuple[SourceFile, ...]

    def data(self, file: SourceFile) -> bytes:
        """A file's bytes."""
        return self.repository[file.entry.blob].peel(pygit2.Blob).data

    def text(self, file: SourceFile) -> str:
        """A file's bytes as text; what is not UTF-8 shows as replacement characters."""
        return self.data(file).decode("utf-8-sig", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


def read_source(
    repository: pygit2.Repository,
    commit: str,
    mapping: Mapping,
    *,
    max_file_bytes: int,
    known: MappingOf[str, SyncedFile],
    progress: Progress,
) -> SourceTree:
    """Read the selected files at a commit.

    Args:
        max_file_bytes: larger files are not synced.
        known: the files of the last sync, by path. A blob that was synced is not looked into again.
    """
    tree = repository[commit].peel(pygit2.Commit).tree
    selected = [
        (file, destination) for file in files_of(repository, tree) for destination in mapping.destinations(file.path)
    ]
    files = []
    for number, (file, destination) in enumerate(selected, start=1):
        files.append(_inspect(repository, file, destination, max_file_bytes, known.get(file.path)))
        if number % 500 == 0 or number == len(selected):
            progress("reading files of the landing zone", number, len(selected))
    return SourceTree(repository, commit, tuple(files))


def _inspect(
    repository: pygit2.Repository, file: TreeFile, destination: str, max_file_bytes: int, known: SyncedFile | None
) -> SourceFile:
    entry = Entry(file.blob, _EXECUTABLE if file.mode == _EXECUTABLE else 0o100644)
    longest = max(len(file.path.encode()), len(destination.encode()))
    if longest > MAX_PATH_BYTES:
        too_long = f"its path, or the one in the portal repository, has {longest} bytes; {MAX_PATH_BYTES} are allowed"
        return SourceFile(_shortened(file.path), _shortened(destination), entry, 0, too_long)
    if file.mode not in REGULAR_MODES:
        kind = {SYMLINK_MODE: "is a symbolic link", GITLINK_MODE: "is a submodule"}.get(file.mode, "is no regular file")
        return SourceFile(file.path, destination, entry, 0, f"{kind}; only regular files are synced")
    same = known if known is not None and known.blob == file.blob and known.size > 0 else None
    size = same.size if same is not None else repository.odb.read_header(file.blob)[1]
    reason = None
    if not file.readable:
        reason = "its name is not UTF-8; rename it"
    elif size > max_file_bytes:
        reason = f"has {size} bytes; sync_layers.git_sync.max_file_bytes allows {max_file_bytes}"
    elif same is None or same.status != "synced":
        reason = _content_reason(repository[file.blob].peel(pygit2.Blob).data)
    return SourceFile(file.path, destination, entry, size, reason)


def _content_reason(data: bytes) -> str | None:
    if data.startswith(_LFS_POINTER) and len(data) < 1024:
        return "is a Git LFS pointer; its content is not in the repository"
    return SECRET if any(holds_secret(text) for text in _texts(data)) else None


def _texts(data: bytes) -> Iterator[str]:
    """What a file may say, also in the encodings that put zero bytes between letters, with a byte order mark or
    without."""
    yield data.decode("utf-8", "replace")
    if b"\0" in data:
        yield data.replace(b"\0", b"").decode("utf-8", "replace")
    codec = next((codec for mark, codec in _ENCODINGS if data.startswith(mark)), None)
    if codec is not None:
        yield data.decode(codec, "replace")


def _shortened(path: str) -> str:
    """A path that fits a key, and is no other path's."""
    raw = path.encode()
    if len(raw) <= MAX_PATH_BYTES:
        return path
    return f"{raw[: MAX_PATH_BYTES - 100].decode('utf-8', 'ignore')}\N{HORIZONTAL ELLIPSIS}{sha256(raw).hexdigest()}"
