"""The delta read against the demo's Cloud Asset server: what changed, for a few calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import grpc
import pytest
from google.cloud.asset_v1 import AssetServiceClient
from google.cloud.asset_v1.services.asset_service.transports import AssetServiceGrpcTransport
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demo.asset_server import AssetServer, start_asset_server
from demo.faults import Faults
from demo.organization import ORGANIZATION, Organization
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory import delta
from lz_sync_dagster.sync.inventory.decoder import Decoder
from lz_sync_dagster.sync.inventory.delta import DeltaResult, is_news, read_delta
from lz_sync_dagster.sync.inventory.reader import AssetReader
from lz_sync_dagster.sync.inventory.types import BUCKET, FIREWALL, FOLDER, INSTANCE, PROJECT
from lz_sync_dagster.sync.state.observation import Source
from lz_sync_dagster.sync.state.reducer import Knowledge
from lz_sync_dagster.sync.store import Store, assets, part_reads
from lz_sync_dagster.sync.store.part_reads import KnownVersion
from lz_sync_dagster.sync.store.quota import Quota
from lz_sync_dagster.sync.timing import parse_ns, to_ns
from tests.conftest import NOW, SOAK, SteppedClock

SQL = "sqladmin.googleapis.com/Instance"
FIRESTORE = "firestore.googleapis.com/Database"
TYPES = (BUCKET, FIREWALL, INSTANCE, PROJECT, FOLDER)
SEARCH, HISTORY = Quota.SEARCH_ALL_RESOURCES, Quota.BATCH_GET_ASSETS_HISTORY
SECOND = timedelta(seconds=1)
SINCE = to_ns(NOW)


class Calls:
    """Counts calls; the quota never ends."""

    def __init__(self) -> None:
        self.made: list[Quota] = []
        self.refused: list[tuple[Quota, float | None]] = []

    def call(self, quota: Quota) -> None:
        self.made.append(quota)

    def throttled(self, quota: Quota, retry_after: float | None) -> None:
        self.refused.append((quota, retry_after))


class Demo:
    """A small organization in which nothing has changed yet, its server, and a client of it."""

    def __init__(self) -> None:
        self.organization = Organization(400)
        self.clock = SteppedClock(NOW + timedelta(hours=1))
        self.faults = Faults(retry_after=1.5)
        self.server: AssetServer = start_asset_server(self.organization, self.faults, clock=self.clock)
        channel = grpc.insecure_channel(self.server.endpoint.removeprefix("http://"))
        self.client = AssetServiceClient(transport=AssetServiceGrpcTransport(channel=channel))
        self.calls = Calls()
        self.known: dict[str, KnownVersion] = {}
        self._at = NOW

    def stop(self) -> None:
        self.client.transport.close()
        self.server.stop()

    def tick(self) -> datetime:
        self._at += timedelta(microseconds=1_100)
        return self._at

    def names(self, asset_type: str = BUCKET) -> list[str]:
        return list(self.organization.names(asset_type))

    def touch(self, name: str, **data: Any) -> datetime:
        asset = self.organization.get(name)
        assert asset is not None
        asset["resource"]["data"] |= data or {"touched": str(self._at)}
        at = self.tick()
        self.organization.upsert(asset, at=at)
        return at

    def delete(self, name: str) -> datetime:
        at = self.tick()
        self.organization.delete(name, at=at)
        return at

    def read(self, scope: str = ORGANIZATION, types: Sequence[str] = TYPES, **more: Any) -> DeltaResult:
        def known(names: Sequence[str]) -> Mapping[str, KnownVersion]:
            return {name: self.known[name] for name in names if name in self.known}

        return read_delta(
            self.client,
            scope,
            types,
            more.pop("since_ns", SINCE),
            known,
            calls=self.calls,
            clock=self.clock,
            timeout_seconds=10,
            **more,
        )

    def learn(self, result: DeltaResult) -> None:
        """Know what a read has told, as the store would."""
        for item in result.observations:
            self.known[item.name] = KnownVersion(item.update_ns, to_ns(self.clock()))


@pytest.fixture
def demo() -> Iterator[Demo]:
    made = Demo()
    yield made
    made.stop()


def test_where_nothing_changed_a_read_costs_one_call(demo: Demo) -> None:
    result = demo.read()
    assert (result.found, result.observations, result.calls) == (0, [], {SEARCH: 1})
    assert result.until_ns == to_ns(demo.clock())
    assert [part[1] for part in result.looked_at] == list(TYPES)


def test_a_hundred_changes_cost_two_calls(demo: Demo) -> None:
    changed = [*demo.names(BUCKET), *demo.names(FIREWALL), *demo.names(INSTANCE)][:100]
    for name in changed:
        demo.touch(name)
    result = demo.read()
    assert result.calls == {SEARCH: 1, HISTORY: 1}
    assert demo.calls.made == [SEARCH, HISTORY]
    assert {item.name for item in result.observations} == set(changed)
    newest = {item.name: item for item in result.observations}
    for name in changed:
        now = demo.organization.get(name)
        assert now is not None
        assert newest[name].data is not None
        assert newest[name].data["touched"] == now["resource"]["data"]["touched"]
        assert newest[name].update_ns == parse_ns(now["updateTime"])
        assert (newest[name].scope, newest[name].source) == (ORGANIZATION, Source.SNAPSHOT)


def test_a_version_is_told_as_a_full_read_tells_it(demo: Demo) -> None:
    name = demo.names(INSTANCE)[0]
    demo.touch(name, metadata={"items": [{"key": "password", "value": "hunter2"}]})
    told = demo.read().observations[-1]
    part = (ORGANIZATION, INSTANCE, "RESOURCE")
    reader = AssetReader(demo.client, page_size=1000, timeout_seconds=10)
    bodies = [body for page in reader.read(part) for body in page.bodies]
    decoded = Decoder(lambda *_: []).decode(part, told.observed_ns, [(b"", body) for body in bodies])
    [read] = [item for item in decoded.observations if item.name == name]
    assert replace(read, fingerprint=None) == told
    assert "hunter2" not in str(told.data)


def test_all_pages_and_all_batches_are_read(demo: Demo) -> None:
    changed = demo.names(FIREWALL)[:11]
    for name in changed:
        demo.touch(name)
    result = demo.read(search_page=3, history_batch=4)
    assert result.calls == {SEARCH: 4, HISTORY: 3}
    assert {item.name for item in result.observations} == set(changed)


def test_what_the_store_knows_already_costs_nothing_more(demo: Demo) -> None:
    for name in demo.names()[:5]:
        demo.touch(name)
    demo.learn(demo.read())
    again = demo.read()
    assert (again.found, again.changed, again.calls) == (5, 0, {SEARCH: 1})
    demo.touch(demo.names()[0], again=True)
    third = demo.read()
    assert [item.name for item in third.observations] == [demo.names()[0]], "older versions are not told again"


def test_what_the_store_took_in_is_known_at_the_next_read(demo: Demo, store: Store) -> None:
    name = demo.names()[0]
    demo.touch(name)

    def read() -> DeltaResult:
        def known(names: Sequence[str]) -> Mapping[str, KnownVersion]:
            with store.read() as connection:
                return part_reads.known_versions(connection, names, "RESOURCE")

        return read_delta(
            demo.client, ORGANIZATION, TYPES, SINCE, known, calls=demo.calls, clock=demo.clock, timeout_seconds=10
        )

    first = read()
    with store.write(exclusive=assets.LOCK) as connection:
        applied = assets.apply(
            connection, first.observations, layer=LayerId.API, now=demo.clock(), evaluate=lambda *_: []
        )
        part_reads.record_delta(connection, first.looked_at, until_ns=first.until_ns)
        [state] = part_reads.states(connection, [(ORGANIZATION, BUCKET, "RESOURCE")])
    assert (applied.created, applied.updated) == (1, 1), "what it was at the window's begin, and the change"
    assert (state.delta_read_ns, state.complete_read_ns) == (to_ns(demo.clock()), None), "a delta proves nothing"
    again = read()
    assert (again.found, again.changed, again.calls) == (1, 0, {SEARCH: 1})


def test_versions_between_two_reads_are_history_too_in_their_order(demo: Demo) -> None:
    name = demo.names()[0]
    times = [demo.touch(name, step=step) for step in range(3)]
    gone = demo.delete(name)
    asset = demo.organization.get(name, at=gone - timedelta(microseconds=1))
    assert asset is not None
    back = demo.tick()
    demo.organization.upsert(asset, at=back)
    result = demo.read()
    told = [(item.update_ns, item.deleted) for item in result.observations if item.update_ns >= SINCE]
    assert told == [
        *((to_ns(at), False) for at in times),
        (to_ns(gone), True),
        (to_ns(back), False),
    ]


def test_what_a_search_lacks_is_not_told_as_gone(demo: Demo) -> None:
    demo.delete(demo.names()[0])
    result = demo.read()
    assert result.observations == []
    assert not any(item.deleted for item in result.observations)


def test_a_folder_is_asked_by_its_projects_since_histories_are_not_kept_by_folder(demo: Demo) -> None:
    project = demo.organization.projects[2]
    folder = project.ancestors[1]
    inside = [asset["name"] for asset in demo.organization.assets_of(BUCKET, scope=folder)][:3]
    outside = [
        name
        for name in demo.names()
        if name not in {a["name"] for a in demo.organization.assets_of(BUCKET, scope=folder)}
    ]
    for name in [*inside, outside[0]]:
        demo.touch(name)
    demo.touch(f"//cloudresourcemanager.googleapis.com/{folder}")
    result = demo.read(folder)
    assert {item.name for item in result.observations} == {*inside, f"//cloudresourcemanager.googleapis.com/{folder}"}
    assert not result.errors


def test_a_type_that_searches_do_not_know_does_not_keep_the_others_from_being_read(demo: Demo) -> None:
    demo.faults.on("asset_unknown_type")
    name = demo.names(FIREWALL)[0]
    demo.touch(name)
    result = demo.read(types=(*TYPES, FIRESTORE))
    assert {item.name for item in result.observations} == {name}
    assert {kind: error.reason for kind, error in result.errors.items()} == {FIRESTORE: Reason.UNKNOWN_TYPE}
    assert FIRESTORE not in [part[1] for part in result.looked_at]
    assert result.calls[SEARCH] <= 2 * len(TYPES)


def test_a_denied_search_is_an_error_that_names_the_permission(demo: Demo) -> None:
    demo.faults.on("asset_denied")
    with pytest.raises(SyncError, match=r"cloudasset\.assets\.searchAllResources") as caught:
        demo.read(types=(*TYPES, SQL))
    assert caught.value.reason is Reason.PERMISSION_DENIED
    assert "roles/cloudasset.viewer" in caught.value.remedy


def test_a_denied_history_leaves_its_types_open_and_says_why(demo: Demo) -> None:
    bucket, firewall = demo.names()[0], demo.names(FIREWALL)[0]
    demo.touch(bucket)
    demo.touch(firewall)
    real = demo.client.search_all_resources

    def search_first(**options: Any) -> Any:
        page = real(**options)
        demo.faults.denied_types = (BUCKET,)
        demo.faults.on("asset_denied")
        return page

    demo.client.search_all_resources = search_first
    result = demo.read(history_batch=1)
    assert {item.name for item in result.observations} == {firewall}
    assert {kind: error.reason for kind, error in result.errors.items()} == {BUCKET: Reason.PERMISSION_DENIED}
    assert "cloudasset.assets.exportResource" in str(result.errors[BUCKET])


@pytest.mark.parametrize(
    ("fault", "reason"), [("asset_quota", Reason.QUOTA), ("asset_unavailable", Reason.UNAVAILABLE)]
)
def test_a_fault_of_the_search_is_raised_and_a_refused_quota_is_told_to_all(
    demo: Demo, fault: str, reason: Reason
) -> None:
    demo.faults.on(fault, calls=1)
    with pytest.raises(SyncError) as caught:
        demo.read()
    assert caught.value.reason is reason
    assert demo.calls.refused == ([(SEARCH, 1.5)] if fault == "asset_quota" else [])


def test_a_quota_that_ends_between_batches_keeps_what_was_read_and_leaves_the_rest_open(demo: Demo) -> None:
    for name in [demo.names(FIREWALL)[0], demo.names(INSTANCE)[0], demo.names()[0]]:
        demo.touch(name)
    real = demo.client.batch_get_assets_history

    def then_no_more(**options: Any) -> Any:
        answer = real(**options)
        demo.faults.on("asset_quota")
        return answer

    demo.client.batch_get_assets_history = then_no_more
    result = demo.read(history_batch=1)
    assert len({item.name for item in result.observations}) == 1
    assert len(result.errors) == 2
    assert {error.reason for error in result.errors.values()} == {Reason.QUOTA}
    assert demo.calls.refused == [(HISTORY, 1.5)]
    assert result.calls[HISTORY] == 2, "the third batch is not even tried"


def test_a_name_that_histories_do_not_know_is_isolated(demo: Demo) -> None:
    changed = demo.names(FIREWALL)[:8]
    for name in changed:
        demo.touch(name)
    lost = changed[5]
    real = demo.organization.history
    demo.organization.history = lambda name, *rest: [] if name == lost else real(name, *rest)  # type: ignore[method-assign]
    result = demo.read()
    assert {item.name for item in result.observations} == {*changed} - {lost}
    assert result.without_history == [lost]
    assert {kind: error.reason for kind, error in result.errors.items()} == {FIREWALL: Reason.NOT_FOUND}, "it is told"
    assert result.calls[HISTORY] == 1 + 2 * 3, "halves of eight"


def test_isolating_ends_before_it_costs_more_than_a_full_read(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta, "_MAX_ISOLATING", 6)
    for name in demo.names(FIREWALL)[:16]:
        demo.touch(name)
    demo.organization.history = lambda *_: []  # type: ignore[method-assign,assignment]
    result = demo.read()
    assert result.calls[HISTORY] <= 7
    assert result.errors[FIREWALL].reason is Reason.INVALID


def test_an_expired_page_token_begins_the_search_anew(demo: Demo) -> None:
    changed = demo.names(FIREWALL)[:5]
    for name in changed:
        demo.touch(name)
    real, tokens = demo.client.search_all_resources, []

    def expire_once(*, request: Any, **options: Any) -> Any:
        if request.page_token and not tokens:
            tokens.append(request.page_token)
            request.page_token = "expired"
        return real(request=request, **options)

    demo.client.search_all_resources = expire_once
    result = demo.read(search_page=2)
    assert tokens
    assert {item.name for item in result.observations} == set(changed)


def test_an_asset_that_cannot_be_used_is_told_apart(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    good, odd = demo.names()[:2]
    demo.touch(good)
    demo.touch(odd)
    real = delta.observation_of

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name == odd:
            raise OverflowError("too large")
        return real(name, *rest, **more)

    monkeypatch.setattr(delta, "observation_of", refuse)
    result = demo.read()
    assert {item.name for item in result.observations} == {good}
    assert {(part[1], item.key) for part, item in result.unusable} == {(BUCKET, odd)}
    assert "OverflowError" in str(result.unusable[0][1].error)


def test_a_search_that_tells_the_second_alone_is_news_unless_the_second_was_over() -> None:
    second = SINCE + 5_000_000_000
    within = second + 300_000_000
    assert is_news(within, None)
    assert is_news(within, KnownVersion(within - 1, within))
    assert not is_news(within, KnownVersion(within, within))
    assert not is_news(within, KnownVersion(within + 1, within))
    assert is_news(second, KnownVersion(within, seen_ns=within)), "it may have changed again in the same second"
    assert not is_news(second, KnownVersion(within, seen_ns=second + 1_000_000_000))
    assert is_news(second, KnownVersion(second - 1, seen_ns=second + 10**12))
    assert not is_news(second, KnownVersion(second + 1_000_000_000, seen_ns=second))


CHANGES = st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["touch", "touch", "delete", "read"])), max_size=25)


@pytest.mark.soak
@settings(max_examples=300 if SOAK else 15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES)
def test_deltas_after_a_full_read_know_all_that_exists(changes: list[tuple[int, str]]) -> None:
    demo = Demo()
    try:
        names, state = demo.names(FIREWALL)[:10], Knowledge()
        since = to_ns(demo.tick())
        lost: dict[str, dict[str, Any]] = {}

        def read() -> None:
            result = demo.read(types=(FIREWALL,), since_ns=since - 10_000_000_000)
            assert not result.errors
            for item in result.observations:
                state.observe(item)
            demo.learn(result)

        for which, what in changes:
            name = names[which]
            if what == "read":
                read()
            elif what == "delete" and name not in lost:
                lost[name] = demo.organization.get(name) or {}
                demo.delete(name)
            elif what == "touch" and name in lost:
                demo.organization.upsert(lost.pop(name), at=demo.tick())
            elif what == "touch":
                demo.touch(name)
        read()
        existing = {name: item for (name, _), item in state.existing().items()}
        for which in {which for which, what in changes if what == "touch"} - {names.index(name) for name in lost}:
            now = demo.organization.get(names[which])
            assert now is not None
            assert existing[names[which]].update_ns == parse_ns(now["updateTime"])
            assert dict(existing[names[which]].data or {}) == now["resource"]["data"]
    finally:
        demo.stop()
