"""Looks at the result instead of the plan: does the portal's tree hold what its manifest and the store say, and the
store what the landing zone has?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import pygit2

from lz_sync_dagster.config import Settings
from lz_sync_dagster.sync.git.manifest import load_manifest
from lz_sync_dagster.sync.git.mapping import Mapping
from lz_sync_dagster.sync.git.paths import shortened
from lz_sync_dagster.sync.git.plan import EDITED
from lz_sync_dagster.sync.git.service import fingerprint_of, mirrors
from lz_sync_dagster.sync.git.tree import entries_of, files_of
from lz_sync_dagster.sync.store import Store, repository


@dataclass(frozen=True, slots=True)
class Audit:
    """``problems``: one line each, with what to do. ``files``: how many the manifest lists; ``None`` if nothing could
    be looked at."""

    files: int | None
    problems: list[str]


def audit_portal(settings: Settings, store: Store) -> Audit:
    """Compare the trees of the last sync, the manifest and the store's rows with each other, file by file.

    Nothing is fetched: it is the landing zone as the sync read it and the tree as it pushed it, in the copies on this
    machine.

    Raises:
        SyncError: the manifest cannot be read.
    """
    source, portal = mirrors(settings)
    with store.read() as connection:
        state = repository.git_state(connection)
        rows = repository.files(connection)
    if state is None:
        return Audit(None, ["nothing was synced yet; run 'lz-sync sync git'"])
    if not (portal.path / "HEAD").exists() or state.tree not in (copy := portal.open()):
        return Audit(None, ["the copy of the portal repository is not on this machine; run 'lz-sync sync git' here"])
    if not (source.path / "HEAD").exists() or state.source_commit not in (landing_zone := source.open()):
        return Audit(None, ["the copy of the landing zone is not on this machine; run 'lz-sync sync git' here"])
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
    if state.fingerprint == fingerprint_of(settings):
        problems += _unlike_the_source(settings, landing_zone, state.source_commit, rows.keys())
    elif not problems:
        return Audit(None, ["the settings or the version changed since the last sync; run 'lz-sync sync git'"])
    return Audit(len(owned), problems)


def _unlike_the_source(
    settings: Settings, landing_zone: pygit2.Repository, commit: str, recorded: Collection[tuple[str, str]]
) -> list[str]:
    """Selected files of the landing zone without a row, and rows of what is not selected."""
    config = settings.sync_layers.git_sync
    mapping = Mapping(config.paths, config.mapping, config.exclude)
    selected = {
        (shortened(file.path), shortened(destination))
        for file in files_of(landing_zone, landing_zone[commit].peel(pygit2.Tree))
        for destination in mapping.destinations(file.path)
    }
    remedy = "run 'lz-sync sync git --full'"
    return [
        f"{path}: is selected for {destination}, and not recorded; {remedy}"
        for path, destination in sorted(selected - set(recorded))
    ] + [
        f"{path}: is recorded for {destination}, and not selected; {remedy}"
        for path, destination in sorted(set(recorded) - selected)
    ]


def _problem(*, listed: bool, recorded: bool, same: bool, agree: bool) -> str | None:
    if not listed:
        return "is recorded as synced, and the manifest does not list it"
    if not recorded:
        return "is in the manifest, and not recorded as synced"
    if not same:
        return "differs from its line in the manifest"
    return None if agree else "is recorded with another content than the manifest's"
