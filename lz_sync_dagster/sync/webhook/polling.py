"""The safety net for deliveries that never come: look up the landing zone's head, and see whether anybody told of it.

A head that is news asks for a git sync through the inbox, like a delivery. That it was missed is computed when somebody
asks (`sync.store.inbox.records`), since its delivery may just be late.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from lz_sync_dagster.config import RepositoryConfig, Settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.cursor import read_cursor, write_cursor
from lz_sync_dagster.sync.errors import SyncError
from lz_sync_dagster.sync.store import Store, inbox
from lz_sync_dagster.sync.store.alerts import raise_alert, resolve_alert

ALERT = "HeadPolling"
#: How long Dagster takes at most from one look at a sensor to the next.
TICK = timedelta(seconds=5)
_CURSOR_VERSION = 1


@dataclass(frozen=True, slots=True)
class Cursor:
    """When the head was last looked up (Unix seconds), and the head that was news then and waits for a second look."""

    polled: float = 0.0
    suspect: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the head came to, as a line, and the cursor to store."""

    said: str
    cursor: str


def why_not(settings: Settings) -> str | None:
    """Why the head is not polled at all, or ``None`` if it is."""
    if LayerId.WEBHOOK in settings.disabled_layers or LayerId.GIT in settings.disabled_layers:
        return "webhook or git_sync is switched off in the configuration"
    if not settings.sync_layers.webhook.head_poll_seconds:
        return "sync_layers.webhook.head_poll_seconds is 0: the head is not polled"
    if not settings.landing_zone.url:
        return "landing_zone.url is empty: there is no head to poll"
    return None


def is_due(cursor: str | None, every: timedelta, now: datetime) -> bool:
    """Whether it is time for a look.

    A head that is news is looked at twice, a tick apart, since its delivery may be seconds behind; so that this stays
    within ``every``, the first look comes two ticks early. An interval of less than three ticks has one look.
    """
    last = _read(cursor)
    if last.suspect is not None:
        return True
    return now.timestamp() - last.polled >= (every - 2 * TICK if _looks_twice(every) else every - TICK).total_seconds()


def poll_head(
    store: Store,
    remote_head: Callable[[], str],
    landing_zone: RepositoryConfig,
    *,
    cursor: str | None,
    every: timedelta,
    now: datetime,
) -> Look:
    """Look at the head, and ask for a git sync if it is news.

    Args:
        remote_head: returns the commit id that the landing zone's branch has now. A `SyncError` of it opens the alert
            `ALERT`, which the next look that works resolves.
    """
    subject = f"{landing_zone.name or 'landing_zone'} {landing_zone.branch}"
    try:
        head = remote_head()
    except SyncError as error:
        with store.write() as connection:
            raise_alert(connection, ALERT, subject, severity="warning", message=str(error), now=now)
        return Look(str(error), _write(Cursor(now.timestamp())))
    suspected = _read(cursor).suspect
    with store.read() as connection:
        news = inbox.is_news(connection, head)
        # Nobody told of the head of the look before either: a branch that keeps moving must not put it off for ever.
        is_second = suspected == head or (suspected is not None and inbox.is_news(connection, suspected))
    if news and _looks_twice(every) and not is_second:
        said, suspect = f"nobody told of {head} yet: looking again", head
    else:
        said, suspect = f"{head} is known", None
    with store.write() as connection:
        resolve_alert(connection, ALERT, subject, now=now)
        if news and suspect is None:
            ref = f"refs/heads/{landing_zone.branch}"
            found = inbox.insert_head(connection, head, repository=landing_zone.name, ref=ref, now=now)
            said = f"{head} was found by polling: {found}" if found else said
    return Look(said, _write(Cursor(now.timestamp(), suspect)))


def _looks_twice(every: timedelta) -> bool:
    return every >= 3 * TICK


def _read(cursor: str | None) -> Cursor:
    """The cursor; the first one for none, or for another version's."""
    return Cursor(**read_cursor(cursor, _CURSOR_VERSION))


def _write(cursor: Cursor) -> str:
    return write_cursor(_CURSOR_VERSION, **asdict(cursor))
