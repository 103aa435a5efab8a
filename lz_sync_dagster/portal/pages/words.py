"""How pages say things: ages, counts, events, states. Pure functions; unknown is a word, never 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson

from lz_sync_dagster.layers import layer
from lz_sync_dagster.sync.models import Coverage, CoverageStatus, EventType, FeedFrame, Status, SyncStatus
from lz_sync_dagster.sync.store.file_history import CommitFile, ItemChange
from lz_sync_dagster.sync.store.inbox import HEAD_POLL, DeliveryRecord, DeliveryStatus
from lz_sync_dagster.sync.store.source_findings import FindingKind

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Sign:
    """A state as a word, an icon (a ligature of the Material icon font) and a tone (a CSS class suffix)."""

    word: str
    icon: str
    tone: str


STATUS_SIGNS: dict[Status, Sign] = {
    Status.SUCCESS: Sign("Success", "check_circle", "good"),
    Status.IN_PROGRESS: Sign("In progress", "sync", "busy"),
    Status.PARTIAL: Sign("Partial", "warning", "warn"),
    Status.FAILED: Sign("Failed", "error", "bad"),
    Status.STALE: Sign("Stale", "history", "warn"),
    Status.UNKNOWN: Sign("Unknown", "help", "none"),
    Status.DISABLED: Sign("Disabled", "pause_circle", "none"),
}

COVERAGE_SIGNS: dict[CoverageStatus, Sign] = {
    CoverageStatus.COMPLETE: Sign("Complete", "check_circle", "good"),
    CoverageStatus.PARTIAL: Sign("Partial", "warning", "warn"),
    CoverageStatus.STALE: Sign("Stale", "history", "warn"),
    CoverageStatus.UNKNOWN: Sign("Unknown", "help", "none"),
}

EVENT_SIGNS: dict[EventType, Sign] = {
    EventType.RESOURCE_CREATED: Sign("Created", "add_circle", "good"),
    EventType.RESOURCE_UPDATED: Sign("Updated", "edit", "busy"),
    EventType.RESOURCE_DELETED: Sign("Deleted", "delete", "none"),
    EventType.POLICY_VIOLATED: Sign("Violation", "gpp_bad", "bad"),
    EventType.POLICY_RESOLVED: Sign("Resolved", "verified_user", "good"),
    EventType.COMPLIANCE_DRIFT: Sign("Drift", "trending_down", "warn"),
    EventType.COST_SPIKE: Sign("Cost spike", "payments", "warn"),
    EventType.SYNC_STATUS: Sign("Sync", "sync", "busy"),
}

#: A commit's change of a file, or of an item in it.
CHANGE_SIGNS: dict[str, Sign] = {
    "added": Sign("Added", "add_circle", "good"),
    "modified": Sign("Modified", "edit", "busy"),
    "renamed": Sign("Renamed", "drive_file_move", "busy"),
    "deleted": Sign("Deleted", "delete", "none"),
    "removed": Sign("Removed", "delete", "none"),
}
OTHER_CHANGE = Sign("Changed", "edit", "none")
NOT_ALLOWED = Sign("Not allowed", "error", "bad")

FINDINGS: dict[FindingKind, str] = {
    FindingKind.SECRET: "Withheld: a secret",
    FindingKind.UNREADABLE: "Not read",
    FindingKind.GOVERNANCE_YAML: "pmo.yaml not read",
    FindingKind.GOVERNANCE_SCHEMA: "Value not allowed",
    FindingKind.GATES: "Gates not read",
    FindingKind.HCL_SYNTAX: "Terraform read in part",
    FindingKind.DRIFT: "Copy was edited",
    FindingKind.SIGNATURE: "Commit not verified",
}
_TONES = {
    "critical": ("gpp_bad", "bad"),
    "high": ("error", "bad"),
    "medium": ("warning", "warn"),
    "low": ("info", "none"),
}


def severity(word: str | None) -> Sign:
    """A severity in its source's word."""
    icon, tone = _TONES.get((word or "").strip().lower(), ("help", "none"))
    return Sign((word or UNKNOWN).strip().capitalize(), icon, tone)


def value(content: Any) -> str:
    """A value of ``pmo.yaml`` as a person writes it."""
    if content is None:
        return "empty"
    if isinstance(content, bool):
        return "true" if content else "false"
    if isinstance(content, str):
        return content or "empty text"
    if content in ([], {}):
        return "empty list" if isinstance(content, list) else "empty mapping"
    return orjson.dumps(content).decode() if isinstance(content, list | dict) else str(content)


def difference(change: ItemChange) -> str:
    """What a commit changed of an item; of one with several parts, those that differ."""
    before, after = change.before, change.after
    if isinstance(before, dict) and isinstance(after, dict):
        parts = [name for name in (*before, *(key for key in after if key not in before)) if name != "line"]
        changed = [name for name in parts if before.get(name) != after.get(name)]
        return "; ".join(f"{name}: {value(before.get(name))} → {value(after.get(name))}" for name in changed)
    if change.change == "added":
        return _whole(after)
    if change.change == "removed":
        return f"was {_whole(before)}"
    return f"{value(before)} → {value(after)}"


def _whole(content: Any) -> str:
    """An item, part by part; parts that it does not have are left out."""
    if not isinstance(content, dict) or not content:
        return value(content)
    return "; ".join(f"{name}: {value(part)}" for name, part in content.items() if name != "line" and part is not None)


def lines(change: CommitFile) -> str:
    """``+12 −3``, or ``binary``."""
    if change.insertions is None or change.deletions is None:
        return "lines not counted"
    return f"+{change.insertions:,} −{change.deletions:,}"


def git_notice(status: SyncStatus, now: datetime) -> str | None:
    """What a page has to say first about data of the git layer; ``None`` if all is well."""
    error = f": {status.errors[0]}" if status.errors else ""
    if status.as_of is None:
        return (
            f"Nothing was read from the landing zone yet{error}."
            if status.status is not Status.DISABLED
            else ("Git sync is switched off, and nothing was ever read from the landing zone.")
        )
    shown = f"What is shown is the last good data, as of {status.as_of.strftime('%Y-%m-%d %H:%M')} UTC"
    age = f"({ago(status.as_of, now)})"
    match status.status:
        case Status.FAILED:
            return f"The last git sync failed{error}. {shown} {age}."
        case Status.STALE:
            return f"The data is stale{error}. {shown} {age}."
        case Status.DISABLED:
            return f"Git sync is switched off. {shown} {age}."
        case Status.PARTIAL:
            return f"The last git sync was partial{error}. Parts that could not be read are as they were before."
        case _:
            return None


DELIVERY_SIGNS: dict[DeliveryStatus, Sign] = {
    DeliveryStatus.PENDING: Sign("Waiting", "schedule", "busy"),
    DeliveryStatus.DONE: Sign("Synced", "check_circle", "good"),
    DeliveryStatus.IGNORED: Sign("Ignored", "block", "none"),
}
MISSED_SIGN = Sign("Missed", "report", "bad")


def span(length: timedelta) -> str:
    """A length of time in one unit: ``12 s``, ``3 min``, ``5 h``, ``2 d``."""
    seconds = max(0, int(length.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h"
    return f"{seconds // 86_400} d"


def ago(then: datetime | None, now: datetime, *, never: str = "never") -> str:
    """``12 s ago``; ``never`` for no instant."""
    return never if then is None else f"{span(now - then)} ago"


def due(status: SyncStatus, now: datetime) -> str:
    """When a layer syncs next."""
    if status.status is Status.DISABLED:
        return "switched off"
    if status.next_sync is None:
        return "on the next event" if layer(status.layer).stale_after is None or status.layer == "pubsub" else UNKNOWN
    if status.next_sync > now:
        return f"in {span(status.next_sync - now)}"
    late = now - status.next_sync
    return "now" if late < timedelta(seconds=30) else f"overdue by {span(late)}"


def number(value: int | None) -> str:
    """``12,345``, or ``unknown``."""
    return UNKNOWN if value is None else f"{value:,}"


def percent(share: float | None) -> str:
    """``92.3 %`` for 0.923, or ``unknown``. Never rounds up to 100 or down to 0."""
    if share is None:
        return UNKNOWN
    if 0.9995 <= share < 1:
        return "99.9 %"
    if 0 < share < 0.0005:
        return "0.1 %"
    return f"{share * 100:.1f} %"


def share_read(coverage: Coverage) -> str:
    """``41 of 42 read completely``, or ``nothing read yet``."""
    total = coverage.complete + coverage.partial + coverage.stale + coverage.unknown
    if total == 0:
        return "nothing read yet"
    return f"{coverage.complete:,} of {total:,} read completely"


def kind(asset_type: str) -> str:
    """The short name of a Cloud Asset type: ``Instance`` for ``compute.googleapis.com/Instance``."""
    return asset_type.rsplit("/", 1)[-1]


def short(name: str) -> str:
    """The last part of a full resource name."""
    return name.rstrip("/").rsplit("/", 1)[-1]


def happened(frame: FeedFrame) -> str:
    """An event as one sentence."""
    resource: Mapping[str, Any] = frame.resource or {}
    data = frame.data
    what = _resource(resource)
    match frame.event_type:
        case EventType.RESOURCE_CREATED:
            return f"{what} was {'created again' if data.get('change') == 'recreated' else 'created'}"
        case EventType.RESOURCE_UPDATED:
            fields = data.get("changed_fields")
            suffix = f": {', '.join(map(str, fields[:4]))}" if isinstance(fields, list) and fields else ""
            return f"{what} was updated{suffix}"
        case EventType.RESOURCE_DELETED:
            return f"{what} was deleted"
        case EventType.POLICY_VIOLATED:
            return f"{what} does not meet {_control(data)}"
        case EventType.POLICY_RESOLVED:
            return f"{what} no longer violates {_control(data)}"
        case EventType.SYNC_STATUS:
            return _sync(frame)
        case _:
            return str(data.get("message") or f"{what}: {EVENT_SIGNS[frame.event_type].word.lower()}")


def _resource(resource: Mapping[str, Any]) -> str:
    name = str(resource.get("display_name") or short(str(resource.get("name", ""))) or "a resource")
    label = kind(str(resource.get("asset_type", "")))
    if resource.get("content_type") == "IAM_POLICY":
        label = f"IAM policy of {label}"
    return f"{label} {name}".strip()


def _control(data: Mapping[str, Any]) -> str:
    title = f" ({data['title']})" if data.get("title") else ""
    severity = f", {data['severity']}" if data.get("severity") else ""
    return f"{data.get('control', 'a control')}{title}{severity}"


def _sync(frame: FeedFrame) -> str:
    title = layer(frame.layer).title
    status = str(frame.data.get("status", UNKNOWN)).replace("_", " ")
    changed = frame.data.get("items_changed")
    details = f", {changed:,} changed" if isinstance(changed, int) and changed else ""
    errors = frame.data.get("errors")
    if isinstance(errors, list) and errors:
        details += f": {errors[0]}"
    return f"{title}: {status}{details}"


def delivery_sign(delivery: DeliveryRecord) -> Sign:
    """What became of a delivery. That it was missed outweighs that it was found."""
    return MISSED_SIGN if delivery.missed else DELIVERY_SIGNS[delivery.status]


def delivered(delivery: DeliveryRecord) -> str:
    """A delivery as a phrase: ``push of 1a2b3c4 by ada, 3 paths``."""
    commit = f" {delivery.commit_claim[:7]}" if delivery.commit_claim else ""
    if delivery.event == HEAD_POLL:
        return f"new head{commit} of {delivery.repository or 'the landing zone'}"
    what = delivery.event.replace("_", " ") + (f" of{commit}" if commit else "")
    by = f" by {delivery.actor}" if delivery.actor else ""
    paths = "" if delivery.touched is None else f", {len(delivery.touched):,} path{_s(len(delivery.touched))}"
    return f"{what}{by}{paths}"


def delivery_notes(delivery: DeliveryRecord) -> list[str]:
    """What is out of the ordinary about a delivery, a line each."""
    notes = []
    if delivery.missed:
        notes.append("missed webhook, found by polling")
    if delivery.late is not None and delivery.event == HEAD_POLL:
        notes.append(f"found by polling {span(delivery.late)} before its webhook came")
    elif delivery.late is not None:
        notes.append(f"late: polling had found it {span(delivery.late)} before")
    if delivery.repair is not None:
        # A delivery that is here has come, whether or not GitHub's log was looked at since.
        outcome = "not repaired" if delivery.repair.outcome == "given_up" else "repaired: sent again"
        notes.append(f"{outcome}, after GitHub could not deliver it: {delivery.repair.failure}")
    if delivery.reason:
        notes.append(f"ignored: it {delivery.reason}")
    if delivery.claim == "absent":
        notes.append("the synced head does not reach the commit that it claims")
    return notes


def _s(count: int) -> str:
    return "" if count == 1 else "s"
