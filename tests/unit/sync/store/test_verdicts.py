"""Findings and tallies follow the controls, also those of assets that stay as they are."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.compliance.verdict import Evaluator, Outcome, Verdict
from lz_sync_dagster.sync.models import EventType
from lz_sync_dagster.sync.state.observation import Source, observe
from lz_sync_dagster.sync.store import Store, assets, event_log, findings, verdicts
from lz_sync_dagster.sync.store.schema import resources
from tests.conftest import NOW

PASS, FAIL, UNKNOWN = Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN


def says(**outcomes: Outcome) -> Evaluator:
    """An evaluator of one control per framework."""

    def evaluate(asset_type: str, content_type: str, name: str, data: Any) -> list[Verdict]:
        return [
            Verdict("3.6", framework, "a title", "high", "cis", outcome, "a message")
            for framework, outcome in outcomes.items()
        ]

    return evaluate


def take(store: Store, version: int, evaluate: Evaluator, *, count: int = 1) -> None:
    items = [
        observe(
            {"name": f"//x/{number}", "assetType": "x/Y", "resource": {"data": {"version": version}}},
            scope="organizations/1",
            observed_ns=version,
            source=Source.FEED,
        )
        for number in range(count)
    ]
    with store.write(exclusive=assets.LOCK) as connection:
        assets.apply(connection, items, layer=LayerId.API, now=NOW, evaluate=evaluate)


def refresh(store: Store, fingerprint: str, evaluate: Evaluator) -> int:
    return verdicts.refresh(store, fingerprint, evaluate, layer=LayerId.API, now=NOW)


def standing(store: Store) -> tuple[int, int, int, int]:
    """Decided, failed, unknown; and the open findings."""
    columns = [resources.c[f"controls_{name}"] for name in ("decided", "failed", "unknown")]
    with store.read() as connection:
        decided, failed, unknown = connection.execute(sa.select(*[sa.func.sum(column) for column in columns])).one()
        return int(decided), int(failed), int(unknown), findings.count_open(connection)


def policy_events(store: Store) -> list[EventType]:
    with store.read() as connection:
        frames = event_log.after(connection, 0, limit=1000)
    return [frame.event_type for frame in frames if frame.event_type.value.startswith("policy")]


def test_two_frameworks_may_use_one_number(store: Store) -> None:
    take(store, 1, says(old=FAIL, new=PASS))
    assert standing(store) == (2, 1, 0, 1)
    take(store, 2, says(old=PASS, new=FAIL))
    assert standing(store) == (2, 1, 0, 1)
    with store.read() as connection:
        ((_, violation),) = findings.open_violations(connection, limit=10)
    assert violation.framework == "new"


def test_a_finding_that_stays_open_while_undecided_counts_as_failed(store: Store) -> None:
    take(store, 1, says(a=FAIL, b=UNKNOWN))
    assert standing(store) == (1, 1, 1, 1)
    take(store, 2, says(a=UNKNOWN, b=UNKNOWN))
    assert standing(store) == (1, 1, 1, 1)
    take(store, 3, says(a=PASS, b=UNKNOWN))
    assert standing(store) == (1, 0, 1, 0)


def test_other_controls_judge_what_is_there(store: Store) -> None:
    take(store, 1, says(a=PASS), count=3)
    assert refresh(store, "one", says(a=PASS)) == 3
    assert policy_events(store) == []
    assert refresh(store, "two", says(a=FAIL)) == 3
    assert standing(store) == (3, 3, 0, 3)
    assert policy_events(store) == [EventType.POLICY_VIOLATED] * 3
    assert refresh(store, "three", says(a=UNKNOWN)) == 3
    assert standing(store) == (3, 3, 0, 3)
    assert refresh(store, "four", says(b=PASS)) == 3
    assert standing(store) == (3, 0, 0, 0)
    assert policy_events(store)[3:] == [EventType.POLICY_RESOLVED] * 3


def test_the_same_controls_judge_nothing_anew(store: Store) -> None:
    take(store, 1, says(a=PASS))
    refresh(store, "one", says(a=PASS))
    assert refresh(store, "one", says(a=FAIL)) == 0
    assert standing(store) == (1, 0, 0, 0)


def test_a_refresh_that_was_cut_short_is_done_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "_CHUNK", 2)
    take(store, 1, says(a=PASS), count=5)
    seen: list[str] = []

    def breaks(asset_type: str, content_type: str, name: str, data: Any) -> list[Verdict]:
        seen.append(name)
        if len(seen) > 3:
            raise RuntimeError("the process is gone")
        return says(a=FAIL)(asset_type, content_type, name, data)

    with pytest.raises(RuntimeError):
        refresh(store, "two", breaks)
    assert standing(store) == (5, 2, 0, 2)
    assert refresh(store, "two", says(a=FAIL)) == 5
    assert standing(store) == (5, 5, 0, 5)
    assert policy_events(store) == [EventType.POLICY_VIOLATED] * 5


def test_what_is_gone_is_not_judged(store: Store) -> None:
    take(store, 1, says(a=PASS))
    gone = observe(
        {"name": "//x/0", "assetType": "x/Y"}, scope="organizations/1", observed_ns=2, source=Source.FEED, deleted=True
    )
    with store.write(exclusive=assets.LOCK) as connection:
        assets.apply(connection, [gone], layer=LayerId.API, now=NOW, evaluate=says(a=PASS))
    assert refresh(store, "two", says(a=FAIL)) == 0
    assert standing(store) == (0, 0, 0, 0)
