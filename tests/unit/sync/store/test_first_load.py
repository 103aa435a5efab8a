"""A first load comes to what taking observations in one by one comes to, or leaves the store as it is."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.compliance.verdict import Outcome, Verdict
from lz_sync_dagster.sync.state.observation import ContentType, Observation, Source, observation_of
from lz_sync_dagster.sync.state.reducer import Breaker
from lz_sync_dagster.sync.store import Store, assets, reads
from lz_sync_dagster.sync.store.first_load import insert_new
from lz_sync_dagster.sync.store.schema import (
    counters,
    event_log,
    findings,
    resource_contents,
    resource_versions,
    resources,
)
from tests.conftest import NOW

SCOPE, MANAGER = "organizations/1", "//cloudresourcemanager.googleapis.com"
TABLES = (findings, resources, resource_contents, resource_versions, event_log)
TYPES = ("compute.googleapis.com/Firewall", "storage.googleapis.com/Bucket")


def observation(name: str, asset_type: str, data: dict[str, Any], *, number: int = 7, **options: Any) -> Observation:
    values = {"scope": SCOPE, "update_ns": 50, "observed_ns": 100, "location": None, "fingerprint": name.encode()[:16]}
    return observation_of(
        name,
        asset_type,
        ContentType.RESOURCE,
        data,
        tuple(key for key in data if key == "secret"),
        source=Source.SNAPSHOT,
        ancestors=(f"projects/{number}", SCOPE),
        **(values | options),
    )


def organization(seed: int) -> list[Observation]:
    chance = random.Random(seed)
    found = [
        observation(
            f"{MANAGER}/projects/{number}",
            "cloudresourcemanager.googleapis.com/Project",
            {"projectId": f"p-{number}"} if chance.random() < 0.8 else {},
            number=number,
        )
        for number in range(3)
    ]
    for index in range(chance.randrange(1, 30)):
        number = chance.randrange(4)
        name = chance.choice([f"//a/projects/p-{number}/x/{index}", f"//a/x-{index}", f"//a/projects/{number}/{index}"])
        data: dict[str, Any] = {"open": chance.choice([True, False, None]), "id": str(index)}
        data |= chance.choice([{}, {"secret": "[redacted]"}, {"zone": "z/eu-1"}, {"displayName": "é" * index}])
        options = {"update_ns": chance.choice([0, 50, 150]), "location": chance.choice([None, "eu"])}
        found.append(observation(name, chance.choice(TYPES), data, number=number, **options))
    chance.shuffle(found)
    return found


def judge(asset_type: str, content_type: str, name: str, data: Any) -> list[Verdict]:
    outcome = {True: Outcome.FAIL, False: Outcome.PASS, None: Outcome.UNKNOWN}[data.get("open")]
    rules = ("3.6", "3.7") if asset_type == TYPES[0] else ("5.1",)
    return [Verdict(rule, "cis-v1.2", "No open ports", "high", "cis", outcome, f"{name} is open") for rule in rules]


def load(store: Store, observations: list[Observation]) -> assets.Applied | None:
    with store.write(exclusive=assets.LOCK) as connection:
        return insert_new(connection, observations, now=NOW, evaluate=judge)


def apply(store: Store, observations: list[Observation]) -> assets.Applied:
    with store.write(exclusive=assets.LOCK) as connection:
        return assets.apply(connection, observations, layer=LayerId.API, now=NOW, evaluate=judge, announce=False)


def contents(store: Store) -> dict[str, list[dict[str, Any]]]:
    """All rows, without the numbers that only their order of arrival decides."""
    with store.read() as connection:
        told = {row.id: (row.data, row.redacted) for row in connection.execute(sa.select(resource_contents))}
        rows = {
            table.name: [dict(row._mapping) for row in connection.execute(sa.select(table))]
            for table in TABLES
            if table is not resource_contents
        }
    for row in rows["resources"]:
        row |= {"content": told.pop(row.pop("content_id"))}
        row["fingerprint"] = bytes(row["fingerprint"])
        row.pop("written")
    assert not told, "every content belongs to a resource"
    for row in rows["findings"]:
        row.pop("id")
    return {name: sorted(found, key=repr) for name, found in rows.items()}


def clear(store: Store) -> None:
    with store.write() as connection:
        for table in TABLES:
            connection.execute(table.delete())
        connection.execute(counters.update().where(counters.c.name == "event_log").values(value=0))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("content_type", [ContentType.RESOURCE, ContentType.IAM_POLICY])
def test_it_comes_to_the_same_as_taking_them_in_one_by_one(store: Store, seed: int, content_type: ContentType) -> None:
    """Whatever the store holds of others: projects, deleted assets, other contents of the same names."""
    *others, _ = organization(seed + 100)
    known = [item for item in others if item.name.startswith(MANAGER)] if seed % 2 else []
    observations = [replace(item, content_type=content_type) for item in organization(seed)]
    if content_type is ContentType.RESOURCE:
        taken = {item.name for item in known}
        observations = [item for item in observations if item.name not in taken]
    apply(store, known)
    loaded = load(store, observations)
    at_once = contents(store)
    clear(store)
    apply(store, known)
    assert loaded == apply(store, observations)
    assert at_once == contents(store)


def test_nothing_is_written_if_one_of_them_is_known(store: Store) -> None:
    first, *others = organization(1)
    apply(store, [first])
    before = contents(store)
    assert load(store, [*others, first]) is None
    assert contents(store) == before


def test_nothing_is_written_of_an_asset_that_is_there_twice(store: Store) -> None:
    item = organization(1)[0]
    assert load(store, [item, item]) is None
    assert contents(store)["resources"] == []


def test_what_complete_reads_say_is_not_passed_over(store: Store) -> None:
    """An asset that two complete reads lacked is gone: only `apply` looks at that."""
    item = observation("//a/projects/p-1/late", TYPES[0], {"open": None}, update_ns=10, observed_ns=20)
    part = (SCOPE, TYPES[0], "RESOURCE")
    for read_ns in (30, 40):
        with store.read() as connection:
            base = reads.base_of(connection, part)
        reads.finish_read(
            store,
            base,
            read_ns=read_ns,
            names=set(),
            total=0,
            layer=LayerId.API,
            clock=lambda: NOW,
            breaker=Breaker(),
        )
    assert load(store, [item]) is None
    apply(store, [item])
    assert [row["deleted"] for row in contents(store)["resources"]] == [True]


def test_a_deletion_is_no_news_of_an_asset_that_is_there(store: Store) -> None:
    gone = observation_of(
        "//a/projects/p-1/gone", TYPES[0], ContentType.RESOURCE, None, (), scope=SCOPE, update_ns=1, observed_ns=2,
        source=Source.FEED, ancestors=(SCOPE,), location=None,
    )  # fmt: skip
    assert load(store, [gone]) is None
