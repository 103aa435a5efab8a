"""Brings ``terraform_drift`` up to date: what the landing zone's terraform says, against the inventory as it is known.

Both sides call it after they changed something. It does nothing unless a terraform file, a resource of a type that
terraform can make, or the coverage of one moved since the last time.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import sqlalchemy as sa
import structlog

from lz_sync_dagster import __version__
from lz_sync_dagster.sync.drift.compare import Identity, World, identify, judge, key_of, names_in, unresolved
from lz_sync_dagster.sync.drift.mapping import ASSET_TYPES, FOLDER_TYPE, MAPPINGS, PROJECT_TYPE
from lz_sync_dagster.sync.drift.modules import Instance, resolve
from lz_sync_dagster.sync.store import Store, terraform_drift
from lz_sync_dagster.sync.store.layer_runs import CACHE_TTL
from lz_sync_dagster.sync.store.terraform_drift import Asset, Compare, DriftRow, Part
from lz_sync_dagster.sync.timing import Clock

log = structlog.get_logger(__name__)

#: How often it starts again because somebody else was faster. Whoever was has seen newer rows than this one.
_ATTEMPTS = 3
_MANAGER = "//cloudresourcemanager.googleapis.com/"


def refresh(store: Store, *, clock: Clock) -> bool:
    """Compare terraform and the inventory if one of them changed since the last time.

    What has not moved still holds: the compare's instant is that of the last look, not of the last change.

    Returns:
        Whether they were compared.
    """
    for _ in range(_ATTEMPTS):
        now = clock()
        with store.read() as connection:
            before = terraform_drift.compared(connection)
            parts = terraform_drift.parts(connection, ASSET_TYPES, now=now, ttl=CACHE_TTL)
            fingerprint = _fingerprint(connection, parts)
            written = terraform_drift.newest_write(connection)
            rows = None
            moved = before is None or before.fingerprint != fingerprint or written < before.written
            if moved or (before and terraform_drift.is_written_since(connection, before.written, ASSET_TYPES)):
                rows = compare_all(connection, parts)
        compare = Compare(fingerprint, written, now)
        with store.write(exclusive=terraform_drift.LOCK) as connection:
            if terraform_drift.compared(connection) != before:
                continue
            if rows is None:
                terraform_drift.note(connection, compare)
            else:
                terraform_drift.replace(connection, rows, compare)
        return rows is not None
    return False


def refreshed(store: Store, *, clock: Clock) -> dict[str, Any]:
    """`refresh`, and how the blocks stand then, for the run's record and for Dagster's metadata."""
    compared = refresh(store, clock=clock)
    with store.read() as connection:
        counts = terraform_drift.counts(connection)
        unmanaged = terraform_drift.count_unmanaged(connection, ASSET_TYPES)
    return {
        "count": sum(counts.values()),
        **{status.value: number for status, number in counts.items()},
        "unmanaged": sum(unmanaged.values()),
        "compared": compared,
    }


def _fingerprint(connection: sa.Connection, parts: Sequence[Part]) -> str:
    """Of everything but the resources."""
    document = [
        __version__,
        sha256(repr(MAPPINGS).encode()).hexdigest(),
        terraform_drift.blocks_fingerprint(connection),
        *terraform_drift.unread_files(connection),
        *(f"{part.scope} {part.asset_type} {part.status} {part.reason}" for part in parts),
    ]
    return sha256("\n".join(document).encode()).hexdigest()


def compare_all(connection: sa.Connection, parts: Sequence[Part]) -> list[DriftRow]:
    """What became of every block, by path, line and address."""
    unread = terraform_drift.unread_files(connection)
    instances = resolve(terraform_drift.read_blocks(connection), unread)
    identities = [identity for instance in instances if (identity := identify(instance)) is not None]
    world = _world(connection, identities, parts)
    world.unread = unread
    return [_judged(instance, world) for instance in instances]


def _judged(instance: Instance, world: World) -> DriftRow:
    """A block that breaks the comparison costs only its own row."""
    try:
        return judge(instance, world)
    except Exception as error:
        log.exception("block_not_compared", address=instance.address, path=instance.block.path)
        why = f"it cannot be compared ({type(error).__name__}); please report this as a defect"
        return unresolved(instance, why)


def _world(connection: sa.Connection, identities: Sequence[Identity], parts: Sequence[Part]) -> World:
    """What the inventory knows of what these may be, and no more."""
    world = World(parts=parts)
    projects = {identity.parts["project"] for identity in identities if isinstance(identity.parts.get("project"), str)}
    _add_projects(connection, world, projects)
    _add_folders(connection, world, identities)
    complete = [identity for identity in identities if identity.missing is None]
    names = {name for identity in complete for name in names_in(identity, world.numbers)}
    world.by_name = terraform_drift.assets_named(connection, names)
    _add_keys(connection, world, complete)
    _add_leaves(connection, world, identities)
    return world


def _add_projects(connection: sa.Connection, world: World, projects: set[str]) -> None:
    """Numbers of projects, and what is above them. A project may be written by its number, too."""
    ids = {project for project in projects if not project.isdigit()}
    known = terraform_drift.assets_of_projects(connection, PROJECT_TYPE, ids)
    named = terraform_drift.assets_named(
        connection, [f"{_MANAGER}projects/{project}" for project in projects if project.isdigit()]
    )
    for asset in [*known, *named.values()]:
        number = _number(asset)
        if asset.project is not None:
            world.above[f"projects/{asset.project}"] = _above(f"projects/{asset.project}", asset.ancestors)
            if number is not None and number != asset.project:
                world.numbers |= {asset.project: number, number: asset.project}
        if number is not None:
            world.above[f"projects/{number}"] = _above(f"projects/{number}", asset.ancestors)
    unknown = [project for project in sorted(ids) if f"projects/{project}" not in world.above]
    for project, ancestors in terraform_drift.ancestors_of_projects(connection, unknown).items():
        world.above[f"projects/{project}"] = _above(f"projects/{project}", ancestors)


def _number(asset: Asset) -> str | None:
    leaf = asset.name.rpartition("/")[2]
    number = leaf if leaf.isdigit() else str((asset.data or {}).get("projectNumber", ""))
    return number if number.isdigit() else None


def _above(container: str, ancestors: Sequence[str]) -> frozenset[str]:
    return frozenset({container, *ancestors})


def _add_folders(connection: sa.Connection, world: World, identities: Sequence[Identity]) -> None:
    containers = {identity.container for identity in identities if identity.container is not None}
    folders = {container for container in containers if container.startswith("folders/")}
    named = terraform_drift.assets_named(connection, [_MANAGER + folder for folder in folders])
    for asset in named.values():
        if asset.asset_type == FOLDER_TYPE:
            folder = asset.name.removeprefix(_MANAGER)
            world.above[folder] = _above(folder, asset.ancestors)
    scopes = {part.scope for part in world.parts}
    for container in containers:
        # What is read as a scope of its own is known, even if it is no asset itself.
        if container.startswith("organizations/") or container in scopes:
            world.above.setdefault(container, frozenset({container}))


def _add_keys(connection: sa.Connection, world: World, identities: Sequence[Identity]) -> None:
    """Resources that are found by their fields, of those whose name did not find them."""
    by_type: dict[str, list[Identity]] = {}
    for identity in identities:
        if identity.key is not None and not any(name in world.by_name for name in identity.names):
            by_type.setdefault(identity.mapping.resource_type, []).append(identity)
    for resource_type, wanted in sorted(by_type.items()):
        mapping = MAPPINGS[resource_type]
        keys = {identity.key for identity in wanted}
        if "displayName" in mapping.place.key:
            called = {str(identity.parts["display_name"]) for identity in wanted}
            assets = terraform_drift.assets_called(connection, mapping.asset_type, called)
        else:
            projects = {str(identity.parts["project"]) for identity in wanted}
            assets = terraform_drift.assets_of_projects(connection, mapping.asset_type, projects)
        for asset in assets:
            key = key_of(mapping, asset)
            if key is not None and key in keys:
                world.by_key.setdefault((mapping.asset_type, key), []).append(asset)


def _add_leaves(connection: sa.Connection, world: World, identities: Sequence[Identity]) -> None:
    """Names of resources that may be what is not known exactly."""
    wanted: dict[str, set[str]] = {}
    for identity in identities:
        if identity.leaf is not None and identity.missing is not None:
            wanted.setdefault(identity.mapping.asset_type, set()).add(identity.leaf)
    for asset_type, leaves in sorted(wanted.items()):
        world.leaves[asset_type] = terraform_drift.names_by_leaf(connection, asset_type, leaves)
