"""How the pages of the inventory say things: unknown is a word, and a zero has to be proven."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.portal.pages import inventory_words as words
from lz_sync_dagster.portal.pages.drift import question_of
from lz_sync_dagster.sync.errors import Reason
from lz_sync_dagster.sync.inventory.typed_views import VIEWS, Data
from lz_sync_dagster.sync.models import Coverage, CoverageStatus, Status, SyncStatus
from lz_sync_dagster.sync.state.json_diff import FieldChange, FieldChangeKind, json_diff
from lz_sync_dagster.sync.store.coverage_views import LedgerRow
from lz_sync_dagster.sync.store.resource_views import ResourceFilter, ResourceRow
from lz_sync_dagster.sync.timing import to_ns
from tests.conftest import NOW

VM = "compute.googleapis.com/Instance"


def part(status: CoverageStatus, asset_type: str = VM, scope: str = "folders/1", **more: Any) -> LedgerRow:
    read = None if status is CoverageStatus.UNKNOWN else to_ns(NOW - timedelta(minutes=5))
    known: dict[str, Any] = {"reason": None, "detail": None, "remedy": None, "assets": 3} | more
    return LedgerRow(scope, asset_type, "RESOURCE", status, since=NOW, checked_at=NOW, complete_read_ns=read, **known)


def row(asset_type: str = VM) -> ResourceRow:
    return ResourceRow(
        "//x/vm-1", "RESOURCE", asset_type, "folders/1", "p", "z", "vm-1", False, "1", 1, 1, 1, None, 1, "d", "s", 1, ()
    )  # fmt: skip


COMPLETE, PARTIAL, STALE, UNKNOWN = (
    CoverageStatus.COMPLETE,
    CoverageStatus.PARTIAL,
    CoverageStatus.STALE,
    CoverageStatus.UNKNOWN,
)


def status(of: Status = Status.SUCCESS, **more: Any) -> SyncStatus:
    known: dict[str, Any] = {
        "layer": LayerId.API,
        "status": of,
        "last_sync": NOW,
        "items_synced": 0,
        "errors": ["it is denied"],
        "next_sync": None,
        "as_of": NOW,
        "source": "cloud_asset_inventory",
        "coverage": Coverage(status=COMPLETE, complete=1),
    }
    return SyncStatus(**(known | more))


@pytest.mark.parametrize(
    ("row", "known", "said"),
    [
        (part(COMPLETE), 0, "0 assets"),
        (part(COMPLETE), None, "3 assets"),
        (part(COMPLETE, assets=None), None, "unknown"),
        (part(PARTIAL), 0, "count unknown"),
        (part(UNKNOWN), 0, "count unknown"),
        (part(STALE), 1_200, "1,200 known"),
    ],
)
def test_a_part_has_no_assets_only_if_that_is_proven(row: LedgerRow, known: int | None, said: str) -> None:
    assert words.part_count(row, known) == said


def test_problems_come_first_the_worst_on_top() -> None:
    rows = [
        part(COMPLETE, "a/Fine"),
        part(PARTIAL, "b/Half"),
        part(UNKNOWN, "c/None"),
        part(COMPLETE, "a/Fine", "folders/0"),
    ]
    found = words.matrix(rows)
    assert [(scope, [kind.asset_type for kind in kinds]) for scope, _, kinds in found] == [
        ("folders/1", ["c/None", "b/Half", "a/Fine"]),
        ("folders/0", ["a/Fine"]),
    ]


def test_an_empty_list_is_empty_only_if_everything_was_read() -> None:
    assert words.nothing_found([part(COMPLETE)], status(), filtered=False) == "There is none."
    assert "everything was read" in words.nothing_found([part(COMPLETE)], status(), filtered=True)
    assert "not everything is known" in words.nothing_found([part(COMPLETE), part(PARTIAL)], status(), filtered=True)
    for rows, known in (([], status()), ([part(COMPLETE)], status(as_of=None))):
        assert words.nothing_found(rows, known, filtered=True).startswith("Nothing is known yet")


@pytest.mark.parametrize(
    ("content_type", "total", "violations", "whole", "said"),
    [
        ("RESOURCE", 1, None, True, "1 resource"),
        ("RESOURCE", 390, 498, True, "498 open violations on 390 resources"),
        ("RESOURCE", 2, 3, False, "3 open violations on 2 known resources"),
        ("RESOURCE", 0, 0, False, "No known resource fits"),
        ("IAM_POLICY", 419, None, True, "419 IAM policies"),
        ("ACCESS_POLICY", 1, None, False, "1 known resource with such content"),
    ],
)
def test_a_list_is_headed_by_what_it_has(
    content_type: str, total: int, violations: int | None, whole: bool, said: str
) -> None:
    assert words.heading(content_type, total, violations, whole=whole) == said


@pytest.mark.parametrize(
    ("where", "rows", "said"),
    [
        (ResourceFilter(), [part(COMPLETE)], None),
        (ResourceFilter(), [], None),
        (ResourceFilter(asset_types=(VM,)), [part(COMPLETE)], None),
        (ResourceFilter(asset_types=(VM,)), [], f"Not read yet: {VM}; what exists of it is not known."),
        (
            ResourceFilter(asset_types=(VM, "x/Y", "x/Z")),
            [part(COMPLETE)],
            "Not configured to be read: x/Y, x/Z; what exists of it is not known.",
        ),
        (
            ResourceFilter("RELATIONSHIP", (VM,)),
            [],
            "Relationships are not configured to be read, so what exists is not known.",
        ),
    ],
)
def test_what_no_part_is_about_is_not_configured_or_not_read_yet(
    where: ResourceFilter, rows: list[LedgerRow], said: str | None
) -> None:
    assert words.not_listed(where, rows, [("folders/1", VM, "RESOURCE")]) == said
    assert words.not_listed(where, rows, []) is None


def test_a_list_of_what_is_deleted_says_since_when() -> None:
    assert words.heading("RESOURCE", 3, None, whole=True, deleted_since=NOW) == (
        "3 resources deleted since 2026-03-01 12:00 UTC, when reading began"
    )
    said = words.nothing_found([part(COMPLETE)], status(), filtered=True, deleted=True)
    assert "what was deleted before is not known" in said


def test_a_page_of_a_list_says_where_it_is_as_far_as_that_is_known() -> None:
    assert words.position(100, 50, 2_004) == "rows 101-150 of 2,004"
    assert words.position(0, 50, None) == "rows 1-50"
    assert words.position(None, 50, 2_004) == "50 rows of 2,004"


def test_a_list_says_what_it_may_lack() -> None:
    assert words.gap_note([part(COMPLETE)]) is None
    assert "was not read" not in (words.gap_note([part(STALE)]) or "")
    assert words.gap_note([part(COMPLETE), part(PARTIAL)]) == (
        "1 of 2 parts was not read completely: there may be more than is listed."
    )
    assert "not known completely then" in (words.gap_note([part(UNKNOWN), part(UNKNOWN)], then=True) or "")
    assert "not known" in (words.gap_note([]) or "")


@pytest.mark.parametrize(
    ("reason", "detail", "said"),
    [
        (Reason.PERMISSION_DENIED, "permission denied (on folders/1).", "permission denied (on folders/1)"),
        (Reason.TIMEOUT, "no answer in 60 s", "timeout: no answer in 60 s"),
        (Reason.TIMEOUT, None, "timeout"),
        (None, None, ""),
    ],
)
def test_a_reason_is_not_said_twice(reason: Reason | None, detail: str | None, said: str) -> None:
    assert words.because(reason, detail) == said


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (Status.SUCCESS, None),
        (Status.PARTIAL, None),
        (Status.FAILED, "The last inventory sync failed: it is denied. What is shown is the last good data"),
        (Status.STALE, "The data is stale"),
        (Status.DISABLED, "switched off"),
    ],
)
def test_a_page_says_first_what_is_wrong_with_its_layer(of: Status, said: str | None) -> None:
    notice = words.inventory_notice(status(of), NOW)
    assert (notice is None) == (said is None)
    assert (said or "") in (notice or "")


def test_every_kind_of_resource_has_columns_that_its_view_has() -> None:
    for view in VIEWS:
        where = ResourceFilter(asset_types=view.asset_types)
        titles = words.typed_columns(where)
        assert titles
        cells = words.typed_cells(where, row(view.asset_types[0]), {})
        assert len(cells) == len(titles)
        keys = {key for _, key in words._COLUMNS[view.kind]}
        assert keys <= set(view.make(row(view.asset_types[0]), Data({})).model_dump())


def test_columns_are_those_of_one_kind_only() -> None:
    assert words.typed_columns(ResourceFilter()) == ()
    assert words.typed_columns(ResourceFilter(asset_types=(VM, "storage.googleapis.com/Bucket"))) == ()
    assert words.typed_columns(ResourceFilter(asset_types=("x.googleapis.com/Unknown",))) == ()
    assert words.typed_columns(ResourceFilter(content_type="IAM_POLICY")) == ("Bindings", "Roles", "Members")


def test_what_was_not_read_is_unknown_and_what_the_data_lacks_is_not_in_it() -> None:
    where = ResourceFilter(asset_types=(VM,))
    assert words.typed_cells(where, row(), None) == ["unknown"] * 4
    data = {"status": "RUNNING", "networkInterfaces": [{"networkIP": "10.0.0.1"}]}
    assert words.typed_cells(where, row(), data) == ["RUNNING", "not in the data", "10.0.0.1", "none"]
    policy = {"bindings": [{"role": "r/a", "members": ["user:a", "user:b"]}, {"role": "r/b", "members": ["user:a"]}]}
    assert words.typed_cells(ResourceFilter(content_type="IAM_POLICY"), row(), policy) == ["3", "2", "2"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "not in the data"),
        ("9999-12-31T23:59:59Z", "never"),
        ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        (True, "yes"),
        (False, "no"),
        ([], "none"),
        ({}, "none"),
        (["a", 1], "a, 1"),
        ({"a": "b"}, "a: b"),
    ],
)
def test_values_are_said_as_a_person_writes_them(value: Any, said: str) -> None:
    assert words.cell(value) == said


def test_a_field_is_named_as_a_person_writes_it() -> None:
    assert [words.field_name(key) for key in ("external_ips", "ip_cidr_range", "status")] == [
        "External IPs",
        "IP CIDR range",
        "Status",
    ]


def test_removed_values_are_counted() -> None:
    assert words.removed(1) == "1 value removed, since it may be a secret."
    assert words.removed(2) == "2 values removed, since they may be secrets."


def test_a_difference_has_the_sides_that_were_there() -> None:
    found = json_diff({"gone": 1, "same": 2, "other": "a"}, {"same": 2, "other": "b", "new": None}).changes
    assert {change.path: words.field_sides(change) for change in found} == {
        "gone": ("1", None),
        "other": ("a", "b"),
        "new": (None, "empty"),
    }
    cut = FieldChange("x", FieldChangeKind.CHANGED, "aaa", "bbb", cut=True)
    assert words.field_sides(cut) == ("aaa …", "bbb …")


@pytest.mark.parametrize(
    ("delays", "said"),
    [
        ({}, "unknown"),
        ({"50": 10}, "half ≤ 50 ms, 95 % ≤ 50 ms"),
        ({"1000": 9, "300000": 1}, "half ≤ 1 s, 95 % ≤ 5 min"),
        ({"later": 1}, "half > 1 h, 95 % > 1 h"),
    ],
)
def test_a_delay_is_a_bound_and_no_guess(delays: dict[str, int], said: str) -> None:
    assert words.delay(delays) == said


@pytest.mark.parametrize(
    ("values", "after"),
    [
        ({"after": '["a.tf",1,"x.y",3]'}, ("a.tf", 1, "x.y", 3)),
        ({"after": '["a.tf",1,"x.y",3]', "status": "unmanaged"}, None),
        ({"after": '["a","b"]', "status": "unmanaged"}, ("a", "b")),
        ({"after": '["a.tf",true,"x.y",3]'}, None),
        ({"after": "{"}, None),
        ({"status": "strange"}, None),
    ],
)
def test_a_place_in_the_list_of_blocks_fits_it_or_is_none(values: dict[str, str], after: Any) -> None:
    question, notes = question_of(values)
    assert question.after == after
    assert any("no place" in note for note in notes) is (after is None and "after" in values)
    assert question.status in (None, "unmanaged")


def test_a_count_of_what_was_not_read_is_a_lower_bound_and_no_zero() -> None:
    assert words.block_count("unmanaged", 1825, files_whole=True, resources_whole=True) == "1,825"
    assert words.block_count("unmanaged", 1825, files_whole=True, resources_whole=False) == "1,825 known"
    assert words.block_count("unmanaged", 0, files_whole=True, resources_whole=False) == "unknown"
    assert words.block_count("unresolved", 0, files_whole=True, resources_whole=False) == "0"
    assert words.block_count("unresolved", 2, files_whole=False, resources_whole=True) == "2 known"
    assert words.block_count("missing", None, files_whole=True, resources_whole=True) == "unknown"


def test_what_was_complete_at_an_instant_was_not_never_read() -> None:
    complete, unknown = replace(part(COMPLETE), complete_read_ns=None), part(UNKNOWN)
    assert words.part_age(complete, NOW) == "complete then, age not kept"
    assert "only the last one is kept" in words.read_at(complete)
    assert (words.part_age(unknown, NOW), words.read_at(unknown)) == ("never read completely", "never")
    assert words.part_age(part(COMPLETE), NOW) == "complete 5 min ago"


def test_what_of_an_address_is_not_understood_is_said() -> None:
    question, notes = question_of({"status": "gone", "q": "a\0b", "after": "[]"})
    assert (question.status, question.q, question.after) == (None, None, None)
    assert [note.split(" ")[0] for note in notes] == ["The", "“status”", "The"]
    assert question_of({"status": "missing", "type": VM, "q": "vm"})[1] == []


def test_parts_that_lack_for_one_reason_are_told_together() -> None:
    denied: dict[str, Any] = {"reason": Reason.PERMISSION_DENIED, "remedy": "grant it"}
    one, two = part(UNKNOWN, "a", detail="denied on a", **denied), part(UNKNOWN, "b", detail="denied on b", **denied)
    other = part(PARTIAL, "c", reason=Reason.QUOTA, remedy=None)
    assert words.alike([one, other, two]) == [[one, two], [other]]
    assert words.why_all([one, two]) == "unknown, permission denied."
    assert words.why_all([one]) == "unknown, permission denied: denied on a."


def test_a_remedy_is_named_only_if_there_is_one() -> None:
    assert words.remedy(part(UNKNOWN, remedy="grant it")) == ("Remedy: grant it.", True)
    assert words.remedy(part(UNKNOWN, remedy=None)) == ("", False)
    assert words.remedy(part(UNKNOWN, remedy="none: choose a later instant")) == ("Choose a later instant.", False)
