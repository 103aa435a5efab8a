"""The deliveries of a webhook, as GitHub's log has them: which failed, and sending one again.

GitHub never resends by itself, and keeps its log for three days:
https://docs.github.com/en/webhooks/testing-and-troubleshooting-webhooks/redelivering-webhooks
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.github.api import Api, split_name
from lz_sync_dagster.sync.timing import from_ns, parse_ns

#: How long after a delivery GitHub can send it again (seven days on GitHub Enterprise Server).
REDELIVERY_WINDOW = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a delivery. ``status_code`` is ``None`` while it is under way; ``status``: GitHub's words."""

    id: int
    guid: str
    event: str
    action: str | None
    delivered_at: datetime
    status: str
    status_code: int | None
    repository_id: int | None = None

    @property
    def succeeded(self) -> bool:
        return self.status_code is not None and 200 <= self.status_code < 300


@dataclass(frozen=True, slots=True)
class HookDelivery:
    """What happened, with all attempts to tell us of it, newest first (at least one). The ``guid`` is the
    ``X-GitHub-Delivery`` of each."""

    attempts: tuple[Attempt, ...]

    @property
    def newest(self) -> Attempt:
        return self.attempts[0]

    @property
    def guid(self) -> str:
        return self.newest.guid

    @property
    def event(self) -> str:
        return self.newest.event

    @property
    def delivered_at(self) -> datetime:
        """The first attempt that is listed."""
        return self.attempts[-1].delivered_at

    @property
    def succeeded(self) -> bool:
        return any(attempt.succeeded for attempt in self.attempts)

    @property
    def failed(self) -> bool:
        """No attempt succeeded, and none is under way."""
        return not self.succeeded and all(attempt.status_code is not None for attempt in self.attempts)


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook whose deliveries can be read: of a repository, or of the App that the `Api` is (its JWT)."""

    path: str
    names: dict[str, Any]
    permission: str

    @classmethod
    def of_repository(cls, repository: str, hook_id: int) -> Hook:
        names = {**split_name(repository), "hook": hook_id}
        return cls("/repos/{owner}/{repo}/hooks/{hook}/deliveries", names, "repository_hooks")

    @classmethod
    def of_app(cls) -> Hook:
        return cls("/app/hook/deliveries", {}, "the App's own JWT")

    def deliveries(self, api: Api, since: datetime) -> list[HookDelivery]:
        """All deliveries with an attempt at or after ``since``, by their newest attempt, newest first. Reads as many
        pages as it takes."""
        grouped: dict[str, list[Attempt]] = {}
        for item in api.items(self.path, needs=f"{self.permission}: read", **self.names):
            attempt = _attempt(item)
            if attempt.delivered_at < since:
                break
            grouped.setdefault(attempt.guid, []).append(attempt)
        return [HookDelivery(tuple(attempts)) for attempts in grouped.values()]

    def redeliver(self, api: Api, attempt_id: int) -> None:
        """Ask GitHub to send a delivery again. It does so soon, under the same guid."""
        path = self.path + "/{attempt}/attempts"
        api.post(path, b"", needs=f"{self.permission}: write", attempt=attempt_id, **self.names)


def repository_id(api: Api, repository: str) -> int:
    """GitHub's number of a repository, which is how a delivery of an App names it."""
    return int(api.get("/repos/{owner}/{repo}", needs="metadata: read", **split_name(repository))["id"])


def _attempt(item: Any) -> Attempt:
    try:
        code = item["status_code"]
        return Attempt(
            id=int(item["id"]),
            guid=str(item["guid"]),
            event=str(item["event"]),
            action=item.get("action"),
            delivered_at=from_ns(parse_ns(item["delivered_at"])),
            status=str(item["status"]),
            status_code=None if code is None else int(code),
            repository_id=item.get("repository_id"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SyncError(
            f"lists a delivery that cannot be read ({type(error).__name__})",
            where="GitHub's deliveries",
            remedy="check that github.api_url is GitHub's",
            reason=Reason.INVALID,
        ) from error
