"""What a sync does to the portal's tree."""

from __future__ import annotations

from pathlib import Path

import pygit2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lz_sync_dagster.sync.errors import SyncError
from lz_sync_dagster.sync.git.plan import MANIFEST_PATH, Manifest, Owned, Plan, SourceFile, load_manifest, make_plan
from lz_sync_dagster.sync.git.tree import Entry, entries_of, write_tree
from tests.conftest import SOAK

Tree = dict[str, Entry]


def entry(content: str) -> Entry:
    return Entry(str(pygit2.hash(content.encode())), 0o100644)


def file(path: str, content: str = "x", destination: str | None = None, reason: str | None = None) -> SourceFile:
    return SourceFile(path, destination or f"ref/{path}", entry(content), len(content), reason)


def apply(plan: Plan, portal: Tree) -> Tree:
    after = {path: found for path, found in portal.items() if path not in plan.deletes}
    after |= {destination: written.entry for destination, written in plan.writes.items()}
    return after | ({MANIFEST_PATH: entry(plan.manifest.dump().decode())} if not plan.is_empty else {})


def test_new_changed_and_gone_files_follow() -> None:
    first = make_plan([file("a"), file("b"), file("c")], Manifest(), {}, commit="1")
    portal = apply(first, {})
    second = make_plan([file("a"), file("b", "changed"), file("d")], first.manifest, portal, commit="2")

    assert set(second.writes) == {"ref/b", "ref/d"}
    assert second.deletes == ("ref/c",)
    assert second.manifest.commit == "2"


def test_the_manifest_changes_only_when_a_file_does() -> None:
    first = make_plan([file("a")], Manifest(), {}, commit="1")
    second = make_plan([file("a")], first.manifest, apply(first, {}), commit="2")

    assert second.is_empty
    assert second.manifest.commit == "1"


def test_a_file_that_the_portal_has_of_its_own_is_refused_and_stays() -> None:
    portal = {"ref/a": entry("written by hand"), "ref/B": entry("by hand"), "ref/dir/x": entry("by hand")}
    plan = make_plan([file("a"), file("b"), file("dir"), file("a/below"), file("ok")], Manifest(), portal, commit="1")

    assert set(plan.writes) == {"ref/ok"}
    assert set(plan.refused) == {"a", "b", "dir", "a/below"}
    assert "file of its own at ref/a" in plan.refused["a"]


def test_an_equal_file_that_is_there_already_is_taken_over() -> None:
    plan = make_plan([file("a")], Manifest(), {"ref/a": entry("x")}, commit="1")

    assert not plan.writes
    assert plan.manifest.files == (Owned("ref/a", "a", entry("x").blob),)
    assert not plan.is_empty


def test_a_synced_file_that_was_edited_or_removed_by_hand_is_restored() -> None:
    old = make_plan([file("a"), file("b")], Manifest(), {}, commit="1").manifest
    plan = make_plan([file("a"), file("b")], old, {"ref/a": entry("edited")}, commit="1")

    assert plan.restored == ("ref/a", "ref/b")
    assert set(plan.writes) == {"ref/a", "ref/b"}


def test_where_two_files_claim_one_place_the_first_has_it() -> None:
    files = [
        file("Readme.md", destination="ref/readme.md"),
        file("README.md", destination="ref/README.md"),
        file("caf\u00e9", destination="ref/caf\u00e9"),
        file("cafe\u0301", destination="ref/cafe\u0301"),
        file("x", destination="ref/x"),
        file("z", destination="ref/x/below"),
        file("zz", destination=MANIFEST_PATH),
    ]
    plan = make_plan(files, Manifest(), {}, commit="1")

    assert set(plan.writes) == {"ref/README.md", "ref/cafe\u0301", "ref/x"}
    assert set(plan.refused) == {"Readme.md", "caf\u00e9", "z", "zz"}
    assert "collides with ref/README.md" in plan.refused["Readme.md"]


def test_a_file_that_becomes_a_folder_and_back_follows() -> None:
    as_file = make_plan([file("a")], Manifest(), {}, commit="1")
    as_folder = make_plan([file("a/b")], as_file.manifest, apply(as_file, {}), commit="2")
    assert (set(as_folder.writes), as_folder.deletes, as_folder.refused) == ({"ref/a/b"}, ("ref/a",), {})


def test_a_refused_file_that_was_synced_before_is_deleted() -> None:
    old = make_plan([file("a")], Manifest(), {}, commit="1")
    plan = make_plan([file("a", "y", reason="is a symbolic link")], old.manifest, apply(old, {}), commit="2")

    assert plan.deletes == ("ref/a",)
    assert plan.refused == {"a": "is a symbolic link"}


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"version": 2, "commit": null, "files": []}', b'{"version": 1}'])
def test_an_unreadable_manifest_is_an_error_with_a_remedy(data: bytes) -> None:
    with pytest.raises(SyncError, match="from the portal repository's history"):
        load_manifest(data, where="the portal")


def test_a_manifest_survives_its_file() -> None:
    manifest = Manifest("1", (Owned("ref/a", "a", "f" * 40), Owned("ref/b", "b", "e" * 40)))
    assert load_manifest(manifest.dump(), where="the portal") == manifest


names = st.lists(st.sampled_from(["a", "b", "c", "A", "d.md"]), min_size=1, max_size=3).map("/".join)
contents = st.sampled_from(["1", "2", "3"])


def trees(prefix: str = "", contents: st.SearchStrategy[str] = contents) -> st.SearchStrategy[dict[str, str]]:
    def is_tree(paths: dict[str, str]) -> bool:
        return not any(other.startswith(path + "/") for path in paths for other in paths)

    return st.dictionaries(names.map(lambda name: prefix + name), contents, max_size=6).filter(is_tree)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> pygit2.Repository:
    path: Path = tmp_path_factory.mktemp("scratch")
    repository = pygit2.init_repository(str(path), bare=True)
    for content in ("1", "2", "3", "by hand"):
        repository.create_blob(content.encode())
    return repository


@given(first=trees(), second=trees(), own=trees("ref/", st.just("by hand")))
@pytest.mark.soak
@settings(max_examples=500 if SOAK else 40)
def test_any_history_ends_in_the_expected_tree(
    scratch: pygit2.Repository, first: dict[str, str], second: dict[str, str], own: dict[str, str]
) -> None:
    """Synced twice into a portal with files of its own, written through real trees: its own files are untouched, each
    source file is in place or refused, nothing else is there, and the same sync again is a no-op."""
    theirs = {path: entry(content) for path, content in own.items()}
    portal, manifest = theirs, Manifest()
    for number, source in enumerate((first, second)):
        files = [file(path, content) for path, content in source.items()]
        plan = make_plan(files, manifest, portal, commit=str(number))
        portal = {path: found for path, found in apply(plan, portal).items() if path != MANIFEST_PATH}
        base = scratch[write_tree(scratch, None, dict(theirs))].peel(pygit2.Tree)
        written = write_tree(scratch, base, {path: portal.get(path) for path in portal.keys() | theirs.keys()})
        assert entries_of(scratch, scratch[written].peel(pygit2.Tree)) == portal

        expected = dict(theirs)
        expected |= {found.destination: found.entry for found in files if found.path not in plan.refused}
        assert portal == expected
        assert {path: portal[path] for path in theirs} == theirs
        assert plan.refused.keys() <= source.keys()
        assert make_plan(files, plan.manifest, portal, commit="later").is_empty
        manifest = plan.manifest


@given(before=trees(), after=trees())
@pytest.mark.soak
@settings(max_examples=500 if SOAK else 40)
def test_a_changed_tree_is_written_exactly(
    scratch: pygit2.Repository, before: dict[str, str], after: dict[str, str]
) -> None:
    """Also where a file becomes a folder or a folder a file, and without empty folders."""
    base = scratch[write_tree(scratch, None, {path: entry(content) for path, content in before.items()})]
    wanted = {path: entry(content) for path, content in after.items()}
    changes = {path: wanted.get(path) for path in before.keys() | after.keys()}
    written = scratch[write_tree(scratch, base.peel(pygit2.Tree), changes)].peel(pygit2.Tree)

    assert entries_of(scratch, written) == wanted
    assert written.id == write_tree(scratch, None, wanted)
