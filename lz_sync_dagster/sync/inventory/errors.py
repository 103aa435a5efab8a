"""Google's errors, classified: what failed, on what, which role, API or quota is missing. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from google.api_core import exceptions as google

from lz_sync_dagster.sync.errors import Reason, SyncError

#: The role that reads everything this layer asks for.
VIEWER_ROLE = "roles/cloudasset.viewer"
_API = "cloudasset.googleapis.com"
#: What an argument that Google refuses is about, in its message or in the names of the fields that it names.
_PAGE_TOKEN = re.compile(r"page[ _]token")
_ASSET_TYPE = re.compile(r"asset[ _]?types?\b")


def classify(error: google.GoogleAPICallError | google.RetryError, *, scope: str, asset_type: str) -> SyncError:
    """Turn an error of the Cloud Asset client into a `SyncError` with its remedy."""
    where = f"{asset_type} in {scope}"
    message = " ".join(str(getattr(error, "message", error)).split())
    info = _error_info(error)
    reason = info.get("reason", "")

    if isinstance(error, google.PermissionDenied):
        if reason == "SERVICE_DISABLED" or "has not been used" in message or "it is disabled" in message:
            return SyncError(
                f"{_API} is not enabled ({message})",
                where=where,
                remedy=f"run 'gcloud services enable {_API}' in the project that calls it",
                reason=Reason.API_DISABLED,
            )
        if reason == "SECURITY_POLICY_VIOLATED" or "VPC Service Controls" in message:
            return SyncError(
                f"a VPC Service Controls perimeter denied it ({message})",
                where=where,
                remedy=f"allow {_API} for this identity in the perimeter's ingress rules",
                reason=Reason.PERMISSION_DENIED,
            )
        return SyncError(
            f"permission denied ({message})",
            where=where,
            remedy=f"grant {VIEWER_ROLE} on {scope} to the identity that runs lz-sync",
            reason=Reason.PERMISSION_DENIED,
        )
    if isinstance(error, google.Unauthenticated):
        return SyncError(
            f"not authenticated ({message})",
            where=where,
            remedy="renew the credentials: log in with 'gcloud auth application-default login', or check the identity",
            reason=Reason.UNAUTHENTICATED,
        )
    if isinstance(error, google.ResourceExhausted | google.TooManyRequests):
        return SyncError(
            f"quota exceeded ({message})",
            where=where,
            remedy="wait, read less often, or raise the Cloud Asset quota of the project that calls it",
            reason=Reason.QUOTA,
            retry_after=_retry_delay(error),
        )
    if isinstance(error, google.InvalidArgument | google.FailedPrecondition):
        about = f"{message} {' '.join(_fields(error))}".lower()
        if _PAGE_TOKEN.search(about):
            return SyncError(
                f"the page token expired ({message})",
                where=where,
                remedy="the read starts anew",
                reason=Reason.TOKEN_EXPIRED,
            )
        if _ASSET_TYPE.search(about):
            return SyncError(
                f"the asset type is not known to Cloud Asset Inventory ({message})",
                where=where,
                remedy="drop the endpoint from sync_layers.api_sync.endpoints; the other types are read",
                reason=Reason.UNKNOWN_TYPE,
            )
        return SyncError(
            f"Cloud Asset Inventory refused the request ({message})",
            where=where,
            remedy="check sync_layers.api_sync.scopes",
            reason=Reason.INVALID,
        )
    if isinstance(error, google.NotFound):
        return SyncError(
            f"not found ({message})",
            where=where,
            remedy="check sync_layers.api_sync.scopes",
            reason=Reason.NOT_FOUND,
        )
    if isinstance(error, google.DeadlineExceeded | google.GatewayTimeout | google.RetryError):
        return SyncError(
            f"timed out ({message})",
            where=where,
            remedy="it is tried again; raise sync_layers.api_sync.call_timeout_seconds if it stays",
            reason=Reason.TIMEOUT,
        )
    if isinstance(error, google.ServiceUnavailable | google.InternalServerError | google.Aborted | google.BadGateway):
        return SyncError(
            f"Cloud Asset Inventory is unavailable ({message})",
            where=where,
            remedy="it is tried again; look at the Google Cloud status page if it stays",
            reason=Reason.UNAVAILABLE,
        )
    return SyncError(
        f"{type(error).__name__} ({message})",
        where=where,
        remedy="look at the message; the last good copy is served meanwhile",
        reason=Reason.INTERNAL,
    )


def _error_info(error: Any) -> Mapping[str, str]:
    """The ``google.rpc.ErrorInfo`` of an error, as far as it carries one."""
    for detail in getattr(error, "details", None) or ():
        if type(detail).__name__ == "ErrorInfo":
            return {"reason": detail.reason, "domain": detail.domain}
    return {}


def _fields(error: Any) -> list[str]:
    """The fields that the ``google.rpc.BadRequest`` of an error names, as far as it carries one."""
    return [
        violation.field
        for detail in getattr(error, "details", None) or ()
        if type(detail).__name__ == "BadRequest"
        for violation in detail.field_violations
    ]


def _retry_delay(error: Any) -> float | None:
    """Seconds of the ``google.rpc.RetryInfo`` of an error, as far as it carries one."""
    for detail in getattr(error, "details", None) or ():
        if type(detail).__name__ == "RetryInfo":
            return float(detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9)
    return None
