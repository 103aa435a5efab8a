"""A part's pages come into the store: what is known costs nothing, what is cut short proves nothing."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from google.cloud.asset_v1 import Asset, RelatedAsset, Resource

from demo.asset_server import encode_asset
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory import taking
from lz_sync_dagster.sync.inventory.decode_pool import DecodePool
from lz_sync_dagster.sync.inventory.loading import Ended, PartLoader, incomplete
from lz_sync_dagster.sync.inventory.reader import Page
from lz_sync_dagster.sync.inventory.taking import Loaded, Taker
from lz_sync_dagster.sync.state.reducer import Breaker
from lz_sync_dagster.sync.store import Store, data_fields
from lz_sync_dagster.sync.store.quota import Cancelled
from lz_sync_dagster.sync.store.schema import (
    coverage,
    dead_letters,
    event_log,
    resource_contents,
    resource_versions,
    resources,
    snapshots,
)
from lz_sync_dagster.sync.timing import Clock
from tests.conftest import NOW, BusyPool

TYPE = "compute.googleapis.com/Network"
PART = ("folders/1", TYPE, "RESOURCE")


class Parts:
    """A reader that reads these pages of each part, and fails after those of the parts with an error."""

    def __init__(self, pages: dict[Any, list[Page]], errors: dict[Any, Exception] | None = None) -> None:
        self.pages, self.errors = pages, errors or {}
        self.begun: list[Any] = []

    def read(self, part: Any) -> Generator[Page]:
        self.begun.append(part)
        return self._read(part)

    def _read(self, part: Any) -> Generator[Page]:
        yield from self.pages[part]
        if part in self.errors:
            raise self.errors[part]


def network(
    name: str, asset_type: str = TYPE, *, above: Sequence[str] = ("projects/1", "folders/1"), **data: Any
) -> bytes:
    body: bytes = Asset.serialize(
        Asset(
            name=f"//n/{name}",
            asset_type=asset_type,
            resource=Resource(data={"id": name, **data}),
            ancestors=above,
            update_time={"seconds": 10},
        )
    )
    return body


def pages(read_s: int, *bodies: bytes, size: int = 1) -> list[Page]:
    """A whole read."""
    chunks = [list(bodies[start : start + size]) for start in range(0, len(bodies), size)] or [[]]
    return [Page(read_s * 10**9, chunk, number == len(chunks), number) for number, chunk in enumerate(chunks, start=1)]


def load_all(store: Store, reader: Parts, *, busy: bool = False, clock: Clock = lambda: NOW) -> Generator[Ended]:
    """Load every part of a reader; all scopes are configured.

    Args:
        busy: whether what is decoded has to be waited for, while other parts are read.
    """
    scopes = [part[0] for part in reader.pages]
    taker = Taker(store, lambda *_: [], clock=clock, scopes=scopes)
    pool = BusyPool(lambda *_: []) if busy else DecodePool(lambda *_: [], processes=0)
    yield from PartLoader(store, reader, pool, taker, Breaker(), clock=clock, scopes=scopes).load(list(reader.pages))


def load(store: Store, *read: Page, part: Any = PART) -> Loaded:
    (ended,) = load_all(store, Parts({part: list(read)}))
    assert ended.error is None
    return ended.loaded


def fail(store: Store, error: Exception, *read: Page) -> Ended:
    """Load pages after which the read fails."""
    (ended,) = load_all(store, Parts({PART: list(read)}, {PART: error}))
    return ended


def rows(store: Store) -> dict[str, Any]:
    with store.read() as connection:
        return {row.name.rpartition("/")[2]: row for row in connection.execute(sa.select(resources))}


def count(store: Store, table: sa.Table) -> int:
    with store.read() as connection:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)


def proven(store: Store) -> list[tuple[str, int | None, int | None]]:
    with store.read() as connection:
        found = connection.execute(sa.select(coverage.c.status, coverage.c.complete_read_ns, coverage.c.assets))
        return [tuple(row) for row in found]  # type: ignore[misc]


def test_what_is_known_is_neither_decoded_nor_written(store: Store) -> None:
    bodies = [network(name) for name in "abc"]
    first = load(store, *pages(50, *bodies))
    assert (first.assets, first.decoded, first.applied.created, first.baseline) == (3, 3, 3, True)
    before = rows(store)
    again = load(store, *pages(60, *bodies, size=2))
    assert (again.assets, again.decoded, again.applied.changed, again.baseline) == (3, 0, 0, False)
    assert rows(store) == before
    assert proven(store) == [("complete", 60 * 10**9, 3)]


def test_a_baseline_is_no_news_and_what_comes_later_is(store: Store) -> None:
    load(store, *pages(50, network("a")))
    assert count(store, event_log) == 0
    load(store, *pages(60, network("a", routed=True), network("b")))
    assert count(store, event_log) == 2


def test_a_read_that_begins_anew_proves_what_its_last_read_time_shows(store: Store) -> None:
    """Its first pages are observations all the same: the assets were there then."""
    load(store, *pages(40, network("a"), network("b")))
    cut = pages(50, network("a"), network("b"), network("new"), network("more"))[:3]
    loaded = load(store, *cut, *pages(60, network("a")))
    assert (loaded.read_ns, loaded.assets, loaded.applied.created) == (60 * 10**9, 1, 1)
    assert proven(store) == [("complete", 60 * 10**9, 1)]
    missing = {name: row.absent_ns for name, row in rows(store).items()}
    assert missing == {"a": None, "b": 60 * 10**9, "new": 60 * 10**9}, "what the first pages showed is no excuse"
    assert loaded.result is not None
    assert loaded.result.missing == 2


def test_a_read_that_fails_keeps_what_it_saw_and_proves_nothing(store: Store) -> None:
    load(store, *pages(40, network("a"), network("b")))
    error = SyncError("is denied", where="there", remedy="ask", reason=Reason.PERMISSION_DENIED)
    _, loaded, raised = fail(store, error, *pages(50, network("a"), network("new"), network("more"))[:2])
    assert raised is error
    assert (loaded.calls, loaded.assets, loaded.applied.created, loaded.result) == (2, 2, 1, None)
    assert set(rows(store)) == {"a", "b", "new"}
    assert {row.absent_ns for row in rows(store).values()} == {None}
    assert proven(store) == [("complete", 40 * 10**9, 2)]
    assert count(store, snapshots) == 1


def test_the_same_content_in_other_bytes_is_no_change_and_is_known_the_next_time(store: Store) -> None:
    def told(*order: str) -> bytes:
        data = {"id": "a", "labels": "x", "routingMode": "GLOBAL", "mtu": 1460}
        return encode_asset(
            {
                "name": "//n/a",
                "assetType": TYPE,
                "updateTime": "2026-03-01T00:00:00Z",
                "ancestors": ["projects/1", "folders/1"],
                "resource": {"data": {key: data[key] for key in order}},
            },
            "RESOURCE",
        )

    one, other = told("id", "labels", "routingMode", "mtu"), told("mtu", "routingMode", "labels", "id")
    assert one != other
    load(store, *pages(1_800_000_000, one))
    seen = rows(store)["a"]
    changed = load(store, *pages(1_800_000_060, other))
    assert (changed.decoded, changed.applied.changed, changed.applied.events) == (1, 0, 0)
    row = rows(store)["a"]
    assert row.fingerprint != seen.fingerprint
    assert (row.version, row.digest, row.content_id, row.written) == (1, seen.digest, seen.content_id, seen.written)
    assert load(store, *pages(1_800_000_120, other)).decoded == 0
    assert (count(store, resource_versions), count(store, resource_contents)) == (0, 1)


def test_an_asset_that_cannot_be_used_is_a_dead_letter_and_the_read_proves_no_absence(store: Store) -> None:
    load(store, *pages(40, network("a"), network("b")))
    odd = Asset.serialize(Asset(name="", asset_type=TYPE))
    loaded = load(store, *pages(50, network("a"), odd))
    assert (loaded.unusable, loaded.result) == (1, None)
    assert count(store, dead_letters) == 1
    why = incomplete(PART, loaded)
    assert why is not None
    assert why.reason is Reason.INVALID
    assert rows(store)["b"].absent_ns is None
    assert proven(store) == [("complete", 40 * 10**9, 2)], "whoever called marks it"


@pytest.mark.parametrize("size", [1, 2, 5])
def test_more_than_one_transaction_of_assets(store: Store, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr("lz_sync_dagster.sync.inventory.taking._AT_ONCE", 2)
    monkeypatch.setattr("lz_sync_dagster.sync.inventory.taking._AT_ONCE_IN_A_BASELINE", 3)
    loaded = load(store, *pages(50, *[network(f"n{number}") for number in range(7)], size=size))
    assert (loaded.applied.created, len(rows(store))) == (7, 7)
    assert 3 <= len({row.written for row in rows(store).values()}) <= 4
    loaded = load(store, *pages(60, *[network(f"n{number}", mtu=1) for number in range(7)], size=size))
    assert (loaded.applied.updated, len(rows(store))) == (7, 7)
    assert 4 <= len({row.written for row in rows(store).values()}) <= 5


def test_a_baseline_of_which_something_is_known_already(store: Store) -> None:
    """A read that failed left it there."""
    error = SyncError("is denied", where="there", remedy="ask", reason=Reason.PERMISSION_DENIED)
    fail(store, error, *pages(40, network("a"), network("b"))[:1])
    loaded = load(store, *pages(50, network("a"), network("b"), network("c")))
    assert (loaded.baseline, loaded.applied.created) == (True, 2)
    assert {name: row.version for name, row in rows(store).items()} == {"a": 1, "b": 1, "c": 1}
    assert proven(store) == [("complete", 50 * 10**9, 3)]


def test_why_a_read_failed_is_not_lost_over_what_it_had_seen(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    load(store, *pages(40, network("a")))

    def refuse(*_: object, **__: object) -> None:
        raise TypeError("odd")

    monkeypatch.setattr("lz_sync_dagster.sync.inventory.taking._MAX_REFUSED", 0)
    monkeypatch.setattr("lz_sync_dagster.sync.store.assets.apply", refuse)
    error = SyncError("the quota is used up", where="there", remedy="wait", reason=Reason.QUOTA)
    assert fail(store, error, *pages(50, network("b"), network("c"))[:1]).error is error


def test_drift_is_told_of_whatever_part_shows_it(store: Store) -> None:
    """A type of which nothing was known has no drift; a kind that another scope shows in the same sync is one."""
    other = ("folders/2", TYPE, "RESOURCE")

    def both(read_s: int, ours: dict[str, Any], theirs: dict[str, Any]) -> list[tuple[str, str]]:
        shown = {PART: pages(read_s, network("a"), network("b", **ours)), other: pages(read_s, network("c", **theirs))}
        now = iter(NOW + timedelta(seconds=read_s * 100 + step) for step in range(100))
        assert [ended.error for ended in load_all(store, Parts(shown), clock=lambda: next(now))] == [None, None]
        with store.read() as connection:
            return [(field.path, field.drift.value) for field in data_fields.drifted(connection)]

    load(store, *pages(30))
    assert both(40, {}, {}) == []
    assert both(50, {"p": "text"}, {"p": 7.5}) == [("p", "changed_type")]


# --- several parts ----------------------------------------------------------------------------------------------------

OTHER_TYPES = [f"compute.googleapis.com/Kind{number}" for number in range(6)]


def part(number: int) -> tuple[str, str, str]:
    """Parts of one scope."""
    return ("folders/1", OTHER_TYPES[number], "RESOURCE")


def kind(number: int, *names: str, **data: Any) -> list[bytes]:
    return [network(name, OTHER_TYPES[number], **data) for name in names]


however_busy = pytest.mark.parametrize("busy", [False, True])


@however_busy
def test_parts_are_over_in_their_order_and_are_what_they_are_alone(store: Store, busy: bool) -> None:
    shown = {part(number): pages(50, *kind(number, f"a{number}", f"b{number}", f"c{number}")) for number in range(6)}
    told = list(load_all(store, Parts(shown), busy=busy))
    assert [(ended.part, ended.error, ended.loaded.applied.created) for ended in told] == [
        (part(number), None, 3) for number in range(6)
    ]
    assert len(rows(store)) == 18
    assert [row[0] for row in proven(store)] == ["complete"] * 6


@however_busy
def test_no_more_than_two_parts_are_under_way(store: Store, busy: bool) -> None:
    """Whatever waits for being decoded: an unchanged part that is read meanwhile does not wait for it with others."""
    for number in range(6):
        load(store, *pages(40, *kind(number, "x")), part=part(number))
    shown = {part(number): pages(50, *kind(number, "x", *["new"] * (number == 0))) for number in range(6)}
    reader = Parts(shown)
    ahead = [len(reader.begun) - done for done, _ in enumerate(load_all(store, reader, busy=busy), start=1)]
    assert max(ahead) <= 2
    assert ahead[0] >= 1, "the next part is begun before the first one is over"


@however_busy
def test_nothing_is_begun_before_somebody_knows_that_a_part_failed(store: Store, busy: bool) -> None:
    denied = SyncError("the quota is used up", where="there", remedy="wait", reason=Reason.QUOTA)
    reader = Parts({part(number): pages(50, *kind(number, f"n{number}")) for number in range(3)}, {part(1): denied})
    told = load_all(store, reader, busy=busy)
    assert next(told).error is None
    assert next(told).error is denied
    assert reader.begun == [part(0), part(1)]
    told.close()
    assert set(rows(store)) == {"n0", "n1"}, "what was seen is kept"
    assert len(proven(store)) == 1


@however_busy
def test_a_part_that_the_store_refuses_costs_no_other_part(
    store: Store, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    """The one before it is not over when it begins, and the next one is begun before it is taken in."""
    insert_new = taking.insert_new

    def refuse(connection: sa.Connection, batch: Any, **options: Any) -> Any:
        if any(item.name == "//n/n1" for item in batch):
            raise RuntimeError("defect")
        return insert_new(connection, batch, **options)

    monkeypatch.setattr(taking, "insert_new", refuse)
    shown = {part(number): pages(50, *kind(number, f"n{number}", f"m{number}")) for number in range(3)}
    told = list(load_all(store, Parts(shown), busy=busy))
    assert [(ended.part, repr(ended.error)) for ended in told] == [
        (part(0), "None"),
        (part(1), "RuntimeError('defect')"),
        (part(2), "None"),
    ]
    assert set(rows(store)) == {"n0", "m0", "n2", "m2"}
    assert len(proven(store)) == 2


@however_busy
def test_who_is_asked_to_stop_keeps_the_part_that_was_read_before(store: Store, busy: bool) -> None:
    class Stopped(Parts):
        def read(self, part: Any) -> Generator[Page]:
            if self.begun:
                raise Cancelled
            return super().read(part)

    reader = Stopped({part(number): pages(50, *kind(number, f"n{number}")) for number in range(2)})
    told = list(load_all(store, reader, busy=busy))
    assert [type(ended.error) for ended in told] == [type(None), Cancelled]
    assert len(proven(store)) == 1


@however_busy
@pytest.mark.parametrize(
    "raised", [Cancelled(), SyncError("is used up", where="there", remedy="wait", reason=Reason.QUOTA)]
)
def test_why_a_read_failed_is_not_lost_over_a_defect_of_taking_in(
    store: Store, monkeypatch: pytest.MonkeyPatch, raised: Exception, busy: bool
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise sa.exc.IntegrityError("insert", {}, Exception("odd"))

    monkeypatch.setattr(Taker, "take", refuse)
    reader = Parts({part(number): pages(50, *kind(number, "n")) for number in range(2)}, {part(0): raised})
    ended = next(iter(load_all(store, reader, busy=busy)))
    assert (ended.error, reader.begun) == (raised, [part(0)])


@however_busy
def test_a_read_that_begins_anew_is_not_mixed_with_what_waits(store: Store, busy: bool) -> None:
    load(store, *pages(30, *kind(1, "a", "b")), part=part(1))
    cut = pages(50, *kind(1, "a", "b", "new", mtu=1), *kind(1, "more"))[:3]
    shown = {part(0): pages(50, *kind(0, "x", "y")), part(1): [*cut, *pages(60, *kind(1, "a"))]}
    _, (_, loaded, error) = load_all(store, Parts(shown), busy=busy)
    assert (error, loaded.read_ns, loaded.assets) == (None, 60 * 10**9, 1)
    missing = {name: row.absent_ns for name, row in rows(store).items() if row.asset_type == OTHER_TYPES[1]}
    assert missing == {"a": None, "b": 60 * 10**9, "new": 60 * 10**9}


OUTER, INNER = ("organizations/9", TYPE, "RESOURCE"), ("folders/1", TYPE, "RESOURCE")


def below(name: str, **data: Any) -> bytes:
    """A network of the folder, which lies in the organization."""
    return network(name, above=["projects/1", "folders/1", "organizations/9"], **data)


@however_busy
def test_what_the_next_scope_shows_is_seen_though_the_one_before_lacks_it(store: Store, busy: bool) -> None:
    """The organization shows x after the folder's read lacked it, so one more read of the folder proves nothing."""
    both = pages(40, below("x"), below("y"))
    list(load_all(store, Parts({INNER: both, OUTER: pages(41, below("x"), below("y"))}), busy=busy))
    new = below("y", mtu=1)
    list(load_all(store, Parts({INNER: pages(50, new), OUTER: pages(51, below("x"), new)}), busy=busy))
    list(load_all(store, Parts({INNER: pages(60, new), OUTER: pages(61, new)}), busy=busy))
    assert not rows(store)["x"].deleted
    list(load_all(store, Parts({INNER: pages(70, new), OUTER: pages(71, new)}), busy=busy))
    assert rows(store)["x"].deleted


@however_busy
def test_what_a_scope_within_has_shown_is_not_decoded_again(store: Store, busy: bool) -> None:
    shown = {INNER: pages(40, below("x"), below("y")), OUTER: pages(41, below("x"), below("y"), network("z"))}
    told = list(load_all(store, Parts(shown), busy=busy))
    assert [ended.loaded.decoded for ended in told] == [2, 1]


@however_busy
def test_other_bytes_of_one_asset_in_two_scopes_are_no_absence(store: Store, busy: bool) -> None:
    def told(*order: str) -> bytes:
        asset = {"name": "//n/x", "assetType": TYPE, "updateTime": "2026-03-01T00:00:00Z"}
        above = ["projects/1", "folders/1", "organizations/9"]
        return encode_asset({**asset, "ancestors": above, "resource": {"data": dict.fromkeys(order, 1)}}, "RESOURCE")

    one, other, gone = told("a", "b"), told("b", "a"), below("gone")
    assert one != other
    first = 1_800_000_000
    list(load_all(store, Parts({OUTER: pages(first, one, gone), INNER: pages(first + 1, one, gone)}), busy=busy))
    later = {OUTER: pages(first + 60, other), INNER: pages(first + 61, one)}
    assert [ended.error for ended in load_all(store, Parts(later), busy=busy)] == [None, None]
    absent = {name: row.absent_ns for name, row in rows(store).items()}
    assert absent == {"x": None, "gone": (first + 61) * 10**9}


# --- relations --------------------------------------------------------------------------------------------------------

RELATIONS = ("folders/1", TYPE, "RELATIONSHIP")


def relation(name: str, to: str) -> bytes:
    related = RelatedAsset(asset=f"//n/{to}", asset_type=TYPE, relationship_type="NETWORK_TO_NETWORK")
    body: bytes = Asset.serialize(
        Asset(name=f"//n/{name}", asset_type=TYPE, related_asset=related, update_time={"seconds": 10})
    )
    return body


def relations(store: Store) -> dict[str, list[str]]:
    with store.read() as connection:
        query = sa.select(resources.c.name, resource_contents.c.data).join(
            resource_contents, resource_contents.c.id == resources.c.content_id
        )
        return {
            row.name[-1]: [item["asset"][-1] for item in row.data["relations"]] for row in connection.execute(query)
        }


def test_the_relations_of_an_asset_are_one_content_whatever_page_they_are_on(store: Store) -> None:
    loaded = load(store, *pages(50, relation("a", "x"), relation("b", "x"), relation("a", "w")), part=RELATIONS)
    assert relations(store) == {"a": ["w", "x"], "b": ["x"]}
    assert loaded.assets == 2


def test_relations_of_two_read_times_are_not_mixed(store: Store) -> None:
    cut = pages(50, relation("a", "x"), relation("a", "y"), relation("a", "z"))[:2]
    load(store, *cut, *pages(60, relation("a", "w")), part=RELATIONS)
    assert relations(store) == {"a": ["w"]}
