"""What a sync does to the portal's tree."""

from __future__ import annotations

from pathlib import Path

import pygit2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lz_sync_dagster.sync.git.manifest import PAGE_NAME, Manifest, Owned
from lz_sync_dagster.sync.git.plan import EDITED, Known, Plan, SourceFile, amend_plan, make_plan
from lz_sync_dagster.sync.git.tree import Entry, changes_between, entries_of, entry_at, rivals, write_tree
from tests.conftest import SOAK

Tree = dict[str, Entry]
NOTHING = Manifest()


def entry(content: str) -> Entry:
    return Entry(str(pygit2.hash(content.encode())), 0o100644)


def file(path: str, content: str = "x", destination: str | None = None, reason: str | None = None) -> SourceFile:
    return SourceFile(path, destination or f"ref/{path}", entry(content), len(content), reason)


def apply(plan: Plan, portal: Tree) -> Tree:
    after = {path: found for path, found in portal.items() if path not in plan.deletes}
    return after | {destination: written.entry for destination, written in plan.writes.items()}


def manifest_after(plan: Plan, before: Manifest = NOTHING) -> Manifest:
    return Manifest("1", plan.manifest.applied_to(before.files))


def refused(plan: Plan) -> dict[str, str]:
    return {found.path: found.reason for found in plan.files if found.reason is not None}


def test_new_changed_and_gone_files_follow() -> None:
    first = make_plan([file("a"), file("b"), file("c")], NOTHING, {})
    portal = apply(first, {})
    second = make_plan([file("a"), file("b", "changed"), file("d")], manifest_after(first), portal)

    assert set(second.writes) == {"ref/b", "ref/d"}
    assert second.deletes == ("ref/c",)
    assert set(second.manifest.added) == {"ref/b", "ref/d"}
    assert second.manifest.removed == {"ref/c"}


def test_the_same_files_again_change_nothing() -> None:
    first = make_plan([file("a")], NOTHING, {})
    assert make_plan([file("a")], manifest_after(first), apply(first, {})).is_empty


def test_a_file_that_the_portal_has_of_its_own_is_refused_and_stays() -> None:
    portal = {"ref/a": entry("written by hand"), "ref/B": entry("by hand"), "ref/dir/x": entry("by hand")}
    plan = make_plan([file("a"), file("b"), file("dir"), file("a/below"), file("ok")], NOTHING, portal)

    assert set(plan.writes) == {"ref/ok"}
    assert set(refused(plan)) == {"a", "b", "dir", "a/below"}
    assert "file of its own at ref/a" in refused(plan)["a"]


def test_an_equal_file_that_is_there_already_is_taken_over() -> None:
    plan = make_plan([file("a")], NOTHING, {"ref/a": entry("x")})

    assert not plan.writes
    assert plan.manifest.added == {"ref/a": Owned("ref/a", "a", entry("x").blob)}
    assert not plan.is_empty


def test_a_synced_file_that_was_edited_or_removed_by_hand_is_restored() -> None:
    old = manifest_after(make_plan([file("a"), file("b")], NOTHING, {}))
    plan = make_plan([file("a"), file("b")], old, {"ref/a": entry("edited")})

    assert [(drift.destination, drift.found, drift.restored) for drift in plan.drifts] == [
        ("ref/a", entry("edited"), True),
        ("ref/b", None, True),
    ]
    assert set(plan.writes) == {"ref/a", "ref/b"}


def test_where_drift_is_refused_an_edited_file_stays_and_is_still_the_syncs() -> None:
    old = manifest_after(make_plan([file("a"), file("b"), file("c"), file("d")], NOTHING, {}))
    portal = {"ref/a": entry("edited"), "ref/b": entry("edited"), "ref/d": entry("new")}
    plan = make_plan([file("a", "new"), file("c"), file("d", "new")], old, portal, restore=False)

    assert (plan.writes, plan.deletes) == ({}, ())
    assert refused(plan) == {"a": EDITED, "c": EDITED}
    assert [drift.destination for drift in plan.drifts] == ["ref/a", "ref/b", "ref/c"]
    assert not any(drift.restored for drift in plan.drifts)
    assert plan.manifest.added == {"ref/d": Owned("ref/d", "d", entry("new").blob)}, "the edit that was to come"
    assert plan.manifest.removed == frozenset()
    assert make_plan([file("a", "new"), file("c"), file("d", "new")], manifest_after(plan, old), portal).writes


def test_where_drift_is_refused_no_other_file_takes_the_place_of_an_edited_one() -> None:
    old = manifest_after(make_plan([file("b/c")], NOTHING, {}))
    portal = {"ref/b/c": entry("edited")}
    plan = make_plan([file("b")], old, portal, restore=False)
    assert (plan.writes, plan.deletes) == ({}, ())
    assert "a file of its own at ref/b/c" in refused(plan)["b"]
    assert set(make_plan([file("b")], old, portal).writes) == {"ref/b"}


def test_where_drift_is_refused_an_edited_file_that_is_gone_on_both_sides_is_forgotten() -> None:
    old = manifest_after(make_plan([file("a")], NOTHING, {}))
    plan = make_plan([], old, {}, restore=False)
    assert (plan.drifts, plan.manifest.removed) == ((), {"ref/a"})


def test_where_two_files_claim_one_place_the_first_has_it() -> None:
    files = [
        file("Readme.md", destination="ref/readme.md"),
        file("README.md", destination="ref/README.md"),
        file("caf\u00e9", destination="ref/caf\u00e9"),
        file("cafe\u0301", destination="ref/cafe\u0301"),
        file("x", destination="ref/x"),
        file("z", destination="ref/x/below"),
        file("zz", destination=".LZ-sync/x"),
        file("zzz", destination=f"ref/{PAGE_NAME}/x"),
    ]
    plan = make_plan(files, NOTHING, {})

    assert set(plan.writes) == {"ref/README.md", "ref/cafe\u0301", "ref/x"}
    assert set(refused(plan)) == {"Readme.md", "caf\u00e9", "z", "zz", "zzz"}
    assert "collides with ref/README.md" in refused(plan)["Readme.md"]


def test_a_file_that_becomes_a_folder_and_back_follows() -> None:
    as_file = make_plan([file("a")], NOTHING, {})
    as_folder = make_plan([file("a/b")], manifest_after(as_file), apply(as_file, {}))
    assert (set(as_folder.writes), as_folder.deletes, refused(as_folder)) == ({"ref/a/b"}, ("ref/a",), {})


def test_a_refused_file_that_was_synced_before_is_deleted() -> None:
    old = make_plan([file("a")], NOTHING, {})
    plan = make_plan([file("a", "y", reason="is a symbolic link")], manifest_after(old), apply(old, {}))

    assert plan.deletes == ("ref/a",)
    assert refused(plan) == {"a": "is a symbolic link"}


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
    for content in ("1", "2", "3", "x", "by hand"):
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
    portal, manifest = theirs, NOTHING
    for source in (first, second):
        files = [file(path, content) for path, content in source.items()]
        plan = make_plan(files, manifest, portal)
        portal = apply(plan, portal)
        base = scratch[write_tree(scratch, None, dict(theirs))].peel(pygit2.Tree)
        written = write_tree(scratch, base, {path: portal.get(path) for path in portal.keys() | theirs.keys()})
        assert entries_of(scratch, scratch[written].peel(pygit2.Tree)) == portal

        expected = dict(theirs)
        expected |= {found.destination: found.entry for found in files if found.path not in refused(plan)}
        assert portal == expected
        assert {path: portal[path] for path in theirs} == theirs
        assert refused(plan).keys() <= source.keys()
        manifest = manifest_after(plan, manifest)
        assert make_plan(files, manifest, portal).is_empty


class RealTree:
    """A tree of the portal, in a real object database."""

    def __init__(self, repository: pygit2.Repository, entries: Tree) -> None:
        self.repository = repository
        self.tree = repository[write_tree(repository, None, dict(entries))].peel(pygit2.Tree)

    def entry(self, path: str) -> Entry | None:
        return entry_at(self.tree, path)

    def has_rival(self, path: str) -> bool:
        return rivals(self.repository, self.tree, path)


def edits(contents: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, str | None]]:
    places = st.one_of(names, names.map("ref/".__add__))
    return st.dictionaries(places, st.one_of(contents, st.none()), max_size=3)


def is_tree(paths: Tree) -> bool:
    return not any(other.startswith(path + "/") for path in paths for other in paths)


@given(
    first=trees(),
    second=trees(),
    own=trees("ref/", st.just("by hand")),
    by_hand=edits(st.just("by hand")),
    secret=st.sets(st.sampled_from(["1", "2"]), max_size=1),
    restore=st.booleans(),
)
@pytest.mark.soak
@settings(max_examples=3000 if SOAK else 150)
def test_what_moved_alone_leads_to_the_plan_of_everything(
    scratch: pygit2.Repository,
    first: dict[str, str],
    second: dict[str, str],
    own: dict[str, str],
    by_hand: dict[str, str | None],
    secret: set[str],
    restore: bool,
) -> None:
    """`amend_plan`, where it decides at all, does what `make_plan` does: the same tree, manifest, drifts, reasons."""

    def selected(source: dict[str, str]) -> list[SourceFile]:
        return [file(path, text, reason="secret" if text in secret else None) for path, text in source.items()]

    def whole(source: dict[str, str], manifest: Manifest, portal: Tree) -> Plan:
        return make_plan(selected(source), manifest, portal, restore=restore)

    before = {path: entry(content) for path, content in own.items()}
    left = whole(first, NOTHING, before)
    portal, manifest = apply(left, before), manifest_after(left)
    edited = {path: found for path, found in portal.items() if by_hand.get(path, "") is not None}
    edited |= {path: entry(text) for path, text in by_hand.items() if text is not None}
    if not is_tree(edited):
        edited = portal

    old, new = RealTree(scratch, portal), RealTree(scratch, edited)
    sources = [RealTree(scratch, {path: entry(text) for path, text in tree.items()}).tree for tree in (first, second)]
    moved = {change.path for change in changes_between(scratch, *sources)}
    amended = amend_plan(
        [found for found in selected(second) if found.path in moved],
        moved,
        [change.path for change in changes_between(scratch, old.tree, new.tree)],
        Known(manifest.files, [found.destination for found in left.files if found.reason is not None]),
        new,
        restore=restore,
    )
    full = whole(second, manifest, edited)
    if amended is None:
        return
    assert apply(amended, edited) == apply(full, edited)
    assert amended.manifest == full.manifest
    assert amended.drifts == full.drifts
    still = {found.key: found for found in left.files if found.path not in moved and found.path in second}
    assert still | {found.key: found for found in amended.files} == {found.key: found for found in full.files}


def test_a_few_changes_are_planned_from_what_moved_alone(scratch: pygit2.Repository) -> None:
    """Otherwise the property above would say nothing."""
    first = make_plan([file("a"), file("b"), file("dir/c")], NOTHING, {"own": entry("by hand")})
    portal = apply(first, {"own": entry("by hand")})
    known = Known(manifest_after(first).files, [])
    moved = [file("b", "2"), file("dir/d")]
    plan = amend_plan(moved, {"b", "dir/c", "dir/d"}, ["own"], known, RealTree(scratch, portal))
    assert plan is not None
    assert (set(plan.writes), plan.deletes) == ({"ref/b", "ref/dir/d"}, ("ref/dir/c",))
    for place, matters in (("ref/A", False), ("REF", True), ("ref/dir/d/e", True)):
        decided = amend_plan(moved, {"b"}, [], Known(known.synced, [place]), RealTree(scratch, portal))
        assert (decided is None) is matters, place
    assert amend_plan([file("x", destination="ref/A")], {"x"}, [], known, RealTree(scratch, portal)) is None
    assert amend_plan([], set(), [".lz-sync/manifest.json"], known, RealTree(scratch, portal)) is None
    assert amend_plan([], set(), ["ref/a"], known, RealTree(scratch, portal), restore=False) is None


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
