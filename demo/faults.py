"""Faults that the demo can show on demand, as data. What one looks like is the part of the server, or the person, that
shows it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from lz_sync_dagster.sync.errors import Reason, SyncError

#: Every fault, by the name that ``--fault`` takes.
FAULTS: dict[str, str] = {
    "asset_denied": "reading Cloud SQL instances is denied: the role roles/cloudasset.viewer is missing there",
    "asset_quota": "the first asset reads get 429 RESOURCE_EXHAUSTED and are told when to come back",
    "asset_expired_token": "one page token has expired in the middle of a listing",
    "asset_unknown_type": "Cloud Asset does not know the type firestore.googleapis.com/Database",
    "asset_slow_page": "each page of assets takes two seconds",
    "asset_unavailable": "the first asset reads get 503 UNAVAILABLE",
    "asset_denied_folder": "the top folders are read instead of the organization, and the first of them is denied",
    "asset_api_disabled": "the Cloud Asset API is not enabled in the project that calls it (SERVICE_DISABLED)",
    "asset_perimeter": "a VPC Service Controls perimeter keeps the reader out (SECURITY_POLICY_VIOLATED)",
    "asset_page_timeout": "one page of assets never comes: the reader's deadline ends the wait",
    "asset_wire_order": "each listing tells the same content with its map entries in another order",
    "export_fails": "an export fails after some of its types were written",
    "export_hangs": "an export never ends",
    "export_truncated": "an export leaves an object that is cut off in the middle of a line",
    "feed_duplicate": "each feed message is delivered twice",
    "feed_reorder": "feed messages overtake each other",
    "feed_lose": "every third feed message is lost",
    "webhook_lost": "GitHub cannot connect for the first deliveries: the repair sensor asks for them again",
    "webhook_missing": "GitHub sends no webhook: polling finds each new head",
    "git_denied": "the git token may read but not push, as soon as there was a first sync",
    "portal_edited": "after the first sync, somebody edits a synced file in the portal repository: it is put back",
    "pmo_invalid": "after the first sync, somebody commits a pmo.yaml that is no YAML: the values of before are shown",
}

#: How many calls a fault hits before it is over; the others last until they are switched off.
CALLS: dict[str, int] = {
    "asset_quota": 2,
    "asset_expired_token": 1,
    "asset_unavailable": 2,
    "asset_page_timeout": 1,
    "export_fails": 1,
    "export_hangs": 1,
    "export_truncated": 1,
    "webhook_lost": 3,
}
#: Faults that go wrong with something that was right before.
AFTER_FIRST_SYNC = frozenset({"git_denied", "portal_edited", "pmo_invalid"})


@dataclass
class Faults:
    """Which faults are on, shared by servers and threads.

    Attributes:
        denied_types: asset types (or their beginnings) that ``asset_denied`` hits.
        denied_scopes: scopes (``folders/123``) that ``asset_denied`` hits, whatever the type.
        denied_folders: folders that ``asset_denied_folder`` hits; without any, all.
        denied_contents: content types that ``asset_denied`` hits.
        unknown_types: asset types that ``asset_unknown_type`` makes unknown.
        retry_after: seconds that ``asset_quota`` asks callers to wait.
        page_delay: seconds that ``asset_slow_page`` takes.
    """

    denied_types: tuple[str, ...] = ("sqladmin.googleapis.com/",)
    denied_scopes: tuple[str, ...] = ()
    denied_folders: tuple[str, ...] = ()
    denied_contents: tuple[str, ...] = ("RESOURCE", "IAM_POLICY", "ORG_POLICY", "RELATIONSHIP")
    unknown_types: tuple[str, ...] = ("firestore.googleapis.com/Database",)
    retry_after: float = 1.0
    page_delay: float = 2.0
    _left: dict[str, int | None] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def on(self, name: str, calls: int | None = None) -> None:
        """Switch a fault on: for `calls` calls, by default as many as `CALLS` says, else until it is switched off."""
        _known(name)
        with self._lock:
            self._left[name] = CALLS.get(name) if calls is None else calls

    def off(self, name: str) -> None:
        """Switch a fault off."""
        _known(name)
        with self._lock:
            self._left.pop(name, None)

    def active(self, name: str) -> bool:
        """Whether the fault is on."""
        _known(name)
        with self._lock:
            return name in self._left

    def take(self, name: str) -> bool:
        """Whether the fault hits this call; one that lasts for a number of calls has one less left."""
        _known(name)
        with self._lock:
            if name not in self._left:
                return False
            left = self._left[name]
            if left is None:
                return True
            if left <= 1:
                del self._left[name]
            else:
                self._left[name] = left - 1
            return left > 0


def parse_faults(names: Iterable[str]) -> Faults:
    """The faults that the command line names, switched on.

    Raises:
        SyncError: for a name that is not one of `FAULTS`.
    """
    faults = Faults()
    for name in names:
        faults.on(name)
    return faults


def _known(name: str) -> None:
    if name not in FAULTS:
        raise SyncError(
            "is not a fault", where=f"--fault {name}", remedy=f"choose from {', '.join(FAULTS)}", reason=Reason.INVALID
        )
