"""The one retry policy: waits of 5, 30 and 300 seconds, so four attempts, for transient errors only (section 7 of the
architecture document). `runs.attempt` applies it for every layer; the command line sleeps, Dagster asks for a step
retry.
"""

from __future__ import annotations

from lz_sync_dagster.sync.errors import SyncError

#: Seconds to wait before the second, third and fourth attempt.
RETRY_WAITS: tuple[float, ...] = (5.0, 30.0, 300.0)


def next_wait(error: BaseException, failures: int, waits: tuple[float, ...] = RETRY_WAITS) -> float | None:
    """Seconds to wait before another attempt, or ``None`` if there is none.

    Args:
        error: what the last attempt raised.
        failures: attempts that failed so far, the last one included (1 or more).
        waits: the waits; their number is the number of retries.

    A wait that the other side asked for (`SyncError.retry_after`) is honoured where it is the longer one, up to the
    longest wait of the policy.
    """
    if not isinstance(error, SyncError) or not error.transient or failures > len(waits):
        return None
    wait = waits[failures - 1]
    if error.retry_after is not None:
        wait = min(max(wait, error.retry_after), max(waits))
    return wait
