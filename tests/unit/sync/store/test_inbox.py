"""What the inbox says of requests: who settled them, what became of their claims, what was missed or came late."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.store import Store, inbox
from lz_sync_dagster.sync.store.inbox import DeliveryRecord, NewDelivery, Repair
from lz_sync_dagster.sync.store.schema import delivery_repairs, head_moves
from tests.conftest import NOW

A, B, C = ("a" * 40, "b" * 40, "c" * 40)


def push(store: Store, commit: str | None, number: int = 1, *, minutes: float = 0.0) -> None:
    delivery = NewDelivery(
        f"d-{number}", f"h-{number}", "push", "example/lz", ref="refs/heads/main", commit_claim=commit
    )
    with store.write() as connection:
        assert inbox.insert(connection, delivery, now=NOW + timedelta(minutes=minutes))


def saw(store: Store, head: str) -> None:
    """A sync has seen this head last."""
    with store.write() as connection:
        connection.execute(
            head_moves.insert().values(new_sha=head, kind="forward", commits=1, triggered_by="test", seen_at=NOW)
        )


def poll(store: Store, head: str, *, minutes: float = 0.0) -> str | None:
    with store.write() as connection:
        now = NOW + timedelta(minutes=minutes)
        return inbox.insert_head(connection, head, repository="example/lz", ref="refs/heads/main", now=now)


def settle(store: Store, head: str | None = None, *, absent: frozenset[str] = frozenset()) -> int:
    with store.write() as connection:
        waiting = inbox.pending(connection)
        return inbox.finish(connection, waiting, run_id="1", now=NOW, head=head, absent=absent)


def records(store: Store) -> dict[str, DeliveryRecord]:
    with store.read() as connection:
        return {record.delivery_id: record for record in inbox.records(connection, limit=100)}


def missed(store: Store) -> int:
    with store.read() as connection:
        return inbox.missed(connection)


def test_a_settled_delivery_says_by_which_head_and_whether_its_claim_was_reached(store: Store) -> None:
    push(store, A, 1)
    push(store, B, 2)
    push(store, None, 3)
    assert settle(store, C, absent=frozenset({B, "f" * 40})) == 3
    found = {key: (record.resolved_sha, record.claim) for key, record in records(store).items()}
    assert found == {"d-1": (C, "reached"), "d-2": (C, "absent"), "d-3": (C, None)}


def test_without_a_head_nothing_is_said_of_a_claim(store: Store) -> None:
    push(store, A)
    settle(store)
    (record,) = records(store).values()
    assert (record.status, record.resolved_sha, record.claim) == ("done", None, None)


def test_a_request_of_another_layer_is_made_once_and_is_no_delivery(store: Store) -> None:
    def ask() -> bool:
        with store.write() as connection:
            return inbox.request(
                connection,
                LayerId.API,
                key=f"inventory-{A}",
                event="terraform_change",
                actor="ada",
                commit=A,
                now=NOW,
            )

    assert (ask(), ask()) == (True, False)
    with store.read() as connection:
        (request,) = inbox.pending(connection, LayerId.API)
        assert (request.layer, request.event, request.commit_claim) == (LayerId.API, "terraform_change", A)
        assert inbox.pending(connection) == []
        counts = inbox.counts(connection)
        assert (counts.received, counts.pending, counts.oldest_pending) == (0, 0, None)
    with store.write() as connection:
        assert inbox.finish(connection, [request], run_id="1", now=NOW) == 1
        assert inbox.finished_since(connection, None) == 0
    assert ask() is False, "a key asks once, for ever"


def test_nothing_is_news_before_a_sync_has_seen_a_head(store: Store) -> None:
    assert poll(store, A) is None


def test_a_head_that_nobody_told_of_is_missed_until_a_delivery_tells_of_it_which_is_then_late(store: Store) -> None:
    saw(store, A)
    assert poll(store, B) == f"poll-{B}"
    assert poll(store, B) is None, "it asks once"
    assert missed(store) == 1
    assert records(store)[f"poll-{B}"].missed is True
    settle(store, B)
    assert missed(store) == 1, "that polling had it synced does not make the webhook come"

    push(store, B, minutes=2)
    found = records(store)
    assert missed(store) == 0
    assert (found[f"poll-{B}"].missed, found[f"poll-{B}"].late) == (False, timedelta(minutes=2))
    assert (found["d-1"].missed, found["d-1"].late) == (False, timedelta(minutes=2))


def test_only_what_was_found_since_counts_as_missed_since(store: Store) -> None:
    saw(store, A)
    poll(store, B)
    with store.read() as connection:
        assert inbox.missed(connection, NOW - timedelta(seconds=1)) == 1
        assert inbox.missed(connection, NOW) == 0


def test_a_head_that_a_pending_delivery_tells_of_is_no_news(store: Store) -> None:
    saw(store, A)
    push(store, B)
    assert poll(store, B) is None


def test_a_remote_that_comes_back_to_an_old_head_is_news_each_time(store: Store) -> None:
    push(store, A, 1)
    settle(store, A)
    saw(store, A)
    push(store, B, 2)
    settle(store, B)
    saw(store, B)
    assert poll(store, A, minutes=1) == f"poll-{A}", "the delivery of then does not tell of now"
    assert missed(store) == 1
    settle(store, A)
    saw(store, A)
    saw(store, B)
    assert poll(store, A, minutes=2) == f"poll-{A}-2"
    assert missed(store) == 2


def test_a_commit_that_the_synced_head_did_not_reach_is_news_when_it_is_the_head(store: Store) -> None:
    push(store, B)
    settle(store, A, absent=frozenset({B}))
    saw(store, A)
    assert poll(store, B) == f"poll-{B}"


def test_a_repaired_delivery_says_so(store: Store) -> None:
    push(store, A)
    with store.write() as connection:
        connection.execute(
            delivery_repairs.insert().values(
                delivery_id="d-1",
                event="push",
                delivered_at=NOW,
                failure="502 Bad Gateway",
                attempts=1,
                requested_at=NOW,
                outcome="delivered",
            )
        )
    assert records(store)["d-1"].repair == Repair("delivered", "502 Bad Gateway", 1)


def test_records_are_paged_newest_first(store: Store) -> None:
    for number in range(5):
        push(store, None, number)
    with store.read() as connection:
        newest = inbox.records(connection, limit=2)
        older = inbox.records(connection, limit=10, before=newest[-1].id)
        total = connection.scalar(sa.select(sa.func.count()).select_from(inbox.inbox))
    assert [record.delivery_id for record in newest + older] == ["d-4", "d-3", "d-2", "d-1", "d-0"]
    assert total == 5
