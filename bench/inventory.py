"""The inventory layer against reading alone, and against the plain way of loading: same server, same process tree.

The reference is Google's client iterating decoded pages and doing nothing with them. The server (`demo.asset_server`)
has a process of its own, and keeps what it has encoded once.
"""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import sqlite3
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.harness import ROUNDS, BenchError, Measured, Options, Side, alternate, medians_ms, ratio
from lz_sync_dagster.config import Settings, load_settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.inventory.planner import DeltaRead, ReadPlan
from lz_sync_dagster.sync.inventory.reader import make_client
from lz_sync_dagster.sync.inventory.service import sync_inventory
from lz_sync_dagster.sync.inventory.types import ENDPOINTS
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.progress import silent
from lz_sync_dagster.sync.runs import LayerOutcome, attempt, new_holder
from lz_sync_dagster.sync.state.observation import ContentType
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.store import Store, open_store
from lz_sync_dagster.sync.timing import to_ns, utcnow

ASSETS, QUICK_ASSETS, LARGE_ASSETS = 100_000, 2_000, 1_000_000
SCOPE = "organizations/100000000001"
#: Assets that change before a delta read, and the share that changes before a full one.
DELTA_CHANGES, CHANGED_SHARE = 100, 0.01
PAGE = 1_000


def bench_inventory(options: Options) -> Measured:
    """Measure layer 3."""
    assets = QUICK_ASSETS if options.quick else ASSETS
    rounds = 2 if options.quick else ROUNDS
    with _served(assets) as server:
        options.say(f"a first load of {assets:,} assets")
        first_memory = _in_a_process(_first_sync, server.endpoint, str(options.folder / "memory"))
        again_memory = _in_a_process(_first_sync, server.endpoint, str(options.folder / "memory"))
        with _Subject(server, options.folder / "subject") as subject:
            subject.first_load()
            options.say(f"{rounds} rounds of each side")
            seconds = alternate(_sides(server, subject, options.folder), rounds=rounds)
            delta_calls, full_calls = subject.calls["delta"], subject.calls["unchanged"]
    decode = statistics.median(seconds["decode_only"])
    figures: dict[str, Any] = {
        **medians_ms(seconds, prefix="inventory"),
        "assets": assets,
        "decode_only_assets_per_s": round(assets / decode),
        "unchanged_assets_per_s": round(assets / statistics.median(seconds["unchanged"])),
        "first_load_assets_per_s": round(assets / statistics.median(seconds["first_load"])),
        "full_read_calls": full_calls,
        "delta_calls": delta_calls,
        "first_load_peak_mb": first_memory,
        "unchanged_peak_mb": again_memory,
        "peak_mb_over_allowed": round(max(first_memory, again_memory) / _allowed_mb(assets), 3),
    }
    if options.large:
        figures |= _large(options)
    return Measured(
        {
            "unchanged_speed_vs_decode_only": ratio(seconds["decode_only"], seconds["unchanged"]),
            "first_load_speed_vs_decode_only": ratio(seconds["decode_only"], seconds["first_load"]),
            "one_percent_cost_vs_unchanged": ratio(seconds["one_percent"], seconds["unchanged"]),
            "full_speed_vs_naive": ratio(seconds["naive"], seconds["unchanged"]),
            "delta_cost_vs_full": ratio(seconds["delta"], seconds["full_of_changes"]),
            "delta_calls_vs_full": delta_calls / full_calls,
        },
        figures,
    )


def _allowed_mb(assets: int) -> float:
    """400 MB and 300 bytes per asset."""
    return 400 + assets * 300 / 1e6


def _sides(server: _Server, subject: _Subject, folder: Path) -> Mapping[str, Side]:
    fresh = _Fresh(server, folder / "fresh")
    naive = _Naive(server, folder / "naive.db")
    return {
        "decode_only": Side(run=lambda: _decode_only(server)),
        "unchanged": Side(
            prepare=subject.settle, run=lambda: subject.sync("unchanged"), check=lambda: subject.expect(0)
        ),
        "one_percent": Side(
            prepare=lambda: subject.change(int(server.assets * CHANGED_SHARE)),
            run=lambda: subject.sync("one_percent"),
            check=subject.expect_changes,
        ),
        "delta": Side(
            prepare=lambda: subject.change(DELTA_CHANGES),
            run=lambda: subject.sync("delta", plan_with=subject.only_deltas),
            check=subject.expect_changes,
        ),
        "full_of_changes": Side(
            prepare=lambda: subject.change(DELTA_CHANGES),
            run=lambda: subject.sync("full_of_changes"),
            check=subject.expect_changes,
        ),
        "first_load": Side(prepare=fresh.prepare, run=fresh.run, check=fresh.check),
        "naive": Side(prepare=naive.prepare, run=naive.run, check=naive.check),
    }


# --- the server -------------------------------------------------------------------------------------------------------


@dataclass
class _Server:
    endpoint: str
    assets: int
    pipe: Connection

    def change(self, count: int) -> int:
        """Change so many assets. Returns when the change is served."""
        self.pipe.send(count)
        return int(self.pipe.recv())


@contextmanager
def _served(assets: int) -> Iterator[_Server]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, assets), daemon=True)
    process.start()
    try:
        server = _Server(here.recv(), assets, here)
        _decode_only(server)  # what is encoded once is kept
        yield server
    finally:
        process.terminate()
        process.join()


def _serve(pipe: Connection, assets: int) -> None:
    from demo.asset_server import start_asset_server
    from demo.organization import Organization

    organization = Organization(assets)
    server = start_asset_server(organization, cache_bytes=4 * assets * 1500)
    pipe.send(server.endpoint)
    turn = 0
    while True:
        count = pipe.recv()
        turn += 1
        kinds = {kind: total for kind, total in organization.counts().items() if kind in set(_types())}
        wanted = {kind: max(1, round(count * total / sum(kinds.values()))) for kind, total in kinds.items()}
        changed = 0
        for kind, number in wanted.items():
            step = max(1, kinds[kind] // number)
            for index in range(turn % step, kinds[kind], step):
                if changed == count or number == 0:
                    break
                asset = organization.get(organization.base(kind, "RESOURCE", index)["name"])
                if asset is None:
                    continue
                asset["resource"]["data"]["description"] = f"changed {turn}"
                organization.upsert(asset, at=datetime.now(UTC))
                changed, number = changed + 1, number - 1
        pipe.send(changed)


def _types() -> list[str]:
    return [kind for kinds in ENDPOINTS.values() for kind in kinds]


def _settings(endpoint: str, folder: Path) -> Settings:
    plenty = 1_000_000
    return load_settings(
        environ={
            "LZ_SYNC_GOOGLE_CLOUD__ASSET_ENDPOINT": endpoint,
            "LZ_SYNC_SYNC_LAYERS__API_SYNC__SCOPES": f'["{SCOPE}"]',
            "LZ_SYNC_SYNC_LAYERS__API_SYNC__CONTENT_TYPES": '["RESOURCE"]',
            "LZ_SYNC_SYNC_LAYERS__API_SYNC__QUOTAS__LIST_ASSETS": str(plenty),
            "LZ_SYNC_SYNC_LAYERS__API_SYNC__QUOTAS__SEARCH_ALL_RESOURCES": str(plenty),
            "LZ_SYNC_SYNC_LAYERS__API_SYNC__QUOTAS__BATCH_GET_ASSETS_HISTORY": str(plenty),
            "LZ_SYNC_DATA_DIR": str(folder),
        }
    )


# --- the sides --------------------------------------------------------------------------------------------------------


def _decode_only(server: _Server) -> int:
    """Google's client, every page decoded, every asset touched, nothing done."""
    from google.cloud.asset_v1 import ListAssetsRequest

    client = make_client(server.endpoint)
    count = 0
    for kind in _types():
        request = ListAssetsRequest(parent=SCOPE, asset_types=[kind], content_type="RESOURCE", page_size=PAGE)
        for page in client.list_assets(request=request).pages:
            for _ in page._pb.assets:
                count += 1
    client.transport.close()
    return count


@dataclass
class _Subject:
    """A store that has everything, and syncs of it."""

    server: _Server
    folder: Path
    calls: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> _Subject:
        self.settings = _settings(self.server.endpoint, self.folder)
        self.store = open_store(self.settings.store_url)
        self.changed = 0
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def first_load(self) -> None:
        self.outcome = _sync(self.settings, self.store)

    def settle(self) -> None:
        """Nothing has changed since the last sync."""
        _sync(self.settings, self.store)

    def change(self, count: int) -> None:
        self.settle()
        self.began = utcnow()
        self.changed = self.server.change(count)

    def sync(self, side: str, **options: Any) -> None:
        self.outcome = _sync(self.settings, self.store, **options)
        self.calls[side] = self.outcome.details["coverage"]["calls"]

    def expect(self, changed: int) -> None:
        if self.outcome.items_changed != changed or self.outcome.status is not Status.SUCCESS:
            raise BenchError(f"{self.outcome.items_changed} of {changed} changes were found: {self.outcome.errors}")

    def expect_changes(self) -> None:
        self.expect(self.changed)

    def only_deltas(self, states: Any, **_: Any) -> ReadPlan:
        """A plan as of a sync in which no full read is due: the changes since the last one, with the overlap."""
        parts: list[Part] = [state.part for state in states]
        since = to_ns(self.began - timedelta(seconds=1))
        kinds = tuple(part[1] for part in parts if part[2] == ContentType.RESOURCE)
        return ReadPlan((), (DeltaRead(SCOPE, kinds, since),), (), {}, {}, 0.0, 0.0, True)


@dataclass
class _Fresh:
    """A first load: an empty store and an empty folder for Parquet."""

    server: _Server
    folder: Path

    def prepare(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.settings = _settings(self.server.endpoint, self.folder)
        self.store = open_store(self.settings.store_url)

    def run(self) -> None:
        self.outcome = _sync(self.settings, self.store)

    def check(self) -> None:
        self.store.close()
        written = self.outcome.details["resources"]["parquet_files_written"]
        if self.outcome.items_synced != self.server.assets or written == 0:
            raise BenchError(f"{self.outcome.items_synced} of {self.server.assets} assets were loaded")


@dataclass
class _Naive:
    """The plain way: each asset to a dict, and upserted by its name; one transaction per page."""

    server: _Server
    file: Path

    def prepare(self) -> None:
        self.database = sqlite3.connect(self.file, isolation_level=None)
        self.database.execute("PRAGMA journal_mode=WAL")
        self.database.execute(
            "CREATE TABLE IF NOT EXISTS assets (name TEXT PRIMARY KEY, asset_type TEXT, updated TEXT, data TEXT)"
        )

    def run(self) -> None:
        import json

        from google.cloud.asset_v1 import ListAssetsRequest
        from google.protobuf.json_format import MessageToDict

        client = make_client(self.server.endpoint)
        for kind in _types():
            request = ListAssetsRequest(parent=SCOPE, asset_types=[kind], content_type="RESOURCE", page_size=PAGE)
            for page in client.list_assets(request=request).pages:
                self.database.execute("BEGIN")
                for asset in page._pb.assets:
                    body = MessageToDict(asset)
                    self.database.execute(
                        "INSERT INTO assets VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
                        "asset_type = excluded.asset_type, updated = excluded.updated, data = excluded.data",
                        (body["name"], body["assetType"], body.get("updateTime"), json.dumps(body)),
                    )
                self.database.execute("COMMIT")
        client.transport.close()

    def check(self) -> None:
        (count,) = self.database.execute("SELECT count(*) FROM assets").fetchone()
        self.database.close()
        if count != self.server.assets:
            raise BenchError(f"the plain way has {count} of {self.server.assets} assets")


def _sync(settings: Settings, store: Store, **options: Any) -> LayerOutcome:
    return attempt(
        store,
        LayerId.API,
        lambda run: sync_inventory(settings, store, run, clock=utcnow, progress=silent, **options),
        triggered_by="bench",
        clock=utcnow,
        holder=new_holder(),
    )


# --- memory, and the largest organization -----------------------------------------------------------------------------


def _first_sync(endpoint: str, folder: str, pipe: Connection) -> None:
    settings = _settings(endpoint, Path(folder))
    started = time.perf_counter()
    with open_store(settings.store_url) as store:
        outcome = _sync(settings, store)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    pipe.send((outcome.items_synced, outcome.items_changed, seconds, peak))


def _in_a_process(work: Any, *args: Any) -> int:
    """The peak memory (MB) of a process that does nothing else."""
    return int(_measured(work, *args)[3])


def _measured(work: Any, *args: Any) -> tuple[int, int, float, int]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=work, args=(*args, there))
    process.start()
    there.close()
    try:
        answer: tuple[int, int, float, int] = here.recv()
    except EOFError as error:
        raise BenchError("a sync of its own process ended without a word") from error
    finally:
        process.join()
    return answer


def _large(options: Options) -> dict[str, Any]:
    """A million assets: loaded, and reconciled after a change."""
    folder = str(options.folder / "large")
    options.say(f"{LARGE_ASSETS:,} assets: the server encodes them first")
    with _served(LARGE_ASSETS) as server:
        started = time.perf_counter()
        _decode_only(server)
        decode = time.perf_counter() - started
        loaded = _measured(_first_sync, server.endpoint, folder)
        options.say(f"loaded in {loaded[2]:.0f} s")
        unchanged = _measured(_first_sync, server.endpoint, folder)
        server.change(LARGE_ASSETS // 100)
        changed = _measured(_first_sync, server.endpoint, folder)
    allowed = _allowed_mb(LARGE_ASSETS)
    return {
        "million_decode_only_s": round(decode, 1),
        "million_assets_loaded": loaded[0],
        "million_first_load_s": round(loaded[2], 1),
        "million_unchanged_s": round(unchanged[2], 1),
        "million_one_percent_s": round(changed[2], 1),
        "million_one_percent_changes": changed[1],
        "million_first_load_peak_mb": loaded[3],
        "million_unchanged_peak_mb": unchanged[3],
        "million_peak_mb_over_allowed": round(max(loaded[3], unchanged[3], changed[3]) / allowed, 3),
    }
