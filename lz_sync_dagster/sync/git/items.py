"""The items of a file at a commit, for their history: governance values, gates, terraform blocks, runbook sections.

A version that cannot be read says nothing of its items: the last readable one before it counts, so that nobody reads
"removed" where a bracket was missing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pygit2
import structlog

from lz_sync_dagster.sync.errors import SyncError
from lz_sync_dagster.sync.git import gates, governance, runbooks, terraform
from lz_sync_dagster.sync.git.source import as_text, is_secret
from lz_sync_dagster.sync.git.tree import REGULAR_MODES
from lz_sync_dagster.sync.state.redaction import redact_any
from lz_sync_dagster.sync.store.file_history import ItemDelta, ItemKind

#: Larger versions of a file are not read for its history.
MAX_ITEM_FILE_BYTES = 1_000_000
#: Characters of a text that are kept.
MAX_TEXT = 4_000
MAX_KEY = 512
#: How many commits back the last readable version is looked for.
MAX_STEPS = 1_000
#: What is kept of an item of a bulk commit.
OMITTED = {"omitted": "bulk"}

_CACHED = 512

log = structlog.get_logger(__name__)

Items = Mapping[str, Any]


def kind_of(path: str) -> ItemKind | None:
    """What the items of a file are; ``None`` if none are read from it."""
    if path == governance.GOVERNANCE_PATH:
        return ItemKind.GOVERNANCE
    if path == gates.GATES_PATH:
        return ItemKind.GATE
    if terraform.is_terraform(path):
        return ItemKind.TERRAFORM_BLOCK
    return ItemKind.RUNBOOK if runbooks.is_runbook(path) else None


class ItemReader:
    """Reads items at commits of a repository; what was read a moment ago is not read again."""

    def __init__(self, repository: pygit2.Repository) -> None:
        self._repository = repository
        self._cache: OrderedDict[tuple[ItemKind, str, str], Items | None] = OrderedDict()

    def version(self, commit: pygit2.Commit, path: str, kind: ItemKind) -> Items | None:
        """The items of a file at a commit: by key, what is compared. Empty if there is no such file, ``None`` if this
        version of it cannot be read."""
        blob = _entry(commit.tree, path)
        if blob is None:
            return {}
        key = (kind, path, str(blob))
        if key not in self._cache:
            self._cache[key] = self._parsed(kind, path, blob)
            if len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]

    def last_readable(self, commit: pygit2.Commit, path: str, kind: ItemKind) -> Items | None:
        """The same of the newest version that can be read, at the commit or before it along first parents; ``None`` if
        there is none within `MAX_STEPS`."""
        for _ in range(MAX_STEPS):
            found = self.version(commit, path, kind)
            if found is not None:
                return found
            if not commit.parent_ids:
                return {}
            commit = commit.parents[0]
        return None

    def _parsed(self, kind: ItemKind, path: str, blob: pygit2.Oid) -> Items | None:
        try:
            if self._repository.odb.read_header(blob)[1] > MAX_ITEM_FILE_BYTES:
                return None
            data = self._repository[blob].peel(pygit2.Blob).data
        except (KeyError, pygit2.GitError):
            # A partial clone does not have it.
            return None
        if is_secret(data):
            return None  # the version is withheld from the portal, so it is no version here
        try:
            return {key[:MAX_KEY]: value for key, value in _items(kind, path, data)}
        except SyncError:
            return None
        except Exception:
            log.exception("version_not_read", path=path, blob=str(blob))
            return None


def compare(before: Items, after: Items) -> Iterator[tuple[str, ItemDelta]]:
    """What changed, by key: removed and modified ones in the order of before, then added ones."""
    for key, value in before.items():
        if key not in after:
            yield key, ItemDelta.REMOVED
        elif not same(value, after[key]):
            yield key, ItemDelta.MODIFIED
    for key in after:
        if key not in before:
            yield key, ItemDelta.ADDED


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON: ``1`` is not ``true``."""
    return one == other and (isinstance(one, str) or orjson.dumps(one) == orjson.dumps(other))


def shown(kind: ItemKind, value: Any) -> Any:
    """An item as it is kept: without secrets, long texts cut."""
    if kind in (ItemKind.TERRAFORM_BLOCK, ItemKind.RUNBOOK):
        value = {"text": value}
    value = redact_any(value)
    if isinstance(value, dict):
        return {key: _cut(inner) for key, inner in value.items()}
    return _cut(value)


def _items(kind: ItemKind, path: str, data: bytes) -> Iterator[tuple[str, Any]]:
    match kind:
        case ItemKind.GOVERNANCE:
            yield from governance.read_values(path, as_text(data)).items()
        case ItemKind.GATE:
            for gate in gates.read_gates(path, as_text(data), ""):
                yield (
                    gate.gate_id,
                    {
                        "title": gate.title,
                        "phase": gate.phase,
                        "severity": gate.severity,
                        "blocks": gate.blocks,
                        "validation": gate.validation,
                        "status": gate.status,
                    },
                )
        case ItemKind.TERRAFORM_BLOCK:
            yield from terraform.block_texts(data).items()
        case ItemKind.RUNBOOK:
            yield from runbooks.section_texts(path, as_text(data)).items()


def _entry(tree: pygit2.Tree, path: str) -> pygit2.Oid | None:
    try:
        entry = tree[path]
    except KeyError:
        return None
    return entry.id if entry.filemode in REGULAR_MODES else None


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_TEXT:
        return f"{value[:MAX_TEXT]}\N{HORIZONTAL ELLIPSIS} (cut: {len(value)} characters)"
    return value
