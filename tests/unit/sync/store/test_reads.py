"""What a complete read proves, and what it does not, while the feed writes beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import Reason
from lz_sync_dagster.sync.models import CoverageStatus
from lz_sync_dagster.sync.state.observation import Observation, Source, observe
from lz_sync_dagster.sync.state.reducer import Breaker
from lz_sync_dagster.sync.store import Store, assets, breakers, reads
from lz_sync_dagster.sync.store.coverage import CoverageMark, mark
from lz_sync_dagster.sync.store.reads import Base, ReadResult
from lz_sync_dagster.sync.store.schema import coverage, resources, snapshots
from lz_sync_dagster.sync.timing import format_ns
from tests.conftest import NOW

SCOPE, TYPE = "folders/1", "compute.googleapis.com/Firewall"
PART = (SCOPE, TYPE, "RESOURCE")
NEVER = Breaker(1.0, 1_000)


def asset(name: str, *, update: int, observed: int, by: Source = Source.SNAPSHOT, deleted: bool = False) -> Observation:
    body: dict[str, Any] = {
        "name": f"//n/{name}",
        "assetType": TYPE,
        "updateTime": format_ns(update),
        "ancestors": ["projects/1", SCOPE],
    }
    if not deleted:
        body["resource"] = {"data": {"changed": update}}
    told = observe(body, scope=SCOPE, observed_ns=observed, source=by, deleted=deleted)
    return told if by is Source.FEED else with_bytes(told)


def with_bytes(observation: Observation) -> Observation:
    """A snapshot's observation, with the fingerprint that these bytes have."""
    return replace(observation, fingerprint=f"{observation.name[-4:]}@{observation.update_ns}".ljust(16)[:16].encode())


def take(store: Store, *items: Observation) -> None:
    with store.write(exclusive=assets.LOCK) as connection:
        assets.apply(connection, items, layer=LayerId.API, now=NOW, evaluate=lambda *_: [])


def begin(store: Store) -> Base:
    with store.read() as connection:
        return reads.base_of(connection, PART)


def see(store: Store, base: Base, *items: Observation) -> set[str]:
    """Take in what a read shows, as the loader does: bytes that are known are not looked into."""
    new = []
    for item in items:
        assert item.fingerprint is not None
        if item.fingerprint in base.seen:
            base.seen[item.fingerprint] = True
        else:
            new.append(item)
    take(store, *new)
    return {item.name for item in new}


def finish(store: Store, base: Base, read_ns: int, names: set[str], total: int, breaker: Breaker = NEVER) -> ReadResult:
    return reads.finish_read(
        store,
        base,
        read_ns=read_ns,
        names=names,
        total=total,
        layer=LayerId.API,
        clock=lambda: NOW,
        breaker=breaker,
    )


def read(store: Store, read_ns: int, *names: str, breaker: Breaker = NEVER) -> ReadResult:
    """A whole read that shows assets which have not changed since instant 1."""
    base = begin(store)
    shown = [asset(name, update=1, observed=read_ns) for name in names]
    return finish(store, base, read_ns, see(store, base, *shown), len(shown), breaker)


def rows(store: Store) -> dict[str, Any]:
    with store.read() as connection:
        return {row.name.rpartition("/")[2]: row for row in connection.execute(sa.select(resources))}


def existing(store: Store) -> set[str]:
    return {name for name, row in rows(store).items() if not row.deleted}


def test_a_read_that_shows_all_writes_no_row(store: Store) -> None:
    read(store, 5, "a", "b")
    before = rows(store)
    assert read(store, 6, "a", "b") == ReadResult(deleted=0, missing=0, withheld=False, lost=0, known=2)
    assert rows(store) == before
    with store.read() as connection:
        proven = connection.execute(sa.select(coverage)).one()
        ledger = list(connection.scalars(sa.select(snapshots.c.read_ns).order_by(snapshots.c.read_ns)))
    assert (proven.status, proven.complete_read_ns, proven.assets) == ("complete", 6, 2)
    assert ledger == [5, 6]


def test_what_is_marked_absent_is_not_among_the_known_bytes(store: Store) -> None:
    """So that a read which shows it again looks at it, and takes the mark away."""
    read(store, 5, "a", "b")
    read(store, 6, "a")
    base = begin(store)
    assert (len(base.seen), base.rows) == (1, 2)
    read(store, 7, "a", "b")
    assert rows(store)["b"].absent_ns is None
    read(store, 8, "a")
    assert existing(store) == {"a", "b"}, "it was seen between the two reads that lack it"


def test_what_went_beside_the_read_does_not_make_up_for_what_the_read_lacks(store: Store) -> None:
    """They are counted against each other only if nobody else wrote."""
    read(store, 5, "a", "shown", "lost")
    base = begin(store)
    names = see(store, base, asset("a", update=1, observed=9), asset("shown", update=1, observed=9))
    take(store, asset("shown", update=10, observed=10, by=Source.FEED, deleted=True))
    assert finish(store, base, 9, names, 2).missing == 1
    assert rows(store)["lost"].absent_ns == 9


def test_what_changed_beside_the_read_and_was_shown_as_it_was_before_is_not_missing(store: Store) -> None:
    read(store, 5, "a", "b")
    base = begin(store)
    names = see(store, base, asset("a", update=1, observed=9), asset("b", update=1, observed=9))
    take(store, asset("b", update=7, observed=7, by=Source.FEED))
    assert finish(store, base, 9, names, 2).missing == 0
    assert rows(store)["b"].absent_ns is None


def test_what_changed_beside_the_read_and_was_not_shown_at_all_is_missing(store: Store) -> None:
    read(store, 5, "a", "b")
    base = begin(store)
    names = see(store, base, asset("a", update=1, observed=9))
    take(store, asset("b", update=7, observed=7, by=Source.FEED))
    assert finish(store, base, 9, names, 1).missing == 1
    assert rows(store)["b"].absent_ns == 9


def test_what_the_feed_created_after_the_read_time_is_not_missing(store: Store) -> None:
    read(store, 5, "a")
    base = begin(store)
    names = see(store, base, asset("a", update=1, observed=9))
    take(store, asset("new", update=11, observed=11, by=Source.FEED))
    assert finish(store, base, 9, names, 1).missing == 0
    assert existing(store) == {"a", "new"}


class Beside(Store):
    """A store before whose n-th write somebody else writes."""

    def __init__(self, engine: sa.Engine, before: int, *items: Observation) -> None:
        super().__init__(engine)
        self._other, self._before, self._items = Store(engine), before, items

    @contextmanager
    def write(self, exclusive: str | None = None) -> Iterator[sa.Connection]:
        self._before -= 1
        if self._before == 0:
            take(self._other, *self._items)
        with super().write(exclusive) as connection:
            yield connection


def test_what_the_feed_tells_after_the_rows_were_looked_at_is_not_marked(store: Store) -> None:
    read(store, 5, "a", "b")
    base = begin(store)
    names = see(store, base, asset("a", update=1, observed=9))
    beside = Beside(store.engine, 1, asset("b", update=12, observed=12, by=Source.FEED))
    finish(beside, base, 9, names, 1)
    row = rows(store)["b"]
    assert (row.deleted, row.absent_ns, row.seen_ns, row.update_ns) == (False, None, 12, 12)


@pytest.mark.parametrize("before", [1, 2], ids=["before the proof", "after the proof, before the deletion"])
def test_what_the_feed_tells_before_the_deletion_is_not_deleted(store: Store, before: int) -> None:
    read(store, 5, "a", "b")
    read(store, 6, "a")
    base = begin(store)
    names = see(store, base, asset("a", update=1, observed=9))
    beside = Beside(store.engine, before, asset("b", update=12, observed=12, by=Source.FEED))
    assert finish(beside, base, 9, names, 1).deleted == 0
    assert existing(store) == {"a", "b"}


def test_a_read_that_was_cut_short_before_its_proof_proves_nothing(store: Store) -> None:
    class Gone(BaseException):
        pass

    class Mortal(Store):
        left = 1

        @contextmanager
        def write(self, exclusive: str | None = None) -> Iterator[sa.Connection]:
            if self.left == 0:
                raise Gone
            self.left -= 1
            with super().write(exclusive) as connection:
                yield connection

    read(store, 5, "a", "b", "c")
    read(store, 6, "a", "b")
    base = begin(store)
    names = see(store, base, asset("a", update=1, observed=9))
    with pytest.raises(Gone):
        finish(Mortal(store.engine), base, 9, names, 1)
    with store.read() as connection:
        assert connection.scalar(sa.select(coverage.c.complete_read_ns)) == 6
    assert existing(store) == {"a", "b", "c"}
    assert read(store, 10, "a").deleted == 1
    assert existing(store) == {"a", "b"}, "b was missing once in a complete read, c twice"


def confirm(store: Store) -> reads.Confirmation:
    with store.read() as connection:
        [waiting] = breakers.open_breakers(connection)
    return reads.confirm_losses(store, PART, fingerprint=waiting.fingerprint, actor="ann", clock=lambda: NOW)


def test_of_a_read_that_a_person_confirms_also_what_it_lacked_for_the_first_time_counts(store: Store) -> None:
    """The breaker withholds a whole read: what was missing twice is to be deleted, what was missing once is to be
    missing once when the read counts after all."""
    read(store, 5, "a", "b", "c")
    read(store, 6, "a", "b")
    assert read(store, 7, "a", breaker=Breaker(0.2, 1)).withheld
    assert existing(store) == {"a", "b", "c"}
    assert confirm(store).deleted == 1
    assert existing(store) == {"a", "b"}
    assert read(store, 8, "a").deleted == 1
    assert existing(store) == {"a"}


def test_a_read_that_nobody_confirms_counts_for_nothing(store: Store) -> None:
    read(store, 5, "a", "b", "c")
    read(store, 6, "a", "b")
    assert read(store, 7, "a", breaker=Breaker(0.2, 1)).withheld
    assert read(store, 8, "a", "c").deleted == 0
    assert existing(store) == {"a", "b", "c"}, "b was missing in one read that counts"
    assert rows(store)["c"].absent_ns is None


def test_a_confirmation_does_not_hide_that_a_later_read_failed(store: Store) -> None:
    def status() -> tuple[str, str | None, int]:
        with store.read() as connection:
            row = connection.execute(sa.select(coverage)).one()
        return row.status, row.reason, row.complete_read_ns

    for reason, after in [(Reason.PERMISSION_DENIED, "partial"), (Reason.BREAKER_OPEN, "complete")]:
        first = 10 if after == "partial" else 20
        read(store, first, "a", "b")
        read(store, first + 1, "a")
        assert read(store, first + 2, "a", breaker=Breaker(0.2, 1)).withheld
        with store.write() as connection:
            mark(connection, [CoverageMark(*PART, CoverageStatus.PARTIAL, reason, "why", "what to do")], now=NOW)
        confirm(store)
        assert status() == (after, reason.value if after == "partial" else None, first + 2)


def test_what_a_withheld_read_held_is_known_when_a_person_says_that_it_counts(store: Store) -> None:
    """Also after reads that prove nothing; it showed more than the part's own assets, those of a scope within."""
    opens = Breaker(0.2, 1)
    read(store, 5, "a", "lost")
    read(store, 6, "a", breaker=opens)
    base = begin(store)
    names = see(store, base, asset("a", update=1, observed=7))
    assert finish(store, base, 7, names, 3, opens).withheld
    with store.write(exclusive=assets.LOCK) as connection:
        for read_ns in (8, 9):
            reads.record_incomplete(connection, PART, read_ns=read_ns, assets=4, now=NOW)
    with store.read() as connection:
        [waiting] = breakers.open_breakers(connection)
    confirmed = reads.confirm_losses(store, PART, fingerprint=waiting.fingerprint, actor="somebody", clock=lambda: NOW)
    assert confirmed.deleted == 1
    with store.read() as connection:
        kept = {(row.read_ns, row.complete): row.assets for row in connection.execute(sa.select(snapshots))}
        assert connection.scalar(sa.select(coverage.c.assets)) == 3
    assert kept == {(5, True): 2, (6, True): 1, (7, True): 3, (9, False): 4}
