"""From the inbox to runs: what sensors of several layers share."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import dagster as dg

from lz_sync_dagster.defs.layer_schedule import is_syncing, why_not_yet
from lz_sync_dagster.layers import LayerId, layer
from lz_sync_dagster.sync.store import Store, inbox
from lz_sync_dagster.sync.timing import Clock
from lz_sync_dagster.sync.webhook.plan import RunPlan, plan_runs

#: How often a tick that waits looks at the inbox, in seconds.
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Asked:
    """What a look at the inbox came to: how many requests wait, and the run to request for them."""

    waiting: int
    running: bool
    plan: RunPlan | None

    @property
    def requests(self) -> list[dg.RunRequest]:
        """The run, as Dagster takes it."""
        return [dg.RunRequest(run_key=self.plan.run_key, tags=self.plan.tags)] if self.plan else []

    @property
    def why_nothing(self) -> str:
        """Why no run is requested."""
        if self.waiting and self.running:
            return f"{self.waiting} requests wait for the sync under way"
        if self.waiting:
            return f"{self.waiting} requests have had a run; the next one follows after a wait"
        return "nothing to request"


def look(instance: dg.DagsterInstance, cursor: str | None, layer_id: LayerId, store: Store, clock: Clock) -> Asked:
    """One look at what waits for a sync of a layer."""
    with store.read() as connection:
        waiting = inbox.pending(connection, layer_id)
    plan = plan_runs(waiting, running=False, cursor=cursor, now=clock(), layer=layer_id)
    if plan is None:
        return Asked(len(waiting), running=False, plan=None)
    job = f"{layer(layer_id).group}_job"
    running = is_syncing(layer_id, store, clock()) or why_not_yet(instance, job) is not None
    return Asked(len(waiting), running, None if running else plan)


def wait_for_run(
    look_now: Callable[[], Asked],
    *,
    seconds: float,
    monotonic: Callable[[], float] = time.monotonic,
    wait: Callable[[float], object] | None = None,
) -> Asked:
    """Look until there is a run to request, for about ``seconds``. No transaction is open meanwhile."""
    pause = wait or threading.Event().wait
    end = monotonic() + seconds
    while True:
        asked = look_now()
        if asked.plan is not None or monotonic() >= end:
            return asked
        pause(_POLL_SECONDS)
