"""What the list of resources says of a question."""

from __future__ import annotations

from dataclasses import replace

from lz_sync_dagster.portal.pages.asked import ListQuestion
from lz_sync_dagster.portal.pages.infrastructure import filters_that_hold
from lz_sync_dagster.sync.store.resource_views import ResourceFilter

EVERYTHING = ResourceFilter()
NARROW = ResourceFilter("IAM_POLICY", ("x/A", "x/B"), ("p",), ("folders/1",), ("eu",), "web", True, True, 5)


def test_every_condition_is_said_and_can_be_left_out_alone() -> None:
    held = filters_that_hold(ListQuestion(NARROW))
    assert [said for said, _ in held] == [
        "Content: IAM policies",
        "Type: x/A",
        "Type: x/B",
        "Project: p",
        "Location: eu",
        "Scope: folders/1",
        "With open violations",
        "Deleted",
        "Name has “web”",
        "Changed since 1970-01-01 00:00:00 UTC",
    ]
    assert [len(filters_that_hold(ListQuestion(without))) for _, without in held] == [len(held) - 1] * len(held)


def test_a_list_of_everything_is_said_to_have_no_filter() -> None:
    assert filters_that_hold(ListQuestion(EVERYTHING)) == []
    assert [said for said, _ in filters_that_hold(ListQuestion(replace(EVERYTHING, has_findings=False)))] == [
        "Without open violations"
    ]
