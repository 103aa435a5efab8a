"""What pending deliveries ask Dagster for. Pure: the sensor passes in what it read and requests what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from lz_sync_dagster.sync.store.inbox import Delivery

CURSOR_VERSION = 1
#: Runs that one delivery may cause. After that it waits for the next delivery or for the schedule, either of which
#: settles it.
MAX_REQUESTS = 3
#: Delivery ids that a run's tag names; the inbox has them all.
TAGGED_DELIVERIES = 20


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One run to request. ``cursor`` is to be stored together with the request."""

    run_key: str
    tags: dict[str, str]
    cursor: str


def plan_runs(pending: Sequence[Delivery], *, running: bool, cursor: str | None) -> RunPlan | None:
    """At most one run for all pending deliveries, or ``None`` if there is nothing to request now.

    Args:
        pending: oldest first. They coalesce: a run reads the newest head, which settles them all, and is named by the
        newest.
        running: a run of the layer is queued or under way. It may have read the head before the newest delivery
            came, so that one stays pending and gets a run of its own afterwards.
        cursor: what the last `RunPlan` said, ``None`` at first.

    A delivery that is still pending although its run has ended (the run failed) gets another run under the key
    ``<id>#<n>``, up to `MAX_REQUESTS` runs.
    """
    if not pending or running:
        return None
    newest = pending[-1]
    last = _read_cursor(cursor)
    requests = int(last["requests"]) if last.get("delivery") == newest.delivery_id else 0
    if requests >= MAX_REQUESTS:
        return None
    ids = [delivery.delivery_id for delivery in pending]
    shown = ids[-TAGGED_DELIVERIES:]
    listed = ",".join(shown) + (f",… ({len(ids) - len(shown)} more)" if len(ids) > len(shown) else "")
    state = {"version": CURSOR_VERSION, "delivery": newest.delivery_id, "requests": requests + 1}
    return RunPlan(
        run_key=newest.delivery_id if requests == 0 else f"{newest.delivery_id}#{requests}",
        tags={
            "lz_sync/layer": "git",
            "lz_sync/triggered_by": f"webhook:{newest.delivery_id}",
            "lz_sync/deliveries": listed,
            "lz_sync/actor": newest.actor or "unknown",
        },
        cursor=orjson.dumps(state).decode(),
    )


def _read_cursor(cursor: str | None) -> dict[str, Any]:
    """The cursor's content; nothing for one of another version: run keys make the first request safe to repeat."""
    try:
        state = orjson.loads(cursor or "")
    except orjson.JSONDecodeError:
        return {}
    return state if isinstance(state, dict) and state.get("version") == CURSOR_VERSION else {}
