"""What asks for a sync of the inventory, and when it is settled: as soon as what it is about was looked at since, or
cannot be looked at for a reason that does not pass by itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

import sqlalchemy as sa

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.drift.mapping import ASSET_TYPES
from lz_sync_dagster.sync.errors import TRANSIENT_REASONS, Reason
from lz_sync_dagster.sync.inventory.outcome import Tally
from lz_sync_dagster.sync.state.observation import ContentType
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.store import Store, inbox, part_reads
from lz_sync_dagster.sync.store.inbox import Delivery
from lz_sync_dagster.sync.store.part_reads import PartState
from lz_sync_dagster.sync.timing import to_ns

#: The event of a request for a read of everything.
FULL_READ = "full_read"
#: The event of a request that the git layer makes.
TERRAFORM_CHANGE = "terraform_change"


def request_full_read(connection: sa.Connection, *, actor: str, key: str, now: datetime) -> None:
    """Ask that the next sync reads every part in full, whatever the quota. ``key`` names the request."""
    inbox.request(connection, LayerId.API, key=key, event=FULL_READ, actor=actor, commit=None, now=now)


def before(store: Store, moment: datetime) -> list[Delivery]:
    """What asked for a sync before a moment; what came since waits for the next one."""
    with store.read() as connection:
        return [request for request in inbox.pending(connection, LayerId.API) if request.asked_at <= moment]


def full_read_ns(asked: Sequence[Delivery]) -> int:
    """When somebody last asked for a read of everything; 0: nobody did."""
    return max((to_ns(request.asked_at) for request in asked if request.event == FULL_READ), default=0)


def settled(
    connection: sa.Connection, asked: Sequence[Delivery], parts: Collection[Part], tally: Tally
) -> list[Delivery]:
    """The requests that a sync has settled, by what became of its parts."""
    if not asked:
        return []
    states = part_reads.states(connection, list(parts))
    return [request for request in asked if all(_is_settled(request, state, tally) for state in states)]


def _is_settled(request: Delivery, state: PartState, tally: Tally) -> bool:
    part, asked_ns = state.part, to_ns(request.asked_at)
    if request.event == FULL_READ:
        looked_at = part in tally.listed or (state.complete_read_ns or -1) >= asked_ns
    elif request.event == TERRAFORM_CHANGE:
        if part[1] not in ASSET_TYPES or part[2] != ContentType.RESOURCE:
            return True
        newest = max(state.complete_read_ns or -1, state.delta_read_ns or -1)
        looked_at = part in tally.listed or part in tally.looked_at or newest >= asked_ns
    else:
        return True
    error = tally.errors.get(part) or tally.waiting.get(part) or tally.late.get(part)
    return looked_at or (error is not None and _stays(error.reason))


def _stays(reason: Reason) -> bool:
    """Whether another sync would come to the same."""
    return reason not in TRANSIENT_REASONS and reason is not Reason.NOT_READ_YET
