"""What pending requests ask Dagster for. Pure: the sensor passes in what it read and requests what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.cursor import read_cursor, write_cursor
from lz_sync_dagster.sync.store.inbox import HEAD_POLL, Delivery

CURSOR_VERSION = 2
#: How long deliveries that a run did not settle wait for the next one: after the first run, the second … The last one
#: holds for all that follow.
REQUEST_WAITS = (timedelta(minutes=1), timedelta(minutes=2), timedelta(minutes=10), timedelta(minutes=30))
#: Delivery ids that a run's tag names; the inbox has them all.
TAGGED_DELIVERIES = 20


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One run to request. ``cursor`` is to be stored together with the request."""

    run_key: str
    tags: dict[str, str]
    cursor: str


def plan_runs(
    pending: Sequence[Delivery],
    *,
    running: bool,
    cursor: str | None,
    now: datetime,
    layer: LayerId = LayerId.GIT,
) -> RunPlan | None:
    """At most one run of ``layer`` for all its pending deliveries, or ``None`` if there is nothing to request now.

    Args:
        pending: oldest first. They coalesce: a run reads the newest head, which settles them all, and is named by the
        newest.
        running: a run of the layer is queued or under way. It may have read the head before the newest delivery
            came, so that one stays pending and gets a run of its own afterwards.
        cursor: what the last `RunPlan` said, ``None`` at first.

    Deliveries that are still pending although their run has ended (it failed, or the head it read is older than they
    are) get another run after each of `REQUEST_WAITS`. A new delivery, and one that is sent again, gets one at once. A
    run key is never used twice: it is the delivery's id, or ``<id>#<n>`` if that had its turn.
    """
    if not pending or running:
        return None
    newest = pending[-1]
    last = read_cursor(cursor, CURSOR_VERSION)  # without one, run keys make the first request safe to repeat
    asked = max(delivery.asked_at for delivery in pending).isoformat()
    repeats = int(last["repeats"]) + 1 if last.get("asked") == asked else 0
    if repeats:
        wait = REQUEST_WAITS[min(repeats, len(REQUEST_WAITS)) - 1]
        if now - datetime.fromisoformat(last["at"]) < wait:
            return None
    requests = int(last.get("requests", 0))
    is_first = newest.id > int(last.get("newest", 0))
    ids = [delivery.delivery_id for delivery in pending]
    shown = ids[-TAGGED_DELIVERIES:]
    listed = ",".join(shown) + (f",… ({len(ids) - len(shown)} more)" if len(ids) > len(shown) else "")
    return RunPlan(
        run_key=newest.delivery_id if is_first else f"{newest.delivery_id}#{requests}",
        tags={
            "lz_sync/layer": layer.value,
            "lz_sync/triggered_by": asked_by(newest),
            "lz_sync/deliveries": listed,
            "lz_sync/actor": newest.actor or "unknown",
        },
        cursor=write_cursor(
            CURSOR_VERSION,
            newest=max(newest.id, int(last.get("newest", 0))),
            requests=requests + 1,
            asked=asked,
            repeats=repeats,
            at=now.isoformat(),
        ),
    )


def asked_by(delivery: Delivery) -> str:
    """Who asks, as a run's tag says it: ``webhook:<delivery>``, ``poll:<sha>``, or ``git:<sha>`` for a change that the
    git layer found."""
    if delivery.layer is not LayerId.GIT:
        return f"git:{delivery.commit_claim or delivery.delivery_id}"
    if delivery.event == HEAD_POLL:
        return f"poll:{delivery.commit_claim}"
    return f"webhook:{delivery.delivery_id}"
