"""Raw data: folders, their days, and tables that nobody has written yet."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from lz_sync_dagster.sync.analytics import raw
from lz_sync_dagster.sync.analytics.raw import Folder
from lz_sync_dagster.sync.errors import Reason, SyncError


def test_tables_that_nobody_has_written_yet_can_be_read_and_have_no_row(tmp_path: Path) -> None:
    raw.ensure_tables(str(tmp_path))
    for table in raw.TABLES:
        files = f"{tmp_path}/{table.folder}/**/*.parquet"
        relation = duckdb.sql(f"select * from read_parquet('{files}', hive_partitioning = true)")
        assert set(relation.columns) == {*table.schema.names, table.partition}
        assert relation.fetchall() == []


def test_tables_that_have_a_file_are_left_alone(tmp_path: Path) -> None:
    Folder(str(tmp_path)).write("resources/snapshot_date=2026-03-01/resources.parquet", b"theirs")
    raw.ensure_tables(str(tmp_path))
    assert [path.name for path in (tmp_path / "resources").rglob("*.parquet")] == ["resources.parquet"]


def test_files_are_listed_by_path_with_their_day(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    for path in (
        "usage_date=2026-03-02/b.parquet",
        "usage_date=2026-03-02/a.parquet",
        "usage_date=2026-03-01/z.parquet",
    ):
        folder.write(path, b"x")
    folder.write("usage_date=2026-03-01/_SUCCESS", b"")
    found = [(file.path, file.day) for file in folder.files(partition="usage_date")]
    assert found == [
        ("usage_date=2026-03-01/z.parquet", date(2026, 3, 1)),
        ("usage_date=2026-03-02/a.parquet", date(2026, 3, 2)),
        ("usage_date=2026-03-02/b.parquet", date(2026, 3, 2)),
    ]


@pytest.mark.parametrize("path", ["usage_date=2026-02-30/a.parquet", "day=2026-02-01/a.parquet", "a.parquet"])
def test_a_file_without_a_real_day_is_an_error(tmp_path: Path, path: str) -> None:
    folder = Folder(str(tmp_path))
    folder.write(path, b"x")
    with pytest.raises(SyncError, match=f"{path}: does not lie in a folder of its day"):
        folder.files(partition="usage_date")


def test_a_folder_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "none"))
    assert not folder.exists()
    assert folder.files(partition="usage_date") == []
    assert folder.read_text("state.json") is None


def test_writing_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write("a/b.json", b"first, and longer")
    folder.write("a/b.json", b"second")
    assert folder.read_text("a/b.json") == "second"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]


def test_a_place_that_is_no_folder_of_a_known_kind_is_an_error() -> None:
    with pytest.raises(SyncError) as caught:
        Folder("carrier-pigeon://bucket/prefix")
    assert caught.value.reason is Reason.INVALID
    assert "gs://BUCKET/PREFIX" in caught.value.remedy


def test_a_folder_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SyncError) as caught:
        Folder(str(tmp_path / "file")).write("a.parquet", b"x")
    assert caught.value.remedy


def test_reading_takes_the_columns_that_are_there(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write("a.parquet", raw.parquet(pa.table({"a": [1], "b": [2]})))
    assert folder.read_table("a.parquet", ["b", "missing"]).to_pylist() == [{"b": 2}]
