"""The history by commit: what is new since a head, which files and items each commit changed."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pygit2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lz_sync_dagster.config import MappingRule
from lz_sync_dagster.sync.errors import SyncError
from lz_sync_dagster.sync.git import gates, governance, history, items, terraform
from lz_sync_dagster.sync.git.history import History, read_history, read_portal_commits
from lz_sync_dagster.sync.git.mapping import Mapping as PathMapping
from lz_sync_dagster.sync.store.file_history import ItemKind, MoveKind
from tests.conftest import SOAK

EXAMPLES = 300 if SOAK else 12
SELECTED = PathMapping(
    ["docs/**", "*.tf", "pmo.yaml", "ENFORCEMENT_GATES.md"], [MappingRule(source="docs/**", destination="d")]
)


@dataclass
class Repo:
    """A bare repository that is written tree by tree, and what a store would keep of it."""

    folder: Path
    clock: Callable[[], int] = field(default_factory=lambda: count(1_700_000_000).__next__)
    kept: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.git = pygit2.init_repository(str(self.folder), bare=True)

    def commit(self, files: Mapping[str, bytes], *parents: str, time: int | None = None) -> str:
        signature = pygit2.Signature("A", "a@example.com", self.clock() if time is None else time, 0)
        tree = self.tree({tuple(path.split("/")): data for path, data in files.items()})
        return str(self.git.create_commit(None, signature, signature, "message", tree, list(parents)))

    def tree(self, files: Mapping[tuple[str, ...], bytes]) -> pygit2.Oid:
        builder = self.git.TreeBuilder()
        below: dict[str, dict[tuple[str, ...], bytes]] = {}
        for (name, *rest), data in files.items():
            if rest:
                below.setdefault(name, {})[tuple(rest)] = data
            else:
                builder.insert(name, self.git.create_blob(data), 0o100644)
        for name, inner in below.items():
            builder.insert(name, self.tree(inner), 0o040000)
        return builder.write()

    def read(self, head: str, old_head: str | None = None, mapping: PathMapping = SELECTED) -> History:
        """Read, and keep what was read."""

        def is_kept(shas: Collection[str]) -> set[str]:
            return {sha for sha in shas if sha in self.kept}

        found = read_history(
            self.git, old_head=old_head, head=head, is_kept=is_kept, kept=lambda: dict(self.kept), mapping=mapping
        )
        for sha in found.dropped:
            del self.kept[sha]
        assert not self.kept.keys() & {commit.sha for commit in found.new}
        self.kept |= {commit.sha: commit.parents for commit in found.new}
        return found

    def log(self, *options: str) -> str:
        command = ["git", f"--git-dir={self.folder}", "-c", "core.quotePath=off", "log", "--format=%x00%H", *options]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return Repo(tmp_path / "r.git")


def shas(found: History) -> list[str]:
    return [commit.sha for commit in found.new]


def test_a_move_forward_reads_what_is_new_alone(repo: Repo) -> None:
    one = repo.commit({"docs/a.md": b"1\n"})
    two = repo.commit({"docs/a.md": b"2\n"}, one)
    three = repo.commit({"docs/a.md": b"3\n"}, two)

    first = repo.read(two)
    assert (first.move, shas(first), first.dropped) == (MoveKind.FIRST, [two, one], frozenset())
    repo.kept = {sha: [] for sha in repo.kept}  # parents are not asked for
    forward = repo.read(three, two)
    assert (forward.move, shas(forward), forward.dropped) == (MoveKind.FORWARD, [three], frozenset())
    still = repo.read(three, three)
    assert (still.move, still.new, still.files, still.items) == (None, [], [], [])


def test_rewritten_history_drops_what_is_gone(repo: Repo) -> None:
    base = repo.commit({})
    lost = repo.commit({"docs/a.md": b"1\n"}, base)
    other = repo.commit({"docs/a.md": b"2\n"}, base)
    repo.read(lost)

    found = repo.read(other, lost)
    assert (found.move, shas(found), found.dropped) == (MoveKind.REWRITTEN, [other], {lost})
    anew = repo.commit({"docs/a.md": b"3\n"})
    found = repo.read(anew, other)
    assert (found.move, shas(found), found.dropped) == (MoveKind.REWRITTEN, [anew], {base, other})
    assert repo.kept.keys() == {anew}


@pytest.mark.parametrize("old_head", ["f" * 40, None])
def test_a_head_of_before_that_is_not_known_reads_what_is_not_kept(repo: Repo, old_head: str | None) -> None:
    one = repo.commit({})
    two = repo.commit({"docs/a.md": b"1\n"}, one)
    repo.read(one)
    assert shas(repo.read(two, old_head)) == [two]


def test_an_old_branch_brings_its_own_commits_alone(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "FIRST_COMMITS", 3)
    head = root = repo.commit({})
    for number in range(9):
        head = repo.commit({"docs/a.md": b"%d" % number}, head)
    assert len(repo.read(head).new) == 3
    branch = repo.commit({"docs/b.md": b"b"}, root, time=0)
    merge = repo.commit({"docs/a.md": b"8", "docs/b.md": b"b"}, head, branch)
    assert set(shas(repo.read(merge, head))) == {branch, merge}
    later = repo.commit({}, repo.commit({"docs/c.md": b""}, merge, time=5), time=3)
    assert len(repo.read(later, merge).new) == 2


PATHS = ["docs/a.md", "docs/b.md", "docs/sub/a.md", "main.tf", "other.txt", "src/x.py", "docs"]
LINES = [b"%d\n" % number * 3 for number in range(6)]
contents = st.lists(st.sampled_from(LINES), max_size=6).map(b"".join)
trees = st.dictionaries(st.sampled_from(PATHS[:-1]), contents, max_size=5)
#: Each commit: its files, and which of the earlier ones are its parents (counted from the end).
commits = st.lists(st.tuples(trees, st.sets(st.integers(1, 4), min_size=1, max_size=3)), min_size=1, max_size=9)


def build(repo: Repo, steps: Sequence[tuple[Mapping[str, bytes], Collection[int]]]) -> list[str]:
    made: list[str] = []
    for files, back in steps:
        made.append(repo.commit(files, *(made[-number] for number in sorted(back) if number <= len(made))))
    return made


@settings(max_examples=EXAMPLES)
@given(commits)
def test_the_files_of_each_commit_are_those_of_git_log(steps: list[tuple[dict[str, bytes], set[int]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        repo = Repo(Path(folder))
        head = build(repo, steps)[-1]
        found = repo.read(head)
        rows: set[tuple[str, str, str]] = set()
        for file in found.files:
            letter = {"renamed": "A"}.get(file.change.value, file.change.value[0].upper())
            rows.add((file.sha, letter, file.path))
            if file.old_path is not None:
                rows.add((file.sha, "D", file.old_path))
        rows = {row for row in rows if SELECTED.destinations(row[2])}
        expected = set()
        for part in repo.log("-c", "--no-renames", "--name-status", head).split("\0")[1:]:
            sha, *lines = part.split()
            for letters, path in zip(lines[::2], lines[1::2], strict=True):
                if SELECTED.destinations(path):
                    expected.add((sha, letters[0], path))
        assert rows == expected
        assert {commit.sha for commit in found.new} == set(repo.log(head).replace("\0", "").split())
        totals = {commit.sha: (commit.insertions, commit.deletions) for commit in found.new if len(commit.parents) < 2}
        for part in repo.log("--numstat", "--find-renames", head).split("\0")[1:]:
            sha, *rest = part.split("\n")
            counts = [line.split("\t")[:2] for line in rest if line]
            if sha in totals:
                added, removed = (sum(int(count[column]) for count in counts) for column in (0, 1))
                assert totals[sha][0] - totals[sha][1] == added - removed


@settings(max_examples=EXAMPLES * 2)
@given(commits, st.lists(st.integers(0, 8), max_size=3), st.randoms(use_true_random=False))
def test_whatever_heads_were_read_before_the_commits_of_the_head_are_kept(
    steps: list[tuple[dict[str, bytes], set[int]]], heads: list[int], random: Random
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        repo = Repo(Path(folder), clock=lambda: random.randrange(1_000_000))
        made = build(repo, steps)
        old: str | None = None
        for number in [*heads, len(made) - 1]:
            head = made[min(number, len(made) - 1)]
            found = repo.read(head, old)
            assert repo.kept.keys() == {str(commit.id) for commit in repo.git.walk(head)}
            assert {file.sha for file in found.files} <= set(shas(found))
            old = head


PMO = [b"a: 1\n", b"a: true\nb: [x, y]\n", b"b: [x]\nc: {d: 2}\n", b"a: [\n", b"- list\n", b"", b"token: hunter2\n"]
GATES = [
    b"| Gate | Severity |\n|---|---|\n| G-1 | high |\n| G-2 | low |\n",
    b"| Gate | Severity |\n|---|---|\n| G-1 | low |\n",
    b"to be written\n",
    b"",
]
BLOCKS = [
    b'variable "a" {}\n',
    b'variable "a" {\n  default = 1\n}\nlocals {\n  x = 1\n}\n',
    b"locals {\n  x = =\n}\n",
    b"",
]
version = st.fixed_dictionaries(
    {},
    optional={
        "pmo.yaml": st.sampled_from(PMO),
        "ENFORCEMENT_GATES.md": st.sampled_from(GATES),
        "main.tf": st.sampled_from(BLOCKS),
    },
)


def state_of(path: str, data: bytes) -> dict[str, Any] | None:
    """What the readers find in a version: by key, as the history shows it."""
    try:
        if path == "pmo.yaml":
            values = governance.read_governance(path, data.decode(), "").values
            return {value.key: value.value for value in values}
        if path == "main.tf":
            return {key: {"text": text} for key, text in terraform.block_texts(data).items()}
        return {gate.gate_id: gate.severity for gate in gates.read_gates(path, data.decode(), "")}
    except SyncError:
        return None


@settings(max_examples=EXAMPLES * 2)
@given(st.lists(version, min_size=1, max_size=8), st.integers(0, 7))
def test_the_changes_of_all_commits_add_up_to_the_state_at_the_head(versions: list[dict[str, bytes]], cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        repo = Repo(Path(folder))
        made: list[str] = []
        for files in versions:
            made.append(repo.commit(files, *made[-1:]))
        expected: dict[str, dict[str, Any]] = {"pmo.yaml": {}, "ENFORCEMENT_GATES.md": {}, "main.tf": {}}
        for files in versions:
            for path, before in expected.items():
                found = state_of(path, files[path]) if path in files else {}
                expected[path] = before if found is None else found
        middle = made[min(cut, len(made) - 1)]
        changes = [*repo.read(middle).items, *repo.read(made[-1], middle).items]
        state: dict[str, dict[str, Any]] = {path: {} for path in expected}
        for change in changes:
            of_file = state[change.path]

            def shown(value: Any, kind: ItemKind = change.kind) -> Any:
                return value["severity"] if kind is ItemKind.GATE else value

            if change.change.value == "added":
                assert change.key not in of_file
            else:
                assert of_file.pop(change.key) == shown(change.before)
            if change.change.value != "removed":
                of_file[change.key] = shown(change.after)
        assert state == expected


def test_a_merge_lists_items_that_differ_from_all_parents(repo: Repo) -> None:
    base = repo.commit({"pmo.yaml": b"a: 1\nb: 1\n"})
    left = repo.commit({"pmo.yaml": b"a: 2\nb: 1\n"}, base)
    right = repo.commit({"pmo.yaml": b"a: 1\nb: 2\n"}, base)
    merge = repo.commit({"pmo.yaml": b"a: 2\nb: 2\nc: 1\n"}, left, right)

    found = [(item.sha, item.key, item.after) for item in repo.read(merge).items if item.sha != base]
    assert sorted(found) == sorted([(left, "a", 2), (right, "b", 2), (merge, "c", 1)])


def test_a_renamed_file_keeps_its_blocks(repo: Repo) -> None:
    text = b'variable "a" {\n  default = 1\n}\nvariable "b" {}\n' * 3
    one = repo.commit({"a.tf": text})
    two = repo.commit({"b.tf": text + b'variable "c" {}\n'}, one)
    found = repo.read(two)

    (renamed,) = [file for file in found.files if file.sha == two]
    assert (renamed.change.value, renamed.path, renamed.old_path) == ("renamed", "b.tf", "a.tf")
    assert (renamed.insertions, renamed.deletions) == (1, 0)
    assert [(item.key, item.change.value) for item in found.items if item.sha == two] == [("var.c", "added")]


def test_contents_that_a_partial_clone_lacks_are_not_counted_and_break_nothing(repo: Repo) -> None:
    one = repo.commit({"docs/a.md": b"1\n" * 9, "docs/old.md": b"x\n" * 9, "main.tf": b'variable "a" {}\n'})
    lacking = {"docs/a.md": b"2\n" * 9, "docs/new.md": b"y\n" * 9, "main.tf": b'variable "b" {}\n'}
    two = repo.commit({**lacking, "docs/there.md": b"1\n2\n"}, one)
    three = repo.commit({**lacking, "main.tf": b'variable "c" {}\n'}, two)
    for data in lacking.values():
        blob = str(pygit2.hash(data))
        (repo.folder / "objects" / blob[:2] / blob[2:]).unlink()
    repo.git = pygit2.Repository(str(repo.folder))
    found = repo.read(three)

    lines = {file.path: (file.insertions, file.deletions) for file in found.files if file.sha == two}
    assert lines["docs/a.md"] == lines["docs/new.md"] == (None, None)
    assert lines["docs/there.md"] == (2, 0)
    assert next(commit.insertions for commit in found.new if commit.sha == two) == 2
    changes = [(item.sha, item.key, item.change.value) for item in found.items]
    assert changes == [(one, "var.a", "added"), (three, "var.a", "removed"), (three, "var.c", "added")]


def test_odd_files_are_listed(repo: Repo) -> None:
    repository = repo.git
    signature = pygit2.Signature("A", "a@example.com", 1, 0)

    def commit(entries: Sequence[tuple[bytes, bytes, Any]], *parents: Any) -> Any:
        raw = b"".join(
            mode + b" " + name + b"\0" + blob.raw for mode, name, blob in sorted(entries, key=lambda e: e[1])
        )
        tree = repository.odb.write(pygit2.enums.ObjectType.TREE, raw)
        return repository.create_commit(None, signature, signature, "m", tree, list(parents))

    others = [
        (b"160000", b"module", pygit2.Oid(hex="1" * 40)),
        (b"100644", b"caf\xe9.md", repository.create_blob(b"x\n")),
        (b"100644", b"binary", repository.create_blob(b"a\0b")),
    ]
    one = commit([*others, (b"120000", b"link", repository.create_blob(b"target"))])
    two = commit([*others, (b"100644", b"link", repository.create_blob(b"now a file\n"))], one)
    found = repo.read(str(two), mapping=PathMapping(["**"], []))

    assert {file.path: file.insertions for file in found.files if file.sha == str(one)} == {
        "link": 1,
        "module": 1,
        "caf\\xe9.md": 1,
        "binary": None,
    }
    (changed,) = [file for file in found.files if file.sha == str(two)]
    assert (changed.path, changed.change.value) == ("link", "modified")


def test_secrets_and_long_texts_are_not_kept(repo: Repo) -> None:
    key = b"-----BEGIN RSA PRIVATE KEY-----\nQUJD\n-----END RSA PRIVATE KEY-----"
    withheld = b'resource "a_b" "c" {\n  key = <<EOT\n' + key + b"\nEOT\n}\n"
    text = b"locals {\n" + b"  x = 1\n" * 2000 + b"}\n"
    files = {"keys.tf": withheld, "main.tf": text, "pmo.yaml": b"db:\n  password: hunter2\n  token: {id: 17}\n"}
    found = {item.key: item.after for item in repo.read(repo.commit(files)).items}

    assert "a_b.c" not in found, "a version that is withheld from the portal is no version"
    assert (found["db.password"], found["db.token.id"]) == ("[redacted]", "[redacted]")
    assert len(found["locals"]["text"]) < items.MAX_TEXT + 100
    assert found["locals"]["text"].endswith("characters)")


def test_a_bulk_commit_keeps_the_keys_of_its_items_alone(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "BULK_FILES", 2)
    sha = repo.commit({f"{number}.tf": b'variable "v" {}\n' for number in range(3)})
    assert [(item.key, item.after) for item in repo.read(sha).items] == [("var.v", {"omitted": "bulk"})] * 3


def test_portal_commits_are_read_back_to_one_that_is_known(repo: Repo) -> None:
    signature = pygit2.Signature("A", "a@example.com", 1, 0)
    made: list[Any] = []
    for number, message in enumerate(["s\n\nLanding-Zone-Commit: 1\n", "by hand\n"] * 2):
        tree = repo.tree({("f",): b"%d" % number})
        made.append(repo.git.create_commit(None, signature, signature, message, tree, made[-1:]))
    asked: list[str] = []

    def is_known(sha: str) -> bool:
        asked.append(sha)
        return sha == str(made[0])

    found = read_portal_commits(repo.git, str(made[-1]), is_known, branch="main")
    assert [(commit.sha, commit.modified) for commit in found] == [(str(made[2]), 1)]
    assert asked == [str(made[2]), str(made[0])]
