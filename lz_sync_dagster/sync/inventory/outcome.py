"""What the parts of one sync came to, and what that is for the layer: figures, errors, what is served from before."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from lz_sync_dagster.sync.errors import SyncError
from lz_sync_dagster.sync.inventory.delta import DeltaResult
from lz_sync_dagster.sync.inventory.planner import ReadPlan
from lz_sync_dagster.sync.inventory.taking import Loaded
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.runs import LayerOutcome
from lz_sync_dagster.sync.state.observation import ContentType
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.store import Store, assets, coverage, findings
from lz_sync_dagster.sync.store.assets import Applied
from lz_sync_dagster.sync.store.layer_runs import CACHE_TTL
from lz_sync_dagster.sync.store.schema import coverage as coverage_table
from lz_sync_dagster.sync.timing import from_ns, to_ns

#: Assets that are not fresh while one part is served from its last good copy.
_RESTS_ON_ALL_PARTS = frozenset({"resources", "findings", "infrastructure_state", "terraform_drift"})


@dataclass
class Counts:
    """What a sync did, all its attempts together.

    Attributes:
        read: assets that were looked at; ``decoded``: those of them whose bytes were not known.
        calls: calls of Cloud Asset Inventory.
        missing: assets that a complete read lacked for the first time.
        missed_by_feed: changes that the feed had not told.
        unusable: assets that could not be used.
        drifted: fields that are new, or have another type.
        listed: parts that were listed to their last page; ``exported``: that were read from exports.
    """

    applied: Applied = field(default_factory=Applied)
    read: int = 0
    decoded: int = 0
    calls: int = 0
    missing: int = 0
    missed_by_feed: int = 0
    unusable: int = 0
    drifted: int = 0
    listed: int = 0
    exported: int = 0

    def to_json(self) -> dict[str, Any]:
        """For the record of the run, between two attempts."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: dict[str, Any] | None) -> Counts:
        """What `to_json` gave; nothing for ``None``."""
        return cls() if kept is None else cls(**(kept | {"applied": Applied(**kept["applied"])}))


@dataclass
class Tally:
    """What the parts of one attempt came to.

    Attributes:
        proven: parts that a complete read proved since the sync began.
        listed: parts that were listed to their last page in this attempt.
        looked_at: parts that were searched for changes.
        errors: why a full read of a part proved nothing.
        late: why changes of a part could not be looked for; its proof is as good as before.
        waiting: parts that are not known, and that nobody asked for in this sync.
        others: what failed and concerns no part.
        under_way: exports that go on, by their words, with the parts that wait for them.
        plans: what was planned, in order.
    """

    counts: Counts = field(default_factory=Counts)
    proven: set[Part] = field(default_factory=set)
    listed: set[Part] = field(default_factory=set)
    looked_at: set[Part] = field(default_factory=set)
    errors: dict[Part, SyncError] = field(default_factory=dict)
    late: dict[Part, SyncError] = field(default_factory=dict)
    waiting: dict[Part, SyncError] = field(default_factory=dict)
    others: list[SyncError] = field(default_factory=list)
    under_way: dict[str, list[Part]] = field(default_factory=dict)
    plans: list[ReadPlan] = field(default_factory=list)

    @property
    def transient(self) -> list[SyncError]:
        """What another attempt may cure."""
        return [error for error in (*self.errors.values(), *self.late.values(), *self.others) if error.transient]

    @property
    def is_fruitless(self) -> bool:
        """Whether parts failed, and nothing came of any other part."""
        return bool(self.errors) and not (self.proven or self.looked_at or self.under_way)

    @property
    def said(self) -> list[SyncError]:
        """Everything that is wrong, each part once: what failed comes first, then what is not known, then what is
        late."""
        parts = dict(self.errors)
        for later in (self.waiting, self.late):
            parts |= {part: error for part, error in later.items() if part not in parts}
        return [*parts.values(), *self.others]

    def count(self, part: Part, *, by_list: bool) -> None:
        """Count a part that was read to its end, by listing or from an export."""
        if by_list:
            self.listed.add(part)
            self.counts.listed += 1
        else:
            self.counts.exported += 1

    def take(self, part: Part, loaded: Loaded, error: SyncError | None) -> None:
        """Count what became of a full read."""
        counts = self.counts
        counts.read += loaded.assets
        counts.decoded += loaded.decoded
        counts.unusable += loaded.unusable
        counts.drifted += loaded.drifted
        counts.applied += loaded.applied
        counts.missed_by_feed += 0 if loaded.baseline else loaded.applied.changed
        if loaded.result is not None:
            counts.missing += loaded.result.missing
            counts.applied += Applied(deleted=loaded.result.deleted)
            counts.missed_by_feed += loaded.result.deleted
        if error is None:
            self.proven.add(part)
            self.errors.pop(part, None)
        else:
            self.errors[part] = error

    def take_delta(self, found: DeltaResult, loaded: Loaded) -> None:
        """Count what became of a delta read."""
        counts = self.counts
        counts.read += found.changed
        counts.decoded += loaded.decoded
        counts.unusable += loaded.unusable
        counts.drifted += loaded.drifted
        counts.applied += loaded.applied
        counts.missed_by_feed += loaded.applied.changed
        self.looked_at.update(found.looked_at)
        for asset_type, error in found.errors.items():
            self.late[found.scope, asset_type, ContentType.RESOURCE.value] = error


def outcome_of(store: Store, tally: Tally, *, written: int, drift: dict[str, Any], now: datetime) -> LayerOutcome:
    """The outcome of a sync whose attempts are over.

    Args:
        written: Parquet files of the day's picture.
        drift: the figures of ``terraform_drift``.
    """
    with store.read() as connection:
        kinds = assets.count_existing(connection)
        ledger = coverage.summary(connection, now=now, ttl=CACHE_TTL)
        open_findings = findings.count_open(connection)
        read_ns = {
            (row.scope, row.asset_type, row.content_type): row.complete_read_ns
            for row in connection.execute(
                sa.select(coverage_table).where(coverage_table.c.complete_read_ns.is_not(None))
            )
        }
    as_of = from_ns(min(read_ns.values())) if read_ns else None
    total, counts, errors = sum(kinds.values()), tally.counts, tally.said
    oldest = to_ns(now - CACHE_TTL)
    from_cache = {part for part, ns in read_ns.items() if part not in tally.proven and ns < oldest}
    from_cache |= read_ns.keys() & (tally.errors.keys() | tally.late.keys() | tally.waiting.keys())
    return LayerOutcome(
        items_synced=total,
        items_changed=counts.applied.changed,
        as_of=as_of,
        status=Status.PARTIAL if errors else Status.SUCCESS,
        errors=tuple(merged(errors)),
        from_cache=_RESTS_ON_ALL_PARTS if from_cache else frozenset(),
        details={
            "resources": {
                "count": total,
                "read": counts.read,
                "decoded": counts.decoded,
                "created": counts.applied.created,
                "updated": counts.applied.updated,
                "deleted": counts.applied.deleted,
                "missing_once": counts.missing,
                "missed_by_feed": counts.missed_by_feed,
                "unusable": counts.unusable,
                "new_fields": counts.drifted,
                "parquet_files_written": written,
            },
            "coverage": {
                "status": ledger.status.value,
                "complete": ledger.complete,
                "partial": ledger.partial,
                "stale": ledger.stale,
                "unknown": ledger.unknown,
                "read_in_full": counts.listed,
                "read_by_export": counts.exported,
                **_planned(tally),
                "exports_under_way": list(tally.under_way),
                "calls": counts.calls,
            },
            "findings": {"open": open_findings},
            "infrastructure_state": {
                "asset_types": len(kinds),
                "as_of": None if as_of is None else as_of.isoformat(),
            },
            "terraform_drift": drift,
        },
    )


def _planned(tally: Tally) -> dict[str, Any]:
    """What the attempt planned; of what is listed after an export was refused, the plan counts that came first."""
    first = tally.plans[0] if tally.plans else None
    skipped = {skip.part for plan in tally.plans for skip in plan.skipped}
    return {
        "read_by_delta": len(tally.looked_at),
        "not_due": len(skipped - tally.proven),
        "rotation_minutes": None if first is None else round(first.rotation_minutes, 1),
        "proof_age_attainable": None if first is None else first.proof_age_attainable,
    }


def merged(errors: list[SyncError]) -> list[str]:
    """One line per distinct failure; failures that differ only in what they struck share a line."""
    groups: dict[tuple[str, str], list[SyncError]] = {}
    for error in errors:
        groups.setdefault((error.reason.value, error.remedy), []).append(error)
    return [
        str(group[0]) if len(group) == 1 else f"{group[0]} (and {len(group) - 1} more parts alike)"
        for group in groups.values()
    ]
