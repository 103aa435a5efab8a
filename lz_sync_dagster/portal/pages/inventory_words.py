"""How the pages of the inventory say things: parts and their coverage, columns by type, versions, terraform. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from lz_sync_dagster.portal.pages.words import OTHER_CHANGE, UNKNOWN, Sign, ago, kind, percent, span, value
from lz_sync_dagster.sync.errors import Reason
from lz_sync_dagster.sync.inventory.typed_views import VIEWS, iam_bindings, typed_view
from lz_sync_dagster.sync.models import CoverageStatus, Status, SyncStatus
from lz_sync_dagster.sync.state.json_diff import FieldChange, FieldChangeKind
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.store.coverage_views import LedgerRow
from lz_sync_dagster.sync.store.feed_freshness import Quantile, TypeFreshness, quantile
from lz_sync_dagster.sync.store.resource_history import ChangeKind
from lz_sync_dagster.sync.store.resource_views import ResourceFilter, ResourceRow
from lz_sync_dagster.sync.timing import from_ns

#: What a cell says of a value that is a list without items, and of a field that data which was read does not have.
NONE, ABSENT = "none", "not in the data"
#: How Google writes that something never ends.
_FOREVER = "9999-12-31T"

CONTENTS = {
    "RESOURCE": "Resources",
    "IAM_POLICY": "IAM policies",
    "ORG_POLICY": "Organization policies",
    "RELATIONSHIP": "Relationships",
}

#: What a list has rows of, by content.
_ROWS = {
    "RESOURCE": ("resource", "resources"),
    "IAM_POLICY": ("IAM policy", "IAM policies"),
    "ORG_POLICY": ("organization policy", "organization policies"),
}
_OTHER_ROWS = ("resource with such content", "resources with such content")

CHANGE_SIGNS: dict[ChangeKind, Sign] = {
    ChangeKind.CREATED: Sign("Created", "add_circle", "good"),
    ChangeKind.UPDATED: Sign("Updated", "edit", "busy"),
    ChangeKind.DELETED: Sign("Deleted", "delete", "none"),
    ChangeKind.RECREATED: Sign("Recreated", "restart_alt", "warn"),
    ChangeKind.FIRST_SEEN: Sign("First seen", "visibility", "none"),
}
FIELD_SIGNS: dict[FieldChangeKind, Sign] = {
    FieldChangeKind.ADDED: Sign("added", "add", "good"),
    FieldChangeKind.REMOVED: Sign("removed", "remove", "none"),
    FieldChangeKind.CHANGED: Sign("changed", "edit", "busy"),
}
TERRAFORM_SIGNS: dict[str, Sign] = {
    "matched": Sign("Matched", "check_circle", "good"),
    "changed": Sign("Changed", "edit", "warn"),
    "missing": Sign("Missing", "error", "bad"),
    "unresolved": Sign("Unresolved", "help", "none"),
    "unmanaged": Sign("Unmanaged", "link_off", "warn"),
}
EXISTS = Sign("Exists", "check_circle", "good")
DELETED = Sign("Deleted", "delete", "none")
REDACTED = Sign("Removed: may be a secret", "lock", "none")


def violations_sign(count: int) -> Sign:
    """Open violations of a resource, if there are any."""
    return Sign(f"{count:,} open", "gpp_bad", "bad")


def terraform_sign(status: str) -> Sign:
    """What became of a block."""
    return TERRAFORM_SIGNS.get(status, OTHER_CHANGE)


def type_name(asset_type: str) -> str:
    """``Instance · compute``: the short name of a type, and whose it is."""
    return f"{kind(asset_type)} · {asset_type.split('.', 1)[0]}"


def many(count: int, one: str, several: str | None = None) -> str:
    """``1 part``, ``1,234 parts``."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


# --- coverage ---------------------------------------------------------------------------------------------------------

_WORST = (CoverageStatus.UNKNOWN, CoverageStatus.PARTIAL, CoverageStatus.STALE, CoverageStatus.COMPLETE)


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """What is known of a type in a scope, by content type."""

    asset_type: str
    cells: dict[str, LedgerRow]


def matrix(rows: Sequence[LedgerRow]) -> list[tuple[str, tuple[str, ...], list[MatrixRow]]]:
    """The ledger by scope: its contents, and its types. Scopes and types with problems come first, the worst on top."""
    by_scope: dict[str, dict[str, dict[str, LedgerRow]]] = {}
    for row in rows:
        by_scope.setdefault(row.scope, {}).setdefault(row.asset_type, {})[row.content_type] = row
    found = []
    for scope, types in by_scope.items():
        kinds = [MatrixRow(asset_type, cells) for asset_type, cells in types.items()]
        kinds.sort(key=lambda kind: (_badness(kind.cells.values()), kind.asset_type))
        contents = {content for kind in kinds for content in kind.cells}
        order = (*(name for name in CONTENTS if name in contents), *sorted(contents - CONTENTS.keys()))
        found.append((scope, order, kinds))
    return sorted(found, key=lambda item: (min(_badness(kind.cells.values()) for kind in item[2]), item[0]))


def _badness(rows: Any) -> tuple[int, int]:
    """How bad the worst is, and how many there are that are so bad (negative)."""
    counts = Counter(_WORST.index(row.status) for row in rows)
    worst = min(counts)
    return (worst, -counts[worst])


def because(reason: Reason | None, detail: str | None) -> str:
    """A reason with its detail, which often begins with it."""
    said, more = (reason.value.replace("_", " ") if reason else ""), (detail or "").rstrip(".")
    return more if more.startswith(said) else f"{said}: {more}" if more else said


def why(row: LedgerRow) -> str:
    """A part's status and its reason as a phrase."""
    reason = because(row.reason, row.detail)
    return f"{row.status.value}, {reason}." if reason else f"{row.status.value}."


def alike(gaps: Sequence[LedgerRow]) -> list[list[LedgerRow]]:
    """Parts by status, reason and remedy, in the order of the first of each."""
    found: dict[tuple[CoverageStatus, Reason | None, str | None], list[LedgerRow]] = {}
    for row in gaps:
        found.setdefault((row.status, row.reason, row.remedy), []).append(row)
    return list(found.values())


def why_all(rows: Sequence[LedgerRow]) -> str:
    """The status and the reason of parts that are `alike`; the detail, if they share that, too."""
    shared = len({row.detail for row in rows}) == 1
    return why(rows[0] if shared else replace(rows[0], detail=None))


_NO_REMEDY = "none: "


def remedy(row: LedgerRow) -> tuple[str, bool]:
    """What to do about a part, and whether anything can be done."""
    if row.remedy is None:
        return "", False
    if row.remedy.startswith(_NO_REMEDY):
        said = row.remedy.removeprefix(_NO_REMEDY)
        return f"{said[:1].upper()}{said[1:]}.", False
    return f"Remedy: {row.remedy}.", True


def part_age(row: LedgerRow, now: datetime) -> str:
    """How old the newest complete read of a part is. Of the past, that is not kept of every part that was complete."""
    if row.complete_read_ns is not None:
        return f"complete {ago(from_ns(row.complete_read_ns), now)}"
    return "complete then, age not kept" if row.status is CoverageStatus.COMPLETE else "never read completely"


def read_at(row: LedgerRow) -> str:
    """When a part was read completely."""
    if row.complete_read_ns is not None:
        return from_ns(row.complete_read_ns).strftime("%Y-%m-%d %H:%M:%S UTC")
    if row.status is CoverageStatus.COMPLETE:
        return "It was complete then. Of its complete reads only the last one is kept, which is later."
    return "never"


def part_count(row: LedgerRow, known: int | None) -> str:
    """How many assets a part has, as far as that is known. A zero has to be proven.

    Args:
        known: how many are kept now; ``None`` if the question is about the past.
    """
    if row.status is CoverageStatus.COMPLETE:
        count = known if known is not None else row.assets
        return UNKNOWN if count is None else many(count, "asset")
    return f"{known:,} known" if known else "count unknown"


def counted(number: int | None, *, whole: bool) -> str:
    """A number of something. Unless all of it was read, there may be more, and a zero is not proven."""
    if whole:
        return UNKNOWN if number is None else f"{number:,}"
    return f"{number:,} known" if number else UNKNOWN


def block_count(status: str, number: int | None, *, files_whole: bool, resources_whole: bool) -> str:
    """How many terraform blocks, or resources without one, have a status. The files tell which are unresolved."""
    return counted(number, whole=files_whole and (resources_whole or status == "unresolved"))


def gap_note(rows: Sequence[LedgerRow], *, then: bool = False) -> str | None:
    """What a list that is about these parts may lack; ``None`` if all of them were read completely.

    Args:
        then: the list is of an instant of the past.
    """
    if not rows:
        return "Nothing of this was read yet, so what exists is not known." if not then else "Nothing was known then."
    gaps = [row for row in rows if row.status is not CoverageStatus.COMPLETE]
    if not gaps:
        return None
    stale = all(row.status is CoverageStatus.STALE for row in gaps)
    if then:
        return f"{_of(gaps, rows)} not known completely then: what was there and is not listed cannot be told."
    if stale:
        return f"{_of(gaps, rows)} not read for long: what is listed may have changed."
    return f"{_of(gaps, rows)} not read completely: there may be more than is listed."


def not_listed(where: ResourceFilter, rows: Sequence[LedgerRow], planned: Sequence[Part]) -> str | None:
    """What of a question no part in the ledger is about, and whether it is configured; ``None`` if there is no such.

    Args:
        rows: the ledger's parts that the question is about.
        planned: the parts that are configured; nothing is said if there are none.
    """
    configured = {asset_type for _, asset_type, content in planned if content == where.content_type}
    listed = {row.asset_type for row in rows}
    if not planned or (rows and not where.asset_types):
        return None
    if not configured and not rows:
        name = CONTENTS.get(where.content_type, where.content_type)
        return f"{name} are not configured to be read, so what exists is not known."
    unlisted = [asset_type for asset_type in where.asset_types if asset_type not in listed]
    said = [
        f"{title}: {', '.join(types)}; what exists of it is not known."
        for title, types in (
            ("Not configured to be read", [name for name in unlisted if name not in configured]),
            ("Not read yet", [name for name in unlisted if name in configured]),
        )
        if types
    ]
    return " ".join(said) or None


def _of(gaps: Sequence[LedgerRow], rows: Sequence[LedgerRow]) -> str:
    if len(rows) == 1:
        return "This part is" if rows[0].status is CoverageStatus.STALE else "This part was"
    return f"{len(gaps):,} of {many(len(rows), 'part')} {'was' if len(gaps) == 1 else 'were'}"


def nothing_found(rows: Sequence[LedgerRow], status: SyncStatus, *, filtered: bool, deleted: bool = False) -> str:
    """What an empty list means. ``deleted``: it is of what is deleted."""
    if status.as_of is None or not rows:
        return "Nothing is known yet: nothing of this was read."
    if any(row.status is not CoverageStatus.COMPLETE for row in rows):
        return "Nothing that is known fits, and not everything is known: see what was not read."
    if deleted:
        return "Nothing that fits is known to be deleted since reading began; what was deleted before is not known."
    return "Nothing fits: everything was read, and there is no such resource." if filtered else "There is none."


def heading(
    content_type: str, total: int, violations: int | None, *, whole: bool, deleted_since: datetime | None = None
) -> str:
    """How many rows a list has.

    Args:
        deleted_since: the list is of what is deleted, and reading began then.
        violations: that are open on them, of a list of what has some.
        whole: everything that it is about was read.
    """
    known = "" if whole else "known "
    one, several = _ROWS.get(content_type, _OTHER_ROWS)
    if total == 0 and not whole:
        return f"No {known}{one} fits"
    rows = many(total, known + one, known + several)
    if deleted_since is not None:
        begun = deleted_since.strftime("%Y-%m-%d %H:%M UTC")
        rows = f"{rows} deleted since {begun}, when reading began"
    return rows if violations is None else f"{many(violations, 'open violation')} on {rows}"


def position(first: int | None, shown: int, total: int | None) -> str:
    """Which rows of a list a page has: ``rows 101-150 of 2,004``.

    Args:
        first: the number of rows before it; ``None`` if that is not known, like ``total``.
    """
    rows = many(shown, "row") if first is None else f"rows {first + 1:,}-{first + shown:,}"
    return rows if total is None else f"{rows} of {total:,}"


def inventory_notice(status: SyncStatus, now: datetime) -> str | None:
    """What a page has to say first about data of the inventory; ``None`` if all is well."""
    error = f": {status.errors[0]}" if status.errors else ""
    if status.as_of is None:
        if status.status is Status.DISABLED:
            return "Inventory sync is switched off, and nothing was ever read."
        return f"Nothing was read from the organization yet{error}."
    shown = f"What is shown is the last good data, as of {status.as_of.strftime('%Y-%m-%d %H:%M')} UTC"
    age = f"({ago(status.as_of, now)})"
    match status.status:
        case Status.FAILED:
            return f"The last inventory sync failed{error}. {shown} {age}."
        case Status.STALE:
            return f"The data is stale{error}. {shown} {age}."
        case Status.DISABLED:
            return f"Inventory sync is switched off. {shown} {age}."
        case _:  # what a partial sync could not read is said where it is missing
            return None


# --- columns by type --------------------------------------------------------------------------------------------------

_COLUMNS: dict[str, tuple[tuple[str, str], ...]] = {
    "projects": (("Project id", "project_id"), ("Number", "project_number"), ("State", "state"), ("In", "parent")),
    "folders": (("State", "state"), ("In", "parent")),
    "vpcs": (("Subnets made", "auto_create_subnetworks"), ("Subnetworks", "subnetworks"), ("Routing", "routing_mode")),
    "subnetworks": (
        ("Range", "ip_cidr_range"),
        ("Network", "network"),
        ("Private access", "private_google_access"),
        ("Flow logs", "flow_logs"),
    ),
    "firewalls": (
        ("Direction", "direction"),
        ("Allows", "allowed"),
        ("Denies", "denied"),
        ("From", "source_ranges"),
        ("Network", "network"),
        ("Off", "disabled"),
    ),
    "compute_instances": (
        ("Status", "status"),
        ("Machine type", "machine_type"),
        ("Internal addresses", "internal_ips"),
        ("External addresses", "external_ips"),
    ),
    "gke_clusters": (
        ("Status", "status"),
        ("Version", "version"),
        ("Nodes", "node_count"),
        ("Channel", "release_channel"),
        ("Private nodes", "private_nodes"),
    ),
    "node_pools": (
        ("Status", "status"),
        ("Machine type", "machine_type"),
        ("Version", "version"),
        ("Upgrades itself", "auto_upgrade"),
    ),
    "databases": (
        ("Engine", "engine"),
        ("State", "state"),
        ("Tier", "tier"),
        ("Standby", "high_availability"),
        ("Public addresses", "public_addresses"),
    ),
    "buckets": (
        ("Class", "storage_class"),
        ("Uniform access", "uniform_access"),
        ("Public access", "public_access_prevention"),
        ("Versions kept", "versioning"),
    ),
    "datasets": (("Public", "public"), ("Tables expire (ms)", "default_expiration_ms"), ("Key", "kms_key")),
    "service_accounts": (("Email", "email"), ("Disabled", "disabled")),
    "service_account_keys": (
        ("Account", "service_account"),
        ("Kind", "key_type"),
        ("Origin", "origin"),
        ("Expires", "valid_before"),
        ("Disabled", "disabled"),
    ),
}
_SPELLED = {"ip": "IP", "ips": "IPs", "cidr": "CIDR", "iam": "IAM", "kms": "KMS", "id": "ID"}
_KIND_OF = {asset_type: view.kind for view in VIEWS for asset_type in view.asset_types}
_POLICY_COLUMNS = ("Bindings", "Roles", "Members")


def typed_columns(where: ResourceFilter) -> tuple[str, ...]:
    """The columns of a list that is of one kind of resource only; none of any other list."""
    if where.content_type == "IAM_POLICY":
        return _POLICY_COLUMNS
    kinds = {_KIND_OF.get(asset_type) for asset_type in where.asset_types}
    if where.content_type != "RESOURCE" or len(kinds) != 1:
        return ()
    return tuple(title for title, _ in _COLUMNS.get(kinds.pop() or "", ()))


def typed_cells(where: ResourceFilter, row: ResourceRow, data: Mapping[str, Any] | None) -> list[str]:
    """A resource's values of `typed_columns`. ``data``: ``None`` if what it says is not known."""
    columns = typed_columns(where)
    if data is None:
        return [UNKNOWN] * len(columns)
    if where.content_type == "IAM_POLICY":
        bindings = list(iam_bindings(row, data))
        counts = (len(bindings), len({item.role for item in bindings}), len({item.member for item in bindings}))
        return [f"{count:,}" for count in counts]
    name, view = typed_view(row, data)
    return [cell((view or {}).get(key)) for _, key in _COLUMNS.get(name or "", ())] if columns else []


def cell(content: Any) -> str:
    """A value of a typed view, of data that was read, as a person writes it."""
    if content is None:
        return ABSENT
    if isinstance(content, str) and content.startswith(_FOREVER):
        return "never"
    if isinstance(content, bool):
        return "yes" if content else "no"
    if isinstance(content, list | dict) and not content:
        return NONE
    if isinstance(content, dict):
        return ", ".join(f"{name}: {value(item)}" for name, item in content.items())
    if isinstance(content, list):
        return ", ".join(value(item) for item in content)
    return value(content)


def removed(count: int) -> str:
    """How many values are not shown, and why."""
    why_not = "it may be a secret" if count == 1 else "they may be secrets"
    return f"{many(count, 'value')} removed, since {why_not}."


def field_name(key: str) -> str:
    """``external_ips`` as a label: ``External IPs``."""
    words = " ".join(_SPELLED.get(word, word) for word in key.split("_"))
    return words[:1].upper() + words[1:]


# --- versions ---------------------------------------------------------------------------------------------------------


def field_sides(change: FieldChange) -> tuple[str | None, str | None]:
    """What a field was and is; ``None`` on the side where it was not there."""
    cut = " …" if change.cut else ""
    before = None if change.kind is FieldChangeKind.ADDED else value(change.before) + cut
    after = None if change.kind is FieldChangeKind.REMOVED else value(change.after) + cut
    return before, after


# --- the feed ---------------------------------------------------------------------------------------------------------


def hour(begun: datetime | None) -> str:
    """An hour in which something was told."""
    return UNKNOWN if begun is None else f"in the hour of {begun:%Y-%m-%d %H}:00 UTC"


def missed(told: TypeFreshness) -> str:
    """What the feed missed of a type, at least, and of how much nobody knows."""
    rate = f" ({percent(told.missed_rate)})" if told.missed else ""
    undecided = f", {told.undecided:,} undecided" if told.undecided else ""
    return f"{told.missed:,}{rate}{undecided}"


def delay(delays: Mapping[str, int]) -> str:
    """Within which time half and 95 % of the messages came: ``half ≤ 1 s, 95 % ≤ 10 s``."""
    half, most = quantile(delays, 0.5), quantile(delays, 0.95)
    if half is None or most is None:
        return UNKNOWN
    return f"half {_bound(half)}, 95 % {_bound(most)}"


def _bound(found: Quantile) -> str:
    if found.at_most_ms is None:
        return f"> {_time(found.more_than_ms)}"
    return f"≤ {_time(found.at_most_ms)}"


def _time(milliseconds: int) -> str:
    return f"{milliseconds} ms" if milliseconds < 1_000 else span(timedelta(milliseconds=milliseconds))
