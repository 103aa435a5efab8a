"""From a signed delivery to the commit in the portal repository, through the real portal and Dagster's daemon."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from bench.harness import BenchError
from demo.faults import Faults
from demo.installation import CODE, DAEMON, PORTAL, Installation
from demo.landing_zone import DemoLandingZone
from demo.processes import Processes
from demo.repositories import commit_change, read_file
from demo.simulator import head_push
from lz_sync_dagster.sync.timing import utcnow

_START_SECONDS = 120.0
_ARRIVAL_SECONDS = 120.0
_POLL_SECONDS = 0.01
#: Deliveries come at any moment of the daemon's loop, which takes five seconds.
_LOOP_SECONDS = 5.0


def measure_deliveries(folder: Path, *, count: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Seconds from the answer to a delivery until its commit is in the portal repository: each, and the median.

    The first one, which loads the code, is not counted.
    """
    rng = random.Random(7)
    with (
        DemoLandingZone(folder, assets=200, faults=Faults(), clock=utcnow) as zone,
        Processes(zone.folder / "logs", zone.environment) as processes,
    ):
        home = zone.folder / "dagster"
        installation = Installation(processes, home, portal_port=zone.portal_port, seconds=_START_SECONDS)
        installation.start_and_wait([PORTAL, CODE])
        installation.start(DAEMON)
        seconds = []
        for number in range(count + 1):
            time.sleep(rng.uniform(0, _LOOP_SECONDS))
            seconds.append(_deliver(zone, processes, number))
            say(f"delivery {number}: {seconds[-1]:.2f} s")
    counted = [round(value, 3) for value in seconds[1:]]
    return {
        "delivery_to_commit_seconds": counted,
        "delivery_to_commit_median_s": round(statistics.median(counted), 3),
    }


def _deliver(zone: DemoLandingZone, processes: Processes, number: int) -> float:
    text = f"# Delivery {number}\n".encode()
    source, portal = zone.repositories.landing_zone, zone.repositories.portal
    commit_change(source, "docs/delivery.md", text, message=f"Delivery {number}", at=utcnow())
    status = zone.push(head_push(source))
    started = time.monotonic()
    if status != httpx.codes.ACCEPTED:
        raise BenchError(f"the portal answered {status} to a signed delivery")
    while read_file(portal, "docs/lz-reference/delivery.md") != text:
        processes.check()
        if time.monotonic() - started > _ARRIVAL_SECONDS:
            raise BenchError(f"delivery {number} did not arrive within {_ARRIVAL_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)
    return time.monotonic() - started
