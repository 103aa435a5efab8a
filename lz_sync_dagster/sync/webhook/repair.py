"""The repair of deliveries: GitHub never resends one that failed, so its log is read and it is asked to.

What to ask for is decided in `plan_repairs`, which is pure. `repair_deliveries` does it and keeps the account
(`sync.store.delivery_repairs`); `watch_deliveries` is that for a sensor, with an alert when it does not work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from lz_sync_dagster.config import Settings, WebhookConfig
from lz_sync_dagster.sync.cursor import read_cursor, write_cursor
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.github.api import Api, GithubError
from lz_sync_dagster.sync.github.credentials import has_credential, open_api, open_app_api
from lz_sync_dagster.sync.github.deliveries import REDELIVERY_WINDOW, Hook, HookDelivery, repository_id
from lz_sync_dagster.sync.store import Store, delivery_repairs
from lz_sync_dagster.sync.store.alerts import raise_alert, resolve_alert
from lz_sync_dagster.sync.store.delivery_repairs import Repair, RepairOutcome
from lz_sync_dagster.sync.timing import Clock

#: How long after its last failure a delivery is asked for again: at once, then after longer and longer waits.
REPAIR_WAITS = (
    timedelta(0),
    timedelta(minutes=1),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=8),
)
#: How long a request has to show an effect in the log before there is another, or the delivery is given up. Also the
#: wait after a request that GitHub refused.
LAST_WAIT = timedelta(minutes=5)
#: How far behind its deliveries GitHub's log may be ("a few minutes").
LOG_LAG = timedelta(minutes=15)
#: How many deliveries are asked for at once; the others follow at the next time.
MAX_REQUESTS = 50

#: What GitHub says of every call: no use in asking for the next delivery.
_OF_ALL_CALLS = frozenset({Reason.QUOTA, Reason.UNAUTHENTICATED, Reason.TOKEN_EXPIRED})

ALERT = "DeliveryRepair"
CURSOR_VERSION = 1


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """``redeliver``: each delivery with its row to write before asking. ``settled``: rows that change without."""

    redeliver: tuple[tuple[HookDelivery, Repair], ...]
    settled: tuple[Repair, ...]


@dataclass(frozen=True, slots=True)
class Repaired:
    """What one look at GitHub's log did, by delivery id. ``waiting``: failed, and asked for later or already.
    ``seen_until``: up to when the log needs no second look."""

    requested: tuple[str, ...]
    delivered: tuple[str, ...]
    given_up: tuple[str, ...]
    waiting: int
    seen_until: datetime

    @property
    def said(self) -> str:
        """One line on it."""
        parts = [
            f"{len(ids)} {word}"
            for ids, word in (
                (self.requested, "asked for again"),
                (self.delivered, "delivered after all"),
                (self.given_up, "given up"),
            )
            if ids
        ]
        if self.waiting:
            parts.append(f"{self.waiting} wait")
        return "failed deliveries: " + (", ".join(parts) or "none")


@dataclass(frozen=True, slots=True)
class Watch:
    """What a sensor says, and its next cursor."""

    said: str
    cursor: str | None


def plan_repairs(
    deliveries: Iterable[HookDelivery],
    known: Mapping[str, Repair],
    now: datetime,
    *,
    config: WebhookConfig,
    arrived: Collection[str] = (),
    window: timedelta = REDELIVERY_WINDOW,
) -> RepairPlan:
    """Which deliveries to ask for again, and which repairs have come to an end. Pure.

    Args:
        deliveries: GitHub's log, since the last look at least.
        known: the repairs so far, by delivery id.
        config: what is wanted; nobody asks for the rest.
        arrived: delivery ids that the inbox has. These are never asked for, whatever GitHub says: an answer that came
            too late counts as a failure there.
        window: how long after a delivery GitHub can send it again.

    A delivery is asked for after each of `REPAIR_WAITS` since its last failure, then given up. A request that shows no
    effect in the log is not repeated before `LAST_WAIT`. One that was given up
    and comes all the same (somebody pressed the button) counts as delivered.
    """
    redeliver: list[tuple[HookDelivery, Repair]] = []
    settled: list[Repair] = []
    listed: set[str] = set()
    for delivery in sorted(deliveries, key=lambda one: one.delivered_at):
        listed.add(delivery.guid)
        repair = known.get(delivery.guid)
        if repair is not None and repair.outcome is RepairOutcome.DELIVERED:
            continue
        if delivery.succeeded or delivery.guid in arrived:
            if repair is not None:
                settled.append(replace(repair, outcome=RepairOutcome.DELIVERED, settled_at=now))
            continue
        if not delivery.failed or (repair is None and not is_wanted(delivery, config)):
            continue
        if repair is None:
            first = delivery.delivered_at
            repair = Repair(delivery.guid, delivery.event, first, "", 0, first, RepairOutcome.REQUESTED)
        if repair.outcome is RepairOutcome.GIVEN_UP:
            continue
        unanswered = repair.requested_at > delivery.newest.delivered_at  # refused, or not in the log yet
        if not (unanswered and repair.failure):
            repair = replace(repair, failure=_failure(delivery))
        waited = now - max(repair.requested_at, delivery.newest.delivered_at)
        if now - repair.delivered_at >= window or (repair.attempts >= len(REPAIR_WAITS) and waited >= LAST_WAIT):
            settled.append(replace(repair, outcome=RepairOutcome.GIVEN_UP, settled_at=now))
        elif repair.attempts < len(REPAIR_WAITS) and waited >= max(
            REPAIR_WAITS[repair.attempts], LAST_WAIT if unanswered else timedelta(0)
        ):
            redeliver.append((delivery, replace(repair, attempts=repair.attempts + 1, requested_at=now)))
    for guid, repair in known.items():
        if guid in listed or repair.outcome is not RepairOutcome.REQUESTED:
            continue
        if guid in arrived:
            settled.append(replace(repair, outcome=RepairOutcome.DELIVERED, settled_at=now))
        elif now - repair.delivered_at >= window:  # GitHub has forgotten it
            settled.append(replace(repair, outcome=RepairOutcome.GIVEN_UP, settled_at=now))
    return RepairPlan(tuple(redeliver), tuple(settled))


def is_wanted(delivery: HookDelivery, config: WebhookConfig) -> bool:
    """Whether the receiver has a use for a delivery, as far as GitHub's log tells (it names no branch)."""
    if delivery.event not in config.events:
        return False
    if delivery.event == "repository_dispatch":
        return delivery.newest.action in config.dispatch_types
    return delivery.event != "pull_request" or delivery.newest.action == "closed"


def repair_deliveries(
    settings: Settings, store: Store, api: Api, clock: Clock, *, seen_until: datetime | None = None
) -> Repaired:
    """Read GitHub's log since the last look, ask for what failed, and keep the account.

    Args:
        api: for `hook_of` (settings).
        seen_until: what the last look returned; ``None`` reads as far back as GitHub can resend.

    Raises:
        SyncError: GitHub's log cannot be read, or it refused a request. The others were made all the same, unless it
            refuses all calls, and are in the account; a refused one is in it without counting as an attempt.
    """
    now = clock()
    oldest = now - REDELIVERY_WINDOW
    with store.read() as connection:
        known = delivery_repairs.since(connection, oldest)
    open_since = [one.delivered_at for one in known.values() if one.outcome is RepairOutcome.REQUESTED]
    hook = hook_of(settings)
    listed = hook.deliveries(api, max(oldest, min([(seen_until or oldest) - LOG_LAG, *open_since])))
    if settings.sync_layers.webhook.hook == "app":
        listed = _of_our_repositories(listed, settings, clock)
    with store.read() as connection:
        arrived = delivery_repairs.arrived(connection, {*known, *(one.guid for one in listed if not one.succeeded)})
    plan = plan_repairs(listed, known, now, config=settings.sync_layers.webhook, arrived=arrived)
    settled = list(plan.settled)
    with store.write() as connection:
        delivery_repairs.put(connection, settled)
    requested: list[str] = []
    refusal: GithubError | None = None
    for delivery, repair in plan.redeliver[:MAX_REQUESTS]:
        with store.write() as connection:  # before asking: also a crash leaves the number of requests bounded
            delivery_repairs.put(connection, [repair])
        try:
            hook.redeliver(api, delivery.newest.id)
        except GithubError as error:
            failure = f"{_failure(delivery)}; {error.what}"
            if error.status is not None and error.reason in (Reason.NOT_FOUND, Reason.INVALID):
                refused = replace(repair, failure=failure, outcome=RepairOutcome.GIVEN_UP, settled_at=now)
                settled.append(refused)
            else:  # no attempt: GitHub sent nothing
                refused = replace(repair, failure=failure, attempts=repair.attempts - 1)
                refusal = refusal or error
            with store.write() as connection:
                delivery_repairs.put(connection, [refused])
            if error.reason in _OF_ALL_CALLS or error.status is None:
                break
        else:
            requested.append(delivery.guid)
    if refusal is not None:
        raise refusal
    after = {
        **known,
        **{one.delivery_id: one for _, one in plan.redeliver},
        **{one.delivery_id: one for one in settled},
    }
    left_out = [delivery.delivered_at for delivery, _ in plan.redeliver[MAX_REQUESTS:]]
    return Repaired(
        requested=tuple(requested),
        delivered=_ids(settled, RepairOutcome.DELIVERED),
        given_up=_ids(settled, RepairOutcome.GIVEN_UP),
        waiting=len(_ids(after.values(), RepairOutcome.REQUESTED)),
        seen_until=min([now, *left_out]),
    )


def hook_of(settings: Settings) -> Hook:
    """The webhook whose deliveries are repaired.

    Raises:
        SyncError: none is configured.
    """
    hook = settings.sync_layers.webhook.hook
    if hook is None:
        raise SyncError(
            "is not set",
            where="sync_layers.webhook.hook",
            remedy="set it to the id of the landing zone's webhook, or to app",
            reason=Reason.INVALID,
        )
    return Hook.of_app() if hook == "app" else Hook.of_repository(settings.landing_zone.name, hook)


def open_hook_api(settings: Settings, *, clock: Clock) -> Api:
    """GitHub's API for `hook_of`. Close it, or use it in a ``with`` statement."""
    if settings.sync_layers.webhook.hook == "app":
        return open_app_api(settings, clock=clock)
    return open_api(settings, settings.landing_zone.name, {"repository_hooks": "write"}, clock=clock)


def why_not(settings: Settings) -> str | None:
    """Why there is nothing to repair deliveries of, or with; ``None`` if there is."""
    if not settings.sync_layers.webhook.enabled:
        return "webhook is switched off in the configuration"
    if settings.sync_layers.webhook.hook is None:
        return "sync_layers.webhook.hook is not set: failed deliveries are not asked for again"
    if not has_credential(settings):
        return "no credential for GitHub's API is set (github.app_id with its key, or LZ_SYNC_GITHUB_TOKEN)"
    return None


def watch_deliveries(settings: Settings, store: Store, *, clock: Clock, cursor: str | None) -> Watch:
    """`repair_deliveries` for a sensor: what it says, with an alert while it fails or a delivery was given up.

    While GitHub limits calls, nothing is asked until the instant that it named.
    """
    if (reason := why_not(settings)) is not None:
        return Watch(reason, cursor)
    state = read_cursor(cursor, CURSOR_VERSION)  # without one, a look too far back does no harm
    now = clock()
    seen, not_before = (
        datetime.fromisoformat(state[key]) if state.get(key) else None for key in ("seen", "not_before")
    )
    if not_before is not None and now < not_before:
        return Watch(f"GitHub limits calls until {not_before:%H:%M:%S} UTC", cursor)
    try:
        with open_hook_api(settings, clock=clock) as api:
            done = repair_deliveries(settings, store, api, clock, seen_until=seen)
    except SyncError as error:
        with store.write() as connection:
            raise_alert(connection, ALERT, "github", severity="warning", message=str(error), now=now)
        until = now + timedelta(seconds=error.retry_after) if error.retry_after else None
        return Watch(str(error), write_cursor(CURSOR_VERSION, seen=seen, not_before=until))
    with store.write() as connection:
        resolve_alert(connection, ALERT, "github", now=now)
        lost = delivery_repairs.since(connection, now - REDELIVERY_WINDOW).values()
        given_up = [one for one in lost if one.outcome is RepairOutcome.GIVEN_UP]
        if given_up:
            newest = max(given_up, key=lambda one: one.delivered_at)
            message = (
                f"GitHub's webhook: {len(given_up)} deliveries of the last 3 days could not be repaired, the newest is "
                f"{newest.delivery_id} ({newest.failure}); mend what the failure names, then press Redeliver there"
            )
            raise_alert(connection, ALERT, "deliveries", severity="warning", message=message, now=now)
        else:
            resolve_alert(connection, ALERT, "deliveries", now=now)
    return Watch(done.said, write_cursor(CURSOR_VERSION, seen=done.seen_until, not_before=None))


def _of_our_repositories(listed: list[HookDelivery], settings: Settings, clock: Clock) -> list[HookDelivery]:
    """An App's log is of all repositories that it is installed on."""
    if all(one.succeeded for one in listed):
        return listed
    names = {repository.name for repository in (settings.landing_zone, settings.portal_repository) if repository.name}
    ours = set()
    for name in sorted(names):
        with open_api(settings, name, {"metadata": "read"}, clock=clock) as api:
            ours.add(repository_id(api, name))
    return [one for one in listed if one.newest.repository_id in ours]


def _failure(delivery: HookDelivery) -> str:
    """What GitHub says of the newest attempt."""
    return f"{delivery.newest.status} ({delivery.newest.status_code})"


def _ids(repairs: Iterable[Repair], outcome: RepairOutcome) -> tuple[str, ...]:
    return tuple(one.delivery_id for one in repairs if one.outcome is outcome)
