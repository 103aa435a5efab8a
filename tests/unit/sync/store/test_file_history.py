"""The history of files and items in the store."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from lz_sync_dagster.sync.store import Store, file_history, repository
from lz_sync_dagster.sync.store.file_history import (
    CommitFile,
    FileChange,
    HeadMove,
    ItemChange,
    ItemDelta,
    ItemKind,
    MoveKind,
)
from lz_sync_dagster.sync.store.repository import CommitRecord
from tests.conftest import NOW


def at(minute: int) -> datetime:
    return NOW + timedelta(minutes=minute)


def commit(sha: str, minute: int) -> CommitRecord:
    return CommitRecord(sha, at(minute), "A", "a@example.com", f"Subject {sha}", [], 1, 1, 0, "good")


def file(path: str, sha: str, minute: int, old_path: str | None = None) -> CommitFile:
    change = FileChange.RENAMED if old_path else FileChange.MODIFIED
    return CommitFile(path, sha, at(minute), change, old_path, 1, None)


def item(key: str, sha: str, minute: int, before: Any, after: Any, path: str = "pmo.yaml") -> ItemChange:
    return ItemChange(ItemKind.GOVERNANCE, key, path, sha, at(minute), ItemDelta.MODIFIED, before, after)


def test_a_files_history_goes_through_its_renames_page_by_page(store: Store) -> None:
    rows = [
        file("new.md", "c4", 4),
        file("new.md", "c3", 3, "old.md"),
        file("old.md", "c1", 1),
        file("old.md", "c2", 3),  # of the same instant as the rename
        file("old.md", "c5", 5),  # another file that has the old name now
        file("new.md", "c0", 0),  # one that had the new name before
    ]
    with store.write() as connection:
        repository.add_commits(connection, [commit(f"c{number}", number) for number in range(6)])
        file_history.add_commit_files(connection, rows)
    with store.read() as connection:
        found = file_history.file_history(connection, "new.md")
        assert [(entry.file.path, entry.file.sha) for entry in found] == [
            ("new.md", "c4"),
            ("new.md", "c3"),
            ("old.md", "c2"),
            ("old.md", "c1"),
        ]
        assert (found[0].file, found[0].subject, found[0].author_name) == (rows[0], "Subject c4", "A")
        assert file_history.file_history(connection, "new.md", 2) == found[:2]
        assert file_history.file_history(connection, "new.md", 9, (at(4), "c4")) == found[1:]
        assert file_history.file_history(connection, "old.md", 1, (at(3), "c2")) == found[3:]


def test_a_rename_back_and_forth_in_one_instant_ends(store: Store) -> None:
    with store.write() as connection:
        repository.add_commits(connection, [commit("c1", 1), commit("c2", 1)])
        file_history.add_commit_files(connection, [file("a", "c1", 1, "b"), file("b", "c2", 1, "a")])
    with store.read() as connection:
        assert len(file_history.file_history(connection, "a")) == 2


def test_an_items_history_and_what_is_forgotten(store: Store) -> None:
    rows = [item("a.b", "c1", 1, None, {"x": [1, None]}), item("a.b", "c2", 2, "1", 1), item("a.c", "c2", 2, 1, None)]
    with store.write() as connection:
        repository.add_commits(connection, [commit("c1", 1), commit("c2", 2)])
        file_history.add_item_changes(connection, [*rows, item("a.b", "c2", 2, 1, 2, "other.yaml")])
        file_history.add_commit_files(connection, [file("pmo.yaml", "c1", 1), file("pmo.yaml", "c2", 2)])
        assert file_history.kept_among(connection, ["c1", "c9"]) == {"c1"}
    with store.read() as connection:
        found = file_history.item_history(connection, ItemKind.GOVERNANCE, keys=["a.b"])
        assert [entry.item.path for entry in found] == ["other.yaml", "pmo.yaml", "pmo.yaml"]
        page = file_history.item_history(connection, ItemKind.GOVERNANCE, keys=["a.b"], path="pmo.yaml", limit=1)
        assert [entry.item for entry in page] == [rows[1]]
        (last,) = file_history.item_history(
            connection, ItemKind.GOVERNANCE, keys=["a.b"], before=(page[0].item.committed_at, page[0].id)
        )
        assert last.item == rows[0]
        newest = file_history.item_history(connection, ItemKind.GOVERNANCE, ItemKind.GATE, below="a")
        assert {key: len(items) for key, items in file_history.by_key(newest).items()} == {"a.b": 3, "a.c": 1}
        assert file_history.item_history(connection, ItemKind.GATE) == []
    with store.write() as connection:
        file_history.forget(connection, {"c2"})
        found = file_history.item_history(connection, ItemKind.GOVERNANCE, keys=["a.b"])
        assert [entry.item for entry in found] == [rows[0]]
        assert [entry.file.sha for entry in file_history.file_history(connection, "pmo.yaml")] == ["c1"]


def test_a_change_outlives_the_commit_that_is_not_kept(store: Store) -> None:
    with store.write() as connection:
        file_history.add_commit_files(connection, [file("a", "c1", 1)])
        file_history.add_item_changes(connection, [item("a.b", "c1", 1, 1, 2)])
    with store.read() as connection:
        (found,) = file_history.file_history(connection, "a")
        (changed,) = file_history.item_history(connection, ItemKind.GOVERNANCE)
    assert (found.author_name, found.subject, changed.author_name) == (None, None, None)


def test_moves_of_the_head_are_kept(store: Store) -> None:
    moves = [
        HeadMove(None, "c1", MoveKind.FIRST, 1, "manual", at(1)),
        HeadMove("c1", "c2", MoveKind.REWRITTEN, 3, "webhook:d", at(2)),
    ]
    with store.write() as connection:
        for move in moves:
            file_history.record_move(connection, move)
        assert file_history.head_history(connection) == moves[::-1]
