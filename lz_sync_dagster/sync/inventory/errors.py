"""Google's errors, classified: what failed, on what, which role, API, quota or perimeter is missing. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.api_core import exceptions as google

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.store.quota import Quota

#: The role that reads everything this layer asks for: it has every permission of `permission_of`.
VIEWER_ROLE = "roles/cloudasset.viewer"
#: The role that may make calls on a project's account: every call needs it on the quota project.
CONSUMER_ROLE = "roles/serviceusage.serviceUsageConsumer"
_API = "cloudasset.googleapis.com"
#: What an argument that Google refuses is about, in its message or in the names of the fields that it names.
_PAGE_TOKEN = re.compile(r"page[ _]token")
_ASSET_TYPE = re.compile(r"asset[ _]?types?\b")
#: How a message names the id of a perimeter's refusal, and the project that a call is counted against.
_PERIMETER_ID = re.compile(r"vpcServiceControlsUniqueIdentifier:\s*([\w\-]+)")
_PROJECT = re.compile(r"\b(?:in|use) project:?\s+'?([a-z][a-z0-9\-:.]{4,60}[a-z0-9]|\d{6,20})\b")

#: Cloud Asset's permissions per call and content type; a search has one for all.
_LIST = {
    "RESOURCE": "cloudasset.assets.listResource",
    "IAM_POLICY": "cloudasset.assets.listIamPolicy",
    "ORG_POLICY": "cloudasset.assets.listOrgPolicy",
    "RELATIONSHIP": "cloudasset.assets.listResource",
}
_EXPORT = {
    "RESOURCE": "cloudasset.assets.exportResource",
    "IAM_POLICY": "cloudasset.assets.exportIamPolicy",
    "ORG_POLICY": "cloudasset.assets.exportOrgPolicy",
    "RELATIONSHIP": "cloudasset.assets.exportResource",
}
_SEARCH = "cloudasset.assets.searchAllResources"

#: Google's reasons for which a quota project is of no use, in words.
_UNUSABLE_CONSUMER = {
    "CONSUMER_INVALID": "does not exist, or not any more",
    "CONSUMER_SUSPENDED": "is suspended",
    "BILLING_DISABLED": "has no active billing account",
}


def permission_of(call: Quota, content_type: str) -> str:
    """The permission that a call needs on its scope."""
    if call is Quota.SEARCH_ALL_RESOURCES:
        return _SEARCH
    return (_LIST if call is Quota.LIST_ASSETS else _EXPORT).get(content_type, _LIST["RESOURCE"])


@dataclass(frozen=True, slots=True)
class _Told:
    """What an error carries: its message in one line, and what its details say."""

    message: str
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    fields: tuple[str, ...] = ()
    violations: tuple[tuple[str, str], ...] = ()
    retry_delay: float | None = None


def classify(
    error: google.GoogleAPICallError | google.RetryError,
    *,
    scope: str,
    asset_type: str,
    content_type: str = "RESOURCE",
    call: Quota = Quota.LIST_ASSETS,
) -> SyncError:
    """Turn an error of the Cloud Asset client into a `SyncError` with its remedy.

    Args:
        asset_type: what was asked for, in words if it is not one type.
        call: which method failed: it says which permission may be missing.
    """
    where = f"{asset_type} in {scope}"
    told = _told(error)
    message = told.message

    if call is Quota.EXPORT_ASSETS:
        of_destination = None if told.reason else _of_destination(error, told, where)
        if of_destination is not None:
            return of_destination
    if isinstance(error, google.PermissionDenied):
        return _denied(told, where, scope, permission_of(call, content_type), content_type)
    if isinstance(error, google.Unauthenticated):
        return SyncError(
            f"not authenticated ({message})",
            where=where,
            remedy="renew the credentials: log in with 'gcloud auth application-default login', or check the identity",
            reason=Reason.UNAUTHENTICATED,
        )
    if isinstance(error, google.ResourceExhausted | google.TooManyRequests):
        return _quota(told, where, call)
    if isinstance(error, google.InvalidArgument | google.FailedPrecondition):
        return _refused(told, where, scope)
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


#: Statuses of an operation that failed, as the errors of a call.
_STATUSES: dict[int, type[google.GoogleAPICallError]] = {
    3: google.InvalidArgument,
    4: google.DeadlineExceeded,
    5: google.NotFound,
    6: google.AlreadyExists,
    7: google.PermissionDenied,
    8: google.ResourceExhausted,
    9: google.FailedPrecondition,
    10: google.Aborted,
    13: google.InternalServerError,
    14: google.ServiceUnavailable,
    16: google.Unauthenticated,
}
#: Google's own identity that writes exports; the number of a project stands in it.
_SERVICE_AGENT = re.compile(r"service-\d+@gcp-sa-cloudasset\.iam\.gserviceaccount\.com")
_DESTINATION = re.compile(r"storage\.|gs://|bucket|bigquery|dataset|table", re.IGNORECASE)
_IS_THERE = re.compile(r"already exists|exists already", re.IGNORECASE)
_STILL_RUNS = re.compile(r"still running|previous (export )?request|in progress", re.IGNORECASE)


def classify_export(status: Any, *, scope: str, content_type: str) -> SyncError:
    """Turn the status (``google.rpc.Status``) of an export that failed into a `SyncError`."""
    kind = _STATUSES.get(status.code, google.Unknown)
    return classify(
        kind(status.message),
        scope=scope,
        asset_type="an export",
        content_type=content_type,
        call=Quota.EXPORT_ASSETS,
    )


def _of_destination(error: Any, told: _Told, where: str) -> SyncError | None:
    """What is wrong with where an export goes, rather than with what it reads."""
    message = told.message
    if _ASSET_TYPE.search(f"{message} {' '.join(told.fields)}".lower()):
        return None
    if isinstance(error, google.AlreadyExists) or _IS_THERE.search(message):
        return SyncError(
            f"the destination exists already ({message})",
            where=where,
            remedy="leave the prefix or dataset of sync_layers.api_sync.bulk.destination to lz-sync alone; nothing is "
            "overwritten",
            reason=Reason.CONFLICT,
            transient=False,
        )
    if _STILL_RUNS.search(message):
        return SyncError(
            f"another export to the same destination goes on ({message})",
            where=where,
            remedy="wait; Google takes another one after 15 minutes at most",
            reason=Reason.CONFLICT,
        )
    if not _DESTINATION.search(message):
        return None
    if isinstance(error, google.PermissionDenied) and "cloudasset.assets." not in message:
        agent = _SERVICE_AGENT.search(message)
        who = agent.group(0) if agent else "service-PROJECT_NUMBER@gcp-sa-cloudasset.iam.gserviceaccount.com"
        return SyncError(
            f"Cloud Asset Inventory may not write to the destination ({message})",
            where=where,
            remedy="grant the service agent "
            f"{who} roles/storage.objectAdmin on the bucket, or roles/bigquery.dataEditor on the dataset and "
            "roles/bigquery.jobUser on its project",
            reason=Reason.PERMISSION_DENIED,
        )
    if isinstance(error, google.NotFound | google.InvalidArgument | google.FailedPrecondition):
        return SyncError(
            f"the destination cannot be used ({message})",
            where=where,
            remedy="make the bucket or dataset of sync_layers.api_sync.bulk.destination, or name another one",
            reason=Reason.NOT_FOUND if isinstance(error, google.NotFound) else Reason.INVALID,
        )
    return None


def _denied(told: _Told, where: str, scope: str, permission: str, content_type: str) -> SyncError:
    message, reason = told.message, told.reason
    consumer = _consumer(told)
    if reason == "SERVICE_DISABLED" or "has not been used" in message or "it is disabled" in message:
        service = told.metadata.get("service") or _API
        project = f" --project {consumer}" if consumer else ""
        calling = "" if project else " in the project that calls it"
        return SyncError(
            f"{service} is not enabled ({message})",
            where=where,
            remedy=f"run 'gcloud services enable {service}{project}'{calling}",
            reason=Reason.API_DISABLED,
        )
    if reason == "SECURITY_POLICY_VIOLATED" or "VPC Service Controls" in message or _PERIMETER_ID.search(message):
        return _perimeter(told, where)
    if reason in _UNUSABLE_CONSUMER:
        return SyncError(
            f"the project that the calls are counted against {_UNUSABLE_CONSUMER[reason]} ({message})",
            where=where,
            remedy=f"mend the quota project{_named(consumer)}, or name another one: "
            "'gcloud auth application-default set-quota-project PROJECT'",
            reason=Reason.PERMISSION_DENIED,
        )
    if reason == "USER_PROJECT_DENIED" or "serviceusage.services.use" in message:
        return SyncError(
            f"the identity may not make calls on the account of the quota project ({message})",
            where=where,
            remedy=f"grant {CONSUMER_ROLE} on the quota project{_named(consumer)} to the identity that runs lz-sync, "
            "or name another one: 'gcloud auth application-default set-quota-project PROJECT'",
            reason=Reason.PERMISSION_DENIED,
        )
    if "requires a quota project" in message:
        return _no_quota_project(told, where)
    needed = told.metadata.get("permission") or permission
    on = _scope_of(told.metadata.get("resource")) or scope
    role = VIEWER_ROLE if needed.startswith("cloudasset.") else f"a role with {needed}"
    has = f" (it has {needed})" if role == VIEWER_ROLE else ""
    tier = ""
    if content_type == "RELATIONSHIP":
        tier = "; relationships also need Security Command Center Premium: without it drop them from content_types"
    return SyncError(
        f"permission denied ({message})",
        where=where,
        remedy=f"grant {role}{has} on {on} to the identity that runs lz-sync{tier}",
        reason=Reason.PERMISSION_DENIED,
    )


def _perimeter(told: _Told, where: str) -> SyncError:
    found = _PERIMETER_ID.search(told.message)
    unique = told.metadata.get("uid") or (found.group(1) if found else "")
    unique = unique or next((subject for kind, subject in told.violations if kind == "VPC_SERVICE_CONTROLS"), "")
    service = told.metadata.get("service") or _API
    look = f"; what it violated is in the audit log under the id {unique}" if unique else ""
    return SyncError(
        f"a VPC Service Controls perimeter denied it ({told.message})",
        where=where,
        remedy=f"allow {service} for this identity in the ingress rules of the perimeter{look}",
        reason=Reason.PERMISSION_DENIED,
    )


def _quota(told: _Told, where: str, call: Quota) -> SyncError:
    metric = told.metadata.get("quota_metric") or told.metadata.get("quota_limit")
    subjects = (subject for kind, subject in told.violations if kind == "quota" and subject.startswith("project:"))
    consumer = _consumer(told) or next(subjects, "").removeprefix("project:")
    value = told.metadata.get("quota_limit_value")
    named = f"the quota {metric}" if metric else "the Cloud Asset quota"
    limit = f" (now {value})" if value else ""
    return SyncError(
        f"quota exceeded ({told.message})",
        where=where,
        remedy=f"wait, read less often (sync_layers.api_sync.quotas.{call}), or raise {named}{limit} of "
        + (f"the project {consumer}" if consumer else "the project that calls it"),
        reason=Reason.QUOTA,
        retry_after=told.retry_delay,
    )


def _refused(told: _Told, where: str, scope: str) -> SyncError:
    message = told.message
    about = f"{message} {' '.join(told.fields)}".lower()
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
    if "quota project" in about:
        return _no_quota_project(told, where)
    if told.reason in _UNUSABLE_CONSUMER:
        return _denied(told, where, scope, "", "")
    return SyncError(
        f"Cloud Asset Inventory refused the request ({message})",
        where=where,
        remedy="check sync_layers.api_sync.scopes",
        reason=Reason.INVALID,
    )


def _no_quota_project(told: _Told, where: str) -> SyncError:
    return SyncError(
        f"no project is named to count the calls against ({told.message})",
        where=where,
        remedy="run 'gcloud auth application-default set-quota-project PROJECT', or set GOOGLE_CLOUD_QUOTA_PROJECT",
        reason=Reason.PERMISSION_DENIED,
    )


def _told(error: Any) -> _Told:
    """What an error carries. Its details are protobuf messages of ``google.rpc``."""
    details = list(getattr(error, "details", None) or ())
    info = next((detail for detail in details if _kind(detail) == "ErrorInfo"), None)
    return _Told(
        message=" ".join(str(getattr(error, "message", error)).split()),
        reason=info.reason if info is not None else "",
        metadata=dict(info.metadata) if info is not None else {},
        fields=tuple(
            violation.field
            for detail in details
            if _kind(detail) == "BadRequest"
            for violation in detail.field_violations
        ),
        violations=tuple(_violations(details)),
        retry_delay=next(
            (
                float(detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9)
                for detail in details
                if _kind(detail) == "RetryInfo"
            ),
            None,
        ),
    )


def _violations(details: list[Any]) -> Iterator[tuple[str, str]]:
    """(kind, what is told) of failed preconditions and exceeded quotas."""
    for detail in details:
        if _kind(detail) == "PreconditionFailure":
            yield from ((violation.type, violation.description) for violation in detail.violations)
        elif _kind(detail) == "QuotaFailure":
            yield from (("quota", violation.subject) for violation in detail.violations)


def _kind(detail: Any) -> str:
    return type(detail).__name__


def _consumer(told: _Told) -> str:
    """The project that a call is counted against, as far as the error names it."""
    named = told.metadata.get("consumer", "").removeprefix("projects/") or told.metadata.get("containerInfo", "")
    if named:
        return named
    found = _PROJECT.search(told.message)
    return found.group(1) if found else ""


def _named(consumer: str) -> str:
    return f" {consumer}" if consumer else ""


def _scope_of(resource: str | None) -> str:
    """``//cloudresourcemanager.googleapis.com/organizations/1`` → ``organizations/1``."""
    return "" if not resource else re.sub(r"^//[^/]+/", "", resource)
