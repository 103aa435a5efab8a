"""What a landing of versions holds: everything that was written since the one before, and nothing is lost however often
landings happen."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.analytics.resource_versions import land_versions
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.state.observation import Observation, Source, observe
from lz_sync_dagster.sync.store import Store, assets, open_store
from lz_sync_dagster.sync.timing import to_ns
from tests.conftest import NOW, SteppedClock

DISK = "compute.googleapis.com/Disk"


def told(name: str, at: datetime, size: int | None) -> Observation:
    """A disk of a size; ``None``: the feed says that it is gone."""
    asset: dict[str, Any] = {"name": f"//x/{name}", "assetType": DISK, "updateTime": at.isoformat()}
    if size is None:
        return observe(asset, scope="organizations/1", observed_ns=to_ns(at), source=Source.FEED, deleted=True)
    asset["resource"] = {"data": {"size": size}}
    return observe(asset, scope="organizations/1", observed_ns=to_ns(at), source=Source.SNAPSHOT)


def write(store: Store, at: datetime, *observations: Observation) -> None:
    with store.write(exclusive=assets.LOCK) as connection:
        assets.apply(connection, observations, layer=LayerId.API, now=at, evaluate=lambda *_: [])


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [
        row
        for path in sorted((folder / "resource_versions").rglob("*.parquet"))
        for row in pq.ParquetFile(path).read().to_pylist()
    ]


def newest(rows: list[dict[str, Any]]) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Of each version the row of the newest landing, without what tells the landing."""
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: int(row["exported_number"])):
        row = {key: value for key, value in row.items() if not key.startswith("exported")}
        found[row["name"], row["content_type"], row["version"]] = row
    return found


def test_a_landing_holds_what_was_written_since_the_one_before(store: Store, tmp_path: Path) -> None:
    raw = str(tmp_path)
    assert land_versions(store, raw, now=NOW).file is None
    write(store, NOW, told("a", NOW, 1), told("b", NOW, 1))
    assert land_versions(store, raw, now=NOW).rows == 2
    assert land_versions(store, raw, now=NOW).file is None, "nothing was written"
    later = NOW + timedelta(days=1)
    write(store, later, told("a", later, 2))
    second = land_versions(store, raw, now=later)
    with store.read() as connection:
        last = assets.written(connection)
    assert second.file == f"exported_date=2026-03-02/{last - 1:020d}-{last:020d}.parquet"
    assert second.rows == 2, "the version that is current, and the one that it superseded"
    versions = newest(rows_of(tmp_path))
    assert versions["//x/a", "RESOURCE", 1]["valid_to"] == versions["//x/a", "RESOURCE", 2]["valid_from"] == later
    assert versions["//x/b", "RESOURCE", 1]["valid_to"] is None


def test_old_versions_are_not_landed_again(store: Store, tmp_path: Path) -> None:
    for day in range(5):
        at = NOW + timedelta(days=day)
        write(store, at, told("a", at, day))
    land_versions(store, str(tmp_path), now=at + timedelta(hours=2))
    later = at + timedelta(days=1)
    write(store, later, told("a", later, 99))
    assert land_versions(store, str(tmp_path), now=later).rows == 2


def test_a_landing_that_was_cut_short_is_made_again(sqlite_store: Store, tmp_path: Path) -> None:
    write(sqlite_store, NOW, told("a", NOW, 1))
    first = land_versions(sqlite_store, str(tmp_path), now=NOW)
    assert first.file is not None
    whole = tmp_path / "resource_versions" / first.file
    whole.rename(whole.with_name(f"{whole.name}.0123.part"))
    assert land_versions(sqlite_store, str(tmp_path), now=NOW) == first


def test_a_folder_of_another_store_is_refused(sqlite_store: Store, tmp_path: Path) -> None:
    write(sqlite_store, NOW, told("a", NOW, 1))
    write(sqlite_store, NOW, told("b", NOW, 1))
    land_versions(sqlite_store, str(tmp_path), now=NOW)
    with open_store(f"sqlite:///{tmp_path / 'other.db'}") as other, pytest.raises(SyncError) as caught:
        land_versions(other, str(tmp_path), now=NOW)
    assert caught.value.reason is Reason.CONFLICT


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 3)), st.integers(0, 40)),
        st.just(None),
    ),
    max_size=25,
)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_however_often_it_is_landed_the_versions_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path, steps: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("landings")
    path = folder / "store.db"
    path.write_bytes(sqlite_template.read_bytes())
    clock = SteppedClock()
    with open_store(f"sqlite:///{path}", migrate=False) as store:
        for step in [*steps, None]:
            if step is None:
                land_versions(store, str(folder / "many"), now=clock())
                continue
            name, size, minutes = step
            clock.advance(timedelta(minutes=minutes, microseconds=1))
            write(store, clock(), told(name, clock(), size))
        land_versions(store, str(folder / "one"), now=clock())
    assert newest(rows_of(folder / "many")) == newest(rows_of(folder / "one"))
