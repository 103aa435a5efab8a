"""Errors of the domain: what failed, on what, and what to do about it. Nothing is caught here."""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class Reason(StrEnum):
    """Why something is not known or did not work: a closed vocabulary, also used by the coverage ledger."""

    PERMISSION_DENIED = "permission_denied"
    UNAUTHENTICATED = "unauthenticated"
    API_DISABLED = "api_disabled"
    QUOTA = "quota"
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    UNKNOWN_TYPE = "unknown_type"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105
    NOT_FOUND = "not_found"
    INVALID = "invalid"
    CONFLICT = "conflict"
    BUSY = "busy"
    NOT_READ_YET = "not_read_yet"
    NOT_CONFIGURED = "not_configured"
    PRUNED = "pruned"
    BREAKER_OPEN = "breaker_open"
    INTERNAL = "internal"


#: Reasons that another attempt may cure. All others fail at once.
TRANSIENT_REASONS = frozenset({Reason.QUOTA, Reason.TIMEOUT, Reason.UNAVAILABLE, Reason.TOKEN_EXPIRED, Reason.CONFLICT})


class SyncError(Exception):
    """A failure with its remedy.

    Args:
        what: what failed, as a short sentence without a full stop.
        where: the thing it failed on (a URL, a resource name, a file and key).
        remedy: what the reader can do.
        reason: one of `Reason`.
        transient: overrides whether another attempt may help; by default the reason decides.
        retry_after: seconds that the other side asked us to wait, if it did.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str,
        remedy: str,
        reason: Reason,
        transient: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        self.reason = reason
        self.transient = reason in TRANSIENT_REASONS if transient is None else transient
        self.retry_after = retry_after
        super().__init__(f"{where}: {what}; {remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        """An error travels between processes as it is, whatever its type asks for when it is made."""
        return (_as_it_was, (type(self), self.args, self.__dict__))


def _as_it_was(kind: type[SyncError], args: tuple[Any, ...], attributes: dict[str, Any]) -> SyncError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


class LayerBusy(SyncError):
    """The layer is already syncing: a layer is single-flight, across processes."""

    def __init__(self, layer: str, holder: str) -> None:
        super().__init__(
            "is already syncing",
            where=f"layer {layer}",
            remedy=f"wait for {holder} to finish",
            reason=Reason.BUSY,
            transient=False,
        )
