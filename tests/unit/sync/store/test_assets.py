"""The tables hold what the truth core defines, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.compliance.verdict import Outcome, Verdict
from lz_sync_dagster.sync.models import EventType
from lz_sync_dagster.sync.state.observation import Observation, Source, digest_of, observe
from lz_sync_dagster.sync.state.reducer import Breaker, Knowledge
from lz_sync_dagster.sync.store import Store, alerts, assets, event_log, findings, reads
from lz_sync_dagster.sync.store.first_load import insert_new
from lz_sync_dagster.sync.store.schema import findings as findings_table
from lz_sync_dagster.sync.store.schema import resource_contents, resource_versions, resources
from lz_sync_dagster.sync.timing import format_ns
from tests.conftest import NOW, SOAK

SCOPE, TYPE = "organizations/1", "compute.googleapis.com/Firewall"
PART = (SCOPE, TYPE, "RESOURCE")
BREAKER = Breaker()


def asset(
    name: str, *, update: int, observed: int, source=Source.FEED, deleted=False, scope=SCOPE, **data
) -> Observation:
    body = {
        "name": f"//compute.googleapis.com/projects/p-1/{name}",
        "assetType": TYPE,
        "updateTime": format_ns(update),
        "ancestors": ["projects/1", scope],
    }
    if not deleted:
        body["resource"] = {"data": data}
    return observe(body, scope=scope, observed_ns=observed, source=source, deleted=deleted)


def judge(asset_type, content_type, name, data) -> list[Verdict]:
    outcome = {True: Outcome.FAIL, False: Outcome.PASS, None: Outcome.UNKNOWN}[data.get("open")]
    return [Verdict("3.6", "cis-v1.2", "No open ports", "high", "cis", outcome, f"{name} is open")]


def take(store: Store, *items: Observation, announce=True) -> assets.Applied:
    with store.write(exclusive=assets.LOCK) as connection:
        return assets.apply(connection, items, layer=LayerId.PUBSUB, now=NOW, evaluate=judge, announce=announce)


def read(store: Store, read_ns: int, *items: Observation, breaker=BREAKER, part=PART) -> reads.ReadResult:
    with store.read() as connection:
        base = reads.base_of(connection, part)
    take(store, *items)
    return reads.finish_read(
        store,
        base,
        read_ns=read_ns,
        names={item.name for item in items},
        total=len(items),
        layer=LayerId.API,
        clock=lambda: NOW,
        breaker=breaker,
    )


def existing(store: Store) -> dict[tuple[str, str], str]:
    with store.read() as connection:
        rows = connection.execute(sa.select(resources).where(resources.c.deleted.is_(False)))
        return {(row.name, row.content_type): row.digest for row in rows}


def events(store: Store) -> list[tuple[EventType, bool]]:
    with store.read() as connection:
        frames = event_log.after(connection, 0, limit=1000)
    assert [frame.seq for frame in frames] == list(range(1, len(frames) + 1))
    return [(frame.event_type, frame.data.get("synthetic", False)) for frame in frames]


def test_the_same_again_changes_nothing(store: Store) -> None:
    first = take(store, asset("a", update=1, observed=1, x=1))
    again = take(store, asset("a", update=1, observed=1, x=1), asset("a", update=1, observed=1, x=1))
    assert (first.created, again.changed, again.unchanged, again.events) == (1, 0, 2, 0)


def test_several_versions_of_one_asset_in_one_batch_are_applied_in_their_order(store: Store) -> None:
    take(store, *[asset("a", update=n, observed=n, x=n) for n in (1, 3, 2)])
    assert list(existing(store).values()) == [asset("a", update=3, observed=3, x=3).digest]
    with store.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(resource_versions)) == 1


def test_a_finding_opens_with_the_flaw_stays_while_undecided_and_resolves_with_the_fix(store: Store) -> None:
    for step, flaw in enumerate([True, None, True, False], start=1):
        take(store, asset("a", update=step, observed=step, open=flaw, step=step))
    kinds = [kind for kind, _ in events(store)]
    assert kinds.count(EventType.POLICY_VIOLATED) == 1
    assert kinds[-1] is EventType.POLICY_RESOLVED
    with store.read() as connection:
        assert findings.count_open(connection) == 0


def test_a_deleted_resource_takes_its_findings_along(store: Store) -> None:
    take(store, asset("a", update=1, observed=1, open=True))
    take(store, asset("a", update=2, observed=2, deleted=True))
    assert events(store)[-1][0] is EventType.POLICY_RESOLVED
    assert existing(store) == {}


def test_a_baseline_is_no_news(store: Store) -> None:
    take(store, asset("a", update=1, observed=1, open=True), announce=False)
    assert events(store) == []


def test_an_asset_is_gone_after_two_complete_reads_that_lack_it(store: Store) -> None:
    one, other = (asset(name, update=1, observed=5, source=Source.SNAPSHOT) for name in "ab")
    read(store, 5, one, other)
    assert read(store, 6, one).missing == 1
    assert len(existing(store)) == 2
    assert read(store, 7, one).deleted == 1
    assert set(existing(store)) == {(one.name, "RESOURCE")}
    assert events(store)[-1] == (EventType.RESOURCE_DELETED, True)


def test_an_asset_that_is_seen_again_starts_anew(store: Store) -> None:
    def at(when: int) -> Observation:
        return asset("a", update=1, observed=when, source=Source.SNAPSHOT)

    read(store, 5, at(5))
    read(store, 6)
    read(store, 7, at(7))
    read(store, 8)
    assert len(existing(store)) == 1
    read(store, 9)
    assert existing(store) == {}
    read(store, 10, at(10))
    assert len(existing(store)) == 1
    assert events(store)[-1] == (EventType.RESOURCE_CREATED, True)


def test_a_loss_that_is_too_large_deletes_nothing_and_asks_a_person(store: Store) -> None:
    everything = [asset(f"a{n}", update=1, observed=5, source=Source.SNAPSHOT) for n in range(100)]
    read(store, 5, *everything)
    few = everything[:40]
    read(store, 6, *few)
    result = read(store, 7, *few)
    assert (result.withheld, result.deleted, result.lost) == (True, 0, 60)
    assert len(existing(store)) == 100
    with store.read() as connection:
        (alert,) = alerts.open_alerts(connection)
    assert alert.name == "MassDeletion"
    assert "60 of 100" in alert.message
    read(store, 8, *everything)
    with store.read() as connection:
        assert alerts.open_alerts(connection) == []


def test_an_asset_that_comes_back_with_another_id_is_created_anew(store: Store) -> None:
    take(store, asset("a", update=1, observed=1, id="1"), asset("a", update=2, observed=2, id="2"))
    with store.read() as connection:
        (_, frame) = event_log.after(connection, 0, limit=9)
    assert frame.event_type is EventType.RESOURCE_CREATED
    assert frame.data["change"] == "recreated"
    assert frame.data["previous_id"] == "1"


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["plain", "moves between scopes", "reads that lag"])
@pytest.mark.parametrize("seed", range(300 if SOAK else 6))
def test_random_histories_end_as_the_truth_core_says(sqlite_store: Store, seed: int, kind: str) -> None:
    """A small world changes; the feed loses, repeats and reorders; complete reads come at any time, and may show
    content of a while ago.
    """
    rng = random.Random(f"{seed} {kind}")
    scopes = [SCOPE, "folders/2"] if kind == "moves between scopes" else [SCOPE]
    known, world, past, waiting, now = Knowledge(), {}, [{}], [], 10

    def read_all(scope: str, content: dict, read_ns: int) -> None:
        seen = [
            asset(name, update=when, observed=read_ns, source=Source.SNAPSHOT, scope=home, **data)
            for name, (when, data, home) in content.items()
            if home == scope
        ]
        read(sqlite_store, read_ns, *seen, part=(scope, TYPE, "RESOURCE"))
        for item in seen:
            known.observe(item)
        known.complete_read((scope, TYPE, "RESOURCE"), read_ns)

    for _ in range(40):
        now += rng.randint(1, 3)
        action = rng.random()
        if action < 0.45:
            name = rng.choice("abcdef")
            if name in world and rng.random() < 0.4:
                _, _, home = world.pop(name)
                told = asset(name, update=now, observed=now, deleted=True, scope=home)
            elif name in world and rng.random() < 0.2:
                when, data, _ = world[name]
                world[name] = (when, data, rng.choice(scopes))
                told = None
            else:
                home = world[name][2] if name in world else rng.choice(scopes)
                world[name] = (now, {"x": now, "open": rng.random() < 0.5}, home)
                told = asset(name, update=now, observed=now, scope=home, **world[name][1])
            waiting += [told] * rng.choice([0, 1, 1, 2]) if told else []
            past.append(dict(world))
        elif action < 0.8 and waiting:
            rng.shuffle(waiting)
            batch = [waiting.pop() for _ in range(rng.randint(1, len(waiting)))]
            take(sqlite_store, *batch)
            for item in batch:
                known.observe(item)
        else:
            lags = kind == "reads that lag" and rng.random() < 0.4
            read_all(rng.choice(scopes), rng.choice(past[-5:]) if lags else world, now)
        agree(sqlite_store, known)
    for read_ns in range(now + 1, now + 5, 2):
        for offset, scope in enumerate(scopes):
            read_all(scope, world, read_ns + offset)
    agree(sqlite_store, known)
    assert {name[-1] for name, _ in existing(sqlite_store)} == set(world)
    with sqlite_store.read() as connection:
        assert findings.count_open(connection) == sum(data["open"] for _, data, _ in world.values())


def agree(store: Store, known: Knowledge) -> None:
    """The tables hold what the truth core says, content and place included."""
    with store.read() as connection:
        contents = resources.join(resource_contents, resource_contents.c.id == resources.c.content_id)
        query = sa.select(resources, resource_contents.c.data).select_from(contents)
        rows = connection.execute(query.where(resources.c.deleted.is_(False))).all()
    assert {(row.name, row.digest, row.scope) for row in rows} == {
        (item.name, item.digest, item.scope) for item in known.existing().values()
    }
    assert all(digest_of(row.data) == row.digest for row in rows)


def test_project_and_place_are_known(store: Store) -> None:
    take(store, asset("a", update=1, observed=1, zone="https://x/zones/europe-west1-b"))
    with store.read() as connection:
        row = connection.execute(sa.select(resources)).one()
    assert (row.project, row.location, row.changed_at) == ("p-1", "europe-west1-b", NOW)
    assert NOW - row.changed_at == timedelta(0)


BUCKET_TYPE, PROJECT_TYPE = "storage.googleapis.com/Bucket", "cloudresourcemanager.googleapis.com/Project"
PROJECT = {
    "by number": ("1234", {"projectId": "p-1"}),
    "by id": ("p-1", {"projectId": "p-1", "projectNumber": "1234"}),
    "by id alone": ("p-1", {"projectId": "p-1"}),
}


def told(name: str, asset_type: str, **data: object) -> Observation:
    """An asset of project 1234, whose name does not tell the project's id."""
    above = ["projects/1234", SCOPE]
    body = {"name": name, "assetType": asset_type, "ancestors": above, "resource": {"data": data}}
    return observe({**body, "updateTime": format_ns(1)}, scope=SCOPE, observed_ns=1, source=Source.SNAPSHOT)


@pytest.mark.parametrize("first", ["project", "bucket", "together"])
@pytest.mark.parametrize("form", list(PROJECT))
@pytest.mark.parametrize("baseline", [True, False])
def test_a_resource_has_its_projects_id_whichever_comes_first(
    store: Store, form: str, first: str, baseline: bool
) -> None:
    """Google names projects by number or by id, and a bucket tells its project's number alone."""

    def take_new(*items: Observation) -> None:
        if not baseline:
            take(store, *items)
            return
        with store.write(exclusive=assets.LOCK) as connection:
            assert insert_new(connection, items, now=NOW, evaluate=judge) is not None

    suffix, data = PROJECT[form]
    project = told(f"//cloudresourcemanager.googleapis.com/projects/{suffix}", PROJECT_TYPE, **data)
    bucket = told("//storage.googleapis.com/logs", BUCKET_TYPE, open=True)
    other = told("//storage.googleapis.com/else", BUCKET_TYPE, open=True)
    other = replace(other, ancestors=("projects/5678", SCOPE))
    steps = {"project": [(project,), (bucket, other)], "bucket": [(bucket, other), (project,)]}
    for items in steps.get(first, [(bucket, project, other)]):
        take_new(*items)
    with store.read() as connection:
        rows = connection.execute(sa.select(resources.c.name, resources.c.project))
        assert {row.name.rpartition("/")[2]: row.project for row in rows} == {
            suffix: "p-1",
            "logs": "p-1",
            "else": "5678",
        }
        table = findings_table
        found = {row.resource: row.project for row in connection.execute(sa.select(table.c.resource, table.c.project))}
    assert found == {bucket.name: "p-1", other.name: "5678"}


def versions(store: Store) -> list[tuple[bool, int, int, list[str]]]:
    """What is known of asset ``a``, oldest first: deleted, from, until (-1: now), ancestors."""
    with store.read() as connection:
        old = connection.execute(sa.select(resource_versions).order_by(resource_versions.c.version)).all()
        now = connection.execute(sa.select(resources)).one()
    return [(row.deleted, row.valid_from_ns, row.valid_to_ns, row.ancestors) for row in old] + [
        (now.deleted, now.valid_from_ns, -1, now.ancestors)
    ]


def test_a_move_is_a_version_and_news(store: Store) -> None:
    take(store, asset("a", update=1, observed=1, x=1))
    take(store, asset("a", update=1, observed=9, source=Source.SNAPSHOT, scope="folders/2", x=1))
    assert versions(store) == [(False, 1, 9, ["projects/1", SCOPE]), (False, 9, -1, ["projects/1", "folders/2"])]
    with store.read() as connection:
        frame = event_log.after(connection, 0, limit=9)[-1]
    assert (frame.event_type, frame.data["moved_from"]) == (EventType.RESOURCE_UPDATED, ["projects/1", SCOPE])


def test_what_comes_back_as_an_older_version_exists_since_it_was_seen_again(store: Store) -> None:
    take(store, asset("a", update=2, observed=2, x=2))
    read(store, 5)
    read(store, 6)
    take(store, asset("a", update=1, observed=100, source=Source.SNAPSHOT, x=1))
    assert [item[:3] for item in versions(store)] == [(False, 2, 5), (True, 5, 100), (False, 100, -1)]


def test_what_one_scope_lacks_is_gone_only_when_the_others_were_read_since(store: Store) -> None:
    other = ("folders/2", TYPE, "RESOURCE")
    read(store, 4, part=other)
    read(store, 5, asset("a", update=1, observed=5, source=Source.SNAPSHOT))
    for read_ns in (6, 7, 8):
        assert read(store, read_ns).deleted == 0, "it may have moved to the folder"
    moved = asset("a", update=1, observed=9, source=Source.SNAPSHOT, scope="folders/2")
    assert read(store, 9, moved, part=other).deleted == 0
    assert len(existing(store)) == 1
    for read_ns in (10, 12):
        read(store, read_ns, part=other)
        read(store, read_ns + 1)
    assert existing(store) == {}
