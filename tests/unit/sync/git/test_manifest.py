"""The manifest in the portal's tree: what is written is read again, and a damaged one is refused."""

from __future__ import annotations

from pathlib import Path

import pygit2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lz_sync_dagster.sync.errors import SyncError
from lz_sync_dagster.sync.git.manifest import (
    HEADER_PATH,
    ManifestChange,
    Owned,
    difference,
    is_manifest,
    load_header,
    load_manifest,
    manifest_entries,
)
from lz_sync_dagster.sync.git.tree import Entry, entries_of, write_tree
from tests.conftest import SOAK

BLOB = "a" * 40


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> pygit2.Repository:
    path: Path = tmp_path_factory.mktemp("manifest")
    return pygit2.init_repository(str(path), bare=True)


def written(repository: pygit2.Repository, tree: pygit2.Tree, change: ManifestChange, commit: str) -> pygit2.Tree:
    entries = manifest_entries(repository, tree, change, commit=commit, where="the portal")
    return repository[write_tree(repository, tree, entries)].peel(pygit2.Tree)


def empty(repository: pygit2.Repository) -> pygit2.Tree:
    return repository[repository.TreeBuilder().write()].peel(pygit2.Tree)


def owned(destination: str, path: str = "p", mode: int = 0o100644) -> Owned:
    return Owned(destination, path, BLOB, mode)


places = st.lists(st.sampled_from(["a", "b", "é", "x.md"]), min_size=1, max_size=3).map("/".join)
files = st.dictionaries(places, st.tuples(st.sampled_from(["p", "q"]), st.sampled_from([0o100644, 0o100755])))


@given(steps=st.lists(files, min_size=1, max_size=4))
@pytest.mark.soak
@settings(max_examples=300 if SOAK else 30)
def test_what_is_written_is_read_again(repository: pygit2.Repository, steps: list[dict[str, tuple[str, int]]]) -> None:
    tree, now = empty(repository), dict[str, Owned]()
    for number, step in enumerate(steps):
        after = {place: owned(place, *values) for place, values in step.items()}
        tree = written(repository, tree, difference(now, after), str(number))
        now = after
        manifest = load_manifest(repository, tree, where="the portal")
        assert (manifest.commit, manifest.files) == (str(number), now)
        assert load_header(repository, tree, where="the portal").files == len(now)
        assert all(map(is_manifest, entries_of(repository, tree)))


def test_a_change_writes_the_pages_of_its_folders_and_the_header_alone(repository: pygit2.Repository) -> None:
    many = {place: owned(place) for place in (f"f{number}/x" for number in range(50))}
    tree = written(repository, empty(repository), ManifestChange(many), "1")
    change = ManifestChange({"f7/y": owned("f7/y")}, frozenset({"f9/x"}))
    entries = manifest_entries(repository, tree, change, commit="2", where="the portal")
    assert set(entries) == {HEADER_PATH, ".lz-sync/files/f7/_files.json", ".lz-sync/files/f9/_files.json"}
    assert entries[".lz-sync/files/f9/_files.json"] is None


DAMAGES = {
    "no JSON": (HEADER_PATH, b""),
    "a list": (HEADER_PATH, b"[]"),
    "no version": (HEADER_PATH, b"{}"),
    "another version": (HEADER_PATH, b'{"version": 3, "commit": null, "files": 2}'),
    "no commit": (HEADER_PATH, b'{"version": 2, "files": 2}'),
    "another count": (HEADER_PATH, b'{"version": 2, "commit": null, "files": 3}'),
    "a page is gone": (".lz-sync/files/a/_files.json", None),
    "a page is no JSON": (".lz-sync/files/a/_files.json", b"<<<<<<< HEAD"),
    "a line is none": (".lz-sync/files/a/_files.json", b'{"x": 1}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_is_an_error_with_a_remedy(repository: pygit2.Repository, damage: str) -> None:
    tree = written(repository, empty(repository), ManifestChange({p: owned(p) for p in ("a/x", "b/y")}), "1")
    path, data = DAMAGES[damage]
    entry = None if data is None else Entry(str(repository.create_blob(data)), 0o100644)
    tree = repository[write_tree(repository, tree, {path: entry})].peel(pygit2.Tree)
    with pytest.raises(SyncError, match=r"restore \.lz-sync/ from the portal repository's history"):
        load_manifest(repository, tree, where="the portal")
