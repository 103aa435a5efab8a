"""Looks at the result instead of the plan: does the portal's tree hold what its manifest and the store say?"""

from __future__ import annotations

from dataclasses import dataclass

import pygit2

from lz_sync_dagster.config import Settings
from lz_sync_dagster.sync.git.manifest import load_manifest
from lz_sync_dagster.sync.git.plan import EDITED
from lz_sync_dagster.sync.git.service import mirrors
from lz_sync_dagster.sync.git.tree import entries_of
from lz_sync_dagster.sync.store import Store, repository


@dataclass(frozen=True, slots=True)
class Audit:
    """``problems``: one line each, with what to do. ``files``: how many the manifest lists; ``None`` if nothing could
    be looked at."""

    files: int | None
    problems: list[str]


def audit_portal(settings: Settings, store: Store) -> Audit:
    """Compare the tree of the last sync, its manifest and the store's rows with each other, file by file.

    Nothing is fetched: it is the tree as the sync pushed it, in the copy on this machine.

    Raises:
        SyncError: the manifest cannot be read.
    """
    _, portal = mirrors(settings)
    with store.read() as connection:
        state = repository.git_state(connection)
        rows = repository.files(connection)
    if state is None:
        return Audit(None, ["nothing was synced yet; run 'lz-sync sync git'"])
    if not (portal.path / "HEAD").exists() or state.tree not in (copy := portal.open()):
        return Audit(None, ["the copy of the portal repository is not on this machine; run 'lz-sync sync git' here"])
    tree = copy[state.tree].peel(pygit2.Tree)
    found = entries_of(copy, tree)
    owned = load_manifest(copy, tree, where=portal.shown_url).files
    # An edited file that is left alone is in the manifest as it was.
    left = {row.destination for row in rows.values() if row.reason == EDITED}
    synced = {row.destination: row for row in rows.values() if row.status == "synced"}
    remedy = "run 'lz-sync sync git --full'"
    problems = [
        f"{place}: {what}; {remedy}"
        for place in sorted(owned.keys() | synced.keys())
        if (
            what := _problem(
                listed=place in owned,
                recorded=place in synced or place in left,
                same=place in left or (place in owned and found.get(place) == owned[place].entry),
                agree=place not in synced or place not in owned or synced[place].blob == owned[place].blob,
            )
        )
    ]
    return Audit(len(owned), problems)


def _problem(*, listed: bool, recorded: bool, same: bool, agree: bool) -> str | None:
    if not listed:
        return "is recorded as synced, and the manifest does not list it"
    if not recorded:
        return "is in the manifest, and not recorded as synced"
    if not same:
        return "differs from its line in the manifest"
    return None if agree else "is recorded with another content than the manifest's"
