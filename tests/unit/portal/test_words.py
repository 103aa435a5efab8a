"""How pages say things."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from lz_sync_dagster.layers import LAYERS, LayerId
from lz_sync_dagster.portal.pages import words
from lz_sync_dagster.sync.models import Coverage, CoverageStatus, EventType, FeedFrame, Status, SyncStatus
from lz_sync_dagster.sync.store.file_history import ItemChange, ItemDelta, ItemKind
from lz_sync_dagster.sync.store.inbox import DeliveryRecord, DeliveryStatus, Repair
from tests.conftest import NOW


def status(**values: Any) -> SyncStatus:
    known: dict[str, Any] = {
        "layer": LayerId.GIT,
        "status": Status.SUCCESS,
        "last_sync": NOW,
        "items_synced": 0,
        "errors": [],
        "next_sync": None,
        "as_of": NOW,
        "source": "git",
        "coverage": Coverage(status=CoverageStatus.COMPLETE, complete=1),
    }
    return SyncStatus(**(known | values))


def frame(event_type: EventType, resource: dict[str, Any] | None, **data: Any) -> FeedFrame:
    return FeedFrame(seq=1, event_type=event_type, timestamp=NOW, layer=LayerId.PUBSUB, resource=resource, data=data)


INSTANCE = {"name": "//compute.googleapis.com/projects/p/zones/z/instances/vm-1", "asset_type": "c.g.com/Instance"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (172_800, "2 d"), (-5, "0 s")],
)
def test_a_span_has_one_unit(seconds: int, text: str) -> None:
    assert words.span(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "unknown"), (0.0, "0.0 %"), (1.0, "100.0 %"), (0.923, "92.3 %"), (0.99999, "99.9 %"), (0.0001, "0.1 %")],
)
def test_a_share_is_never_rounded_to_all_or_nothing(share: float | None, text: str) -> None:
    assert words.percent(share) == text


def test_what_is_not_known_is_unknown_not_zero() -> None:
    assert [words.number(count) for count in (None, 0, 1234)] == ["unknown", "0", "1,234"]
    assert words.ago(None, NOW) == "never"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"next_sync": NOW + timedelta(minutes=4)}, "in 4 min"),
        ({"next_sync": NOW - timedelta(seconds=5)}, "now"),
        ({"next_sync": NOW - timedelta(minutes=5)}, "overdue by 5 min"),
        ({"layer": LayerId.WEBHOOK}, "on the next event"),
        ({"layer": LayerId.PUBSUB}, "on the next event"),
        ({}, "unknown"),
        ({"status": Status.DISABLED}, "switched off"),
    ],
)
def test_when_a_layer_is_due(values: dict[str, Any], text: str) -> None:
    assert words.due(status(**values), NOW) == text


def test_an_empty_ledger_is_nothing_read_not_all_read() -> None:
    assert words.share_read(Coverage(status=CoverageStatus.UNKNOWN)) == "nothing read yet"
    assert (
        words.share_read(Coverage(status=CoverageStatus.PARTIAL, complete=41, unknown=1)) == "41 of 42 read completely"
    )


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (frame(EventType.RESOURCE_CREATED, INSTANCE), "Instance vm-1 was created"),
        (frame(EventType.RESOURCE_CREATED, INSTANCE, change="recreated"), "Instance vm-1 was created again"),
        (frame(EventType.RESOURCE_UPDATED, INSTANCE, changed_fields=["status"]), "Instance vm-1 was updated: status"),
        (frame(EventType.RESOURCE_DELETED, INSTANCE), "Instance vm-1 was deleted"),
        (
            frame(EventType.POLICY_VIOLATED, INSTANCE, control="4.9", title="No public IP", severity="high"),
            "Instance vm-1 does not meet 4.9 (No public IP), high",
        ),
        (frame(EventType.POLICY_RESOLVED, INSTANCE, control="4.9"), "Instance vm-1 no longer violates 4.9"),
        (
            frame(EventType.SYNC_STATUS, None, status="failed", items_changed=1200, errors=["x: denied; grant y"]),
            "Real-time events: failed, 1,200 changed: x: denied; grant y",
        ),
        (frame(EventType.COST_SPIKE, None, message="compute doubled"), "compute doubled"),
        (
            frame(EventType.RESOURCE_UPDATED, INSTANCE | {"content_type": "IAM_POLICY"}),
            "IAM policy of Instance vm-1 was updated",
        ),
    ],
)
def test_an_event_is_one_sentence(event: FeedFrame, text: str) -> None:
    assert words.happened(event) == text


@pytest.mark.parametrize("event_type", list(EventType))
def test_an_event_without_details_still_says_something(event_type: EventType) -> None:
    assert words.happened(frame(event_type, None))


def test_every_state_has_a_sign_of_its_own_beside_its_colour() -> None:
    for signs, values in (
        (words.STATUS_SIGNS, list(Status)),
        (words.COVERAGE_SIGNS, list(CoverageStatus)),
        (words.EVENT_SIGNS, list(EventType)),
    ):
        assert set(signs) == set(values)
        assert len({sign.word for sign in signs.values()}) == len(values)


def test_every_layer_has_a_target_that_can_be_said() -> None:
    assert [words.span(layer.target) for layer in LAYERS] == ["5 min", "6 h", "5 min", "2 s", "24 h"]


def record(**values: Any) -> DeliveryRecord:
    known: dict[str, Any] = {
        "id": 1,
        "layer": LayerId.GIT,
        "delivery_id": "d-1",
        "event": "push",
        "action": None,
        "repository": "example/lz",
        "ref": "refs/heads/main",
        "commit_claim": "1a2b3c4d" + "0" * 32,
        "actor": "ada",
        "touched": None,
        "status": DeliveryStatus.DONE,
        "reason": None,
        "received_at": NOW,
        "finished_at": NOW,
        "resolved_sha": None,
        "claim": None,
        "missed": False,
        "late": None,
        "repair": None,
    }
    return DeliveryRecord(**(known | values))


POLL = {"event": "head_poll", "actor": None}


@pytest.mark.parametrize(
    ("values", "word", "what", "notes"),
    [
        ({}, "Synced", "push of 1a2b3c4 by ada", []),
        ({"touched": ("a",)}, "Synced", "push of 1a2b3c4 by ada, 1 path", []),
        ({"status": DeliveryStatus.PENDING, "touched": ("a", "b")}, "Waiting", "push of 1a2b3c4 by ada, 2 paths", []),
        (
            {"status": DeliveryStatus.IGNORED, "reason": "deletes main", "commit_claim": None},
            "Ignored",
            "push by ada",
            ["ignored: it deletes main"],
        ),
        (
            POLL | {"missed": True},
            "Missed",
            "new head 1a2b3c4 of example/lz",
            ["missed webhook, found by polling"],
        ),
        (
            POLL | {"late": timedelta(seconds=90)},
            "Synced",
            "new head 1a2b3c4 of example/lz",
            ["found by polling 1 min before its webhook came"],
        ),
        (
            {"late": timedelta(seconds=90)},
            "Synced",
            "push of 1a2b3c4 by ada",
            ["late: polling had found it 1 min before"],
        ),
        (
            {"repair": Repair("delivered", "502", 1)},
            "Synced",
            "push of 1a2b3c4 by ada",
            ["repaired: sent again, after GitHub could not deliver it: 502"],
        ),
        (
            {"event": "terraform_change", "layer": LayerId.API, "claim": "absent"},
            "Synced",
            "terraform change of 1a2b3c4 by ada",
            ["the synced head does not reach the commit that it claims"],
        ),
    ],
)
def test_a_delivery_is_told_with_what_is_out_of_the_ordinary(
    values: dict[str, Any], word: str, what: str, notes: list[str]
) -> None:
    delivery = record(**values)
    assert words.delivery_sign(delivery).word == word
    assert words.delivered(delivery) == what
    assert words.delivery_notes(delivery) == notes


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, None),
        ({"status": Status.IN_PROGRESS}, None),
        (
            {"status": Status.FAILED, "errors": ["repo: is gone; look"]},
            "The last git sync failed: repo: is gone; look.",
        ),
        ({"status": Status.STALE}, "The data is stale."),
        ({"status": Status.DISABLED}, "Git sync is switched off."),
        ({"status": Status.PARTIAL}, "The last git sync was partial."),
        ({"status": Status.UNKNOWN, "as_of": None}, "Nothing was read from the landing zone yet."),
        ({"status": Status.FAILED, "as_of": None, "errors": ["x"]}, "Nothing was read from the landing zone yet: x."),
        ({"status": Status.DISABLED, "as_of": None}, "Git sync is switched off, and nothing was ever read"),
    ],
)
def test_a_page_says_first_what_is_wrong_with_the_git_layer(values: dict[str, Any], text: str | None) -> None:
    notice = words.git_notice(status(**values), NOW + timedelta(hours=2))
    assert notice is None if text is None else (notice or "").startswith(text)
    if values.get("status") in (Status.FAILED, Status.STALE, Status.DISABLED) and "as_of" not in values:
        assert "the last good data, as of 2026-03-01 12:00 UTC (2 h ago)" in (notice or "")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "empty"),
        (0, "0"),
        (False, "false"),
        ("", "empty text"),
        ([], "empty list"),
        ({}, "empty mapping"),
        ([1, "a"], '[1,"a"]'),
        ("Tue", "Tue"),
    ],
)
def test_a_value_is_shown_as_it_is_written(content: Any, text: str) -> None:
    assert words.value(content) == text


def test_a_change_says_what_differs() -> None:
    def change(kind: str, before: Any, after: Any) -> str:
        return words.difference(ItemChange(ItemKind.GATE, "G", "x", "s", NOW, ItemDelta(kind), before, after))

    assert change("modified", 0.9, 0.95) == "0.9 → 0.95"
    assert change("added", None, 5) == "5"
    assert change("removed", True, None) == "was true"
    assert change("modified", {"line": 1, "status": "a", "title": "t"}, {"line": 2, "status": "b", "title": "t"}) == (
        "status: a → b"
    )
    assert change("added", None, {"title": "T", "status": None}) == "title: T"
    assert change("removed", {"title": "T"}, None) == "was title: T"
