"""A landing zone's history, made up from a seed: every kind of change that a repository can see, and the people who
commit to the portal repository meanwhile.

Trees are written raw, since some of what a repository can hold no honest tool would write.
"""

from __future__ import annotations

import random
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pygit2

REF = "refs/heads/main"
REGULAR, EXECUTABLE, SYMLINK, GITLINK = 0o100644, 0o100755, 0o120000, 0o160000
PLACE = b"docs/lz-reference/"
SECRET = b"-----BEGIN RSA PRIVATE KEY-----\n" + b"QUJDREVGR0hJSktMTU5PUA==\n" * 4 + b"-----END RSA PRIVATE KEY-----\n"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
GATES = b"# Gates\n\n| Gate | Phase | Severity |\n|---|---|---|\n| GATE-01 | build | high |\n"


class Entry(NamedTuple):
    """What is at a path: git's mode and the object's id."""

    mode: int
    oid: str


Files = dict[bytes, Entry]


def write_tree(repository: pygit2.Repository, files: Files) -> pygit2.Oid:
    """Write a tree byte by byte, whatever the names are."""
    folders: dict[bytes, Files] = {}
    entries: list[tuple[bytes, int, str]] = []
    for path, entry in files.items():
        name, slash, rest = path.partition(b"/")
        if slash:
            folders.setdefault(name, {})[rest] = entry
        else:
            entries.append((name, entry.mode, entry.oid))
    entries += [(name, stat.S_IFDIR, str(write_tree(repository, inner))) for name, inner in folders.items()]
    entries.sort(key=lambda entry: entry[0] + b"/" * (entry[1] == stat.S_IFDIR))
    data = b"".join(b"%o %s\0%s" % (mode, name, bytes.fromhex(oid)) for name, mode, oid in entries)
    return repository.write(pygit2.enums.ObjectType.TREE, data)


@dataclass
class Repo:
    """A bare repository and what its branch holds."""

    path: Path
    files: Files = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.git: Any = pygit2.init_repository(str(self.path), bare=True, initial_head="main")
        self._seconds = 1_767_000_000

    def blob(self, data: bytes, mode: int = REGULAR) -> Entry:
        return Entry(mode, str(self.git.create_blob(data)))

    def read(self, path: bytes) -> bytes:
        data: bytes = self.git[self.files[path].oid].data
        return data

    def commit(self, message: str, *parents: str, author: str = "Alice") -> str:
        """A commit of ``files`` on top of the parents, or of the branch. The branch moves there."""
        self._seconds += 60
        if not parents and REF in self.git.references:
            parents = (str(self.git.references[REF].target),)
        signature = pygit2.Signature(author, f"{author.lower()}@example.com", self._seconds, 0)
        tree = write_tree(self.git, self.files)
        oid = self.git.create_commit(None, signature, signature, message, tree, list(parents))
        self.git.references.create(REF, oid, force=True)
        return str(oid)


Kind = Callable[["History"], str]
#: What happens in the landing zone; each makes one commit and says what it did.
CHANGES: list[Kind] = []
#: What a person does in the portal repository, or to the settings, before the next sync.
MEDDLING: list[Kind] = []


def change(kind: Kind) -> Kind:
    CHANGES.append(kind)
    return kind


def meddling(kind: Kind) -> Kind:
    MEDDLING.append(kind)
    return kind


class History:
    """The history of both repositories. Attributes that start without an underscore are what a sync has to know.

    Args:
        large: the size of the large file, in bytes.
        owned: what the sync owns in the portal repository, by path.
    """

    def __init__(self, folder: Path, seed: int, *, large: int, owned: set[bytes]) -> None:
        self.random = random.Random(seed)
        self.landing_zone = Repo(folder / "landing-zone.git")
        self.portal = Repo(folder / "portal.git")
        self.large = large
        self.owned = owned
        self.excludes_internal = False
        self.shares = False
        self._number = 0
        self._past: list[tuple[str, Files]] = []
        self._later: list[tuple[int, Kind]] = []
        self._wanted: list[tuple[bytes, bytes]] = []
        for path in (b"README.md", b"docs/index.md", b"config/app.yaml"):
            self.portal.files[path] = self.portal.blob(b"of the portal's own: " + path)
        self.portal.commit("Start")
        files = self.landing_zone.files
        for area in (b"", b"network/", b"security/", b"Runs/", b"internal/", b"shared/"):
            for name in (b"overview", b"cost", b"limits"):
                files[b"docs/%s%s.md" % (area, name)] = self._text()
        for area in (b"", b"01-org/", b"02-network/", b"02-network/modules/hub/"):
            for name in (b"main", b"variables"):
                files[b"terraform/%s%s.tf" % (area, name)] = self._terraform()
        files[b"docs/keep.md"] = self._text()
        files[b"terraform/notes.txt"] = self._text()
        files[b"README.md"] = self._text()
        files[b"pmo.yaml"] = self.landing_zone.blob(b"programme:\n  name: One\n")
        files[b"ENFORCEMENT_GATES.md"] = self.landing_zone.blob(GATES)
        files[b"RUNBOOKS.md"] = self.landing_zone.blob(b"# Runbooks\n\n## Restart\n\n    kubectl rollout restart\n")
        self._commit("Start")

    def steps(self, count: int | None = None, *, meddles: bool = True) -> Iterator[str]:
        """Take one step after the other and say what happened: mostly one commit, sometimes another one that follows
        from an earlier change. Without a count each kind happens once, and what follows from it."""
        changes, meddlings, step = self._shuffled(CHANGES), self._shuffled(MEDDLING) if meddles else [], 0
        yield "start"
        while step < count if count is not None else changes or meddlings or self._later:
            step += 1
            said = []
            if meddlings and (count is None or self.random.random() < 0.3):
                said.append(self._named(meddlings.pop()))
            due = [kind for at, kind in self._later if at <= step][:1]
            self._later = [item for item in self._later if item[1] not in due]
            if changes and (count is None or not due):
                due.append(changes.pop())
            said += [self._named(kind) for kind in due]
            if count is not None:
                changes = changes or self._shuffled(CHANGES)
                meddlings = meddlings or (self._shuffled(MEDDLING) if meddles else [])
            self._later = [(at or step + self.random.randint(1, 4), kind) for at, kind in self._later]
            yield "; ".join(said) or "nothing"

    def _shuffled(self, kinds: list[Kind]) -> list[Kind]:
        return self.random.sample(kinds, len(kinds))

    def _named(self, kind: Kind) -> str:
        return f"{kind.__name__} ({kind(self)})"

    # What the kinds below are made of.

    def later(self, kind: Kind) -> None:
        """What follows from a change, some commits after it."""
        self._later.append((0, kind))

    def _commit(self, message: str, *parents: str) -> None:
        self._past.append((self.landing_zone.commit(message, *parents), dict(self.landing_zone.files)))

    def commit(self, *paths: bytes) -> str:
        text = ", ".join(path.decode("utf-8", "backslashreplace")[:80] for path in paths)
        self._commit(f"Change {text}".replace("\0", ""))
        return text

    def fresh(self) -> bytes:
        self._number += 1
        return b"page-%d" % self._number

    def _text(self) -> Entry:
        self._number += 1
        words = " ".join(self.random.choices(["hub", "spoke", "budget", "folder", "key", "log"], k=20))
        return self.landing_zone.blob(f"# Page {self._number}\n\n{words}\n".encode())

    def _terraform(self) -> Entry:
        self._number += 1
        return self.landing_zone.blob(f'variable "v{self._number}" {{\n  type = string\n}}\n'.encode())

    def pick(self, prefix: bytes = b"docs/", suffix: bytes = b".md") -> bytes:
        """A regular file of the landing zone that no setting hides."""
        return self.random.choice(
            [
                path
                for path, entry in sorted(self.landing_zone.files.items())
                if path.startswith(prefix) and path.endswith(suffix) and entry.mode == REGULAR
                if path != b"docs/keep.md" and not path.startswith(b"docs/internal/") and len(path) < 200
            ]
        )

    def folder(self) -> bytes:
        """A folder below ``docs/``, with ``/`` at its end; one is made if there is none."""
        below = [path for path in sorted(self.landing_zone.files) if path.count(b"/") >= 2 and len(path) < 200]
        found = sorted({path[: path.index(b"/", 5) + 1] for path in below if path.startswith(b"docs/")})
        found = [path for path in found if path not in (b"docs/internal/", b"docs/shared/")]
        if not found:
            found = [b"docs/" + self.fresh() + b"/"]
            for name in (b"a.md", b"b.md"):
                self.landing_zone.files[found[0] + name] = self._text()
        return self.random.choice(found)

    def move(self, old: bytes, new: bytes) -> None:
        """Move a file or, with ``/`` at the end of both, a folder."""
        files = self.landing_zone.files
        for path in [path for path in files if path == old or (old.endswith(b"/") and path.startswith(old))]:
            self.put(new + path[len(old) :], files.pop(path))

    def put(self, path: bytes, entry: Entry) -> None:
        """Put a file at a path; what a tree cannot hold beside it goes."""
        files = self.landing_zone.files
        for other in [other for other in files if other.startswith(path + b"/") or path.startswith(other + b"/")]:
            del files[other]
        files[path] = entry

    def remove(self, path: bytes) -> None:
        self.landing_zone.files.pop(path, None)

    def edit_portal(self, said: str, changes: dict[bytes, Entry | None]) -> str:
        """A person's commit in the portal repository."""
        repository = self.portal.git
        files = self.portal.files = {}
        _flatten(repository, repository[repository.references[REF].target].tree, b"", files)
        for path, entry in changes.items():
            for other in [other for other in files if other.startswith(path + b"/") or path.startswith(other + b"/")]:
                del files[other]
            files.pop(path, None)
            if entry is not None:
                files[path] = entry
        self.portal.commit(f"By hand: {said}", author="Paula")
        return said

    def synced(self) -> bytes:
        """A place in the portal repository that the sync owns."""
        return self.random.choice(sorted(self.owned))


def _flatten(repository: Any, tree: Any, prefix: bytes, files: Files) -> None:
    for entry in tree:
        if entry.filemode == stat.S_IFDIR:
            _flatten(repository, repository[entry.id], prefix + entry.raw_name + b"/", files)
        else:
            files[prefix + entry.raw_name] = Entry(int(entry.filemode), str(entry.id))


# The landing zone.


@change
def document_edited(history: History) -> str:
    path = history.pick()
    history.put(path, history._text())
    return history.commit(path)


@change
def documents_that_settings_are_about_edited(history: History) -> str:
    paths = (b"docs/internal/%s.md" % history.fresh(), b"docs/shared/%s.md" % history.fresh(), b"docs/shared/cost.md")
    for path in paths:
        history.put(path, history._text())
    return history.commit(*paths)


@change
def terraform_edited(history: History) -> str:
    path = history.pick(b"terraform/", b".tf")
    history.put(path, history._terraform())
    return history.commit(path)


@change
def document_added(history: History) -> str:
    path = history.folder() + history.fresh() + b".md"
    history.put(path, history._text())
    return history.commit(path)


@change
def terraform_added(history: History) -> str:
    path = b"terraform/%s/modules/deep/er/main.tf" % history.fresh()
    history.put(path, history._terraform())
    return history.commit(path)


@change
def renamed(history: History) -> str:
    old, new = history.pick(), b"docs/" + history.fresh() + b".md"
    history.move(old, new)
    return history.commit(old, new)


@change
def renamed_and_edited(history: History) -> str:
    old, new = history.pick(b"terraform/", b".tf"), b"terraform/%s/main.tf" % history.fresh()
    history.move(old, new)
    history.put(new, history._terraform())
    return history.commit(old, new)


@change
def deleted(history: History) -> str:
    path = history.pick()
    history.remove(path)
    return history.commit(path)


@change
def folder_renamed(history: History) -> str:
    old = history.folder()
    new = b"docs/%s/" % history.fresh()
    history.move(old, new)
    return history.commit(old, new)


@change
def folder_deleted(history: History) -> str:
    old = history.folder()
    for path in [path for path in history.landing_zone.files if path.startswith(old)]:
        history.remove(path)
    return history.commit(old)


@change
def file_becomes_folder(history: History) -> str:
    path = history.pick()
    history.put(path + b"/inside.md", history._text())
    history.later(folder_becomes_file)
    return history.commit(path)


@change
def folder_becomes_file(history: History) -> str:
    path = history.folder().rstrip(b"/")
    history.put(path, history._text())
    return history.commit(path)


@change
def case_renamed(history: History) -> str:
    old = history.pick()
    head, _, name = old.rpartition(b"/")
    new = head + b"/" + name.swapcase()
    history.move(old, new)
    return history.commit(old, new)


@change
def folder_case_renamed(history: History) -> str:
    old = history.folder()
    new = b"docs/" + old[5:].swapcase()
    history.move(old, new)
    return history.commit(old, new)


def _twin(history: History, path: bytes, other: bytes) -> str:
    history.put(path, history._text())
    history.put(other, history._text())

    def first_goes(history: History) -> str:
        history.remove(min(path, other))
        return history.commit(min(path, other))

    history.later(first_goes)
    return history.commit(path, other)


@change
def case_collision(history: History) -> str:
    name = history.fresh()
    return _twin(history, b"docs/%s.md" % name, b"docs/%s.MD" % name.upper())


@change
def case_collision_of_file_and_folder(history: History) -> str:
    name = history.fresh()
    return _twin(history, b"docs/%s" % name, b"docs/%s/inside.md" % name.upper())


@change
def unicode_twins(history: History) -> str:
    name = history.fresh()
    return _twin(history, b"docs/caf\xc3\xa9-%s.md" % name, b"docs/cafe\xcc\x81-%s.md" % name)


@change
def rules_collide(history: History) -> str:
    name = history.fresh()
    return _twin(history, b"docs/terraform/%s.tf" % name, b"terraform/%s.tf" % name)


@change
def symbolic_link(history: History) -> str:
    path = history.pick()
    history.put(path, history.landing_zone.blob(b"../../etc/passwd", SYMLINK))

    def link_becomes_file(history: History) -> str:
        history.put(path, history._text())
        return history.commit(path)

    history.later(link_becomes_file)
    return history.commit(path)


@change
def submodule(history: History) -> str:
    path = b"docs/vendor-" + history.fresh()
    history.put(path, Entry(GITLINK, history._past[0][0]))

    def submodule_becomes_folder(history: History) -> str:
        history.put(path + b"/inside.md", history._text())
        return history.commit(path)

    history.later(submodule_becomes_folder)
    return history.commit(path)


@change
def lfs_pointer(history: History) -> str:
    path = history.pick()
    history.put(path, history.landing_zone.blob(LFS))

    def pointer_becomes_content(history: History) -> str:
        history.put(path, history._text())
        return history.commit(path)

    history.later(pointer_becomes_content)
    return history.commit(path)


@change
def merged(history: History) -> str:
    base, files = history._past[-min(len(history._past), 4)]
    here, current = history._past[-1][0], history.landing_zone.files
    path, other = b"docs/%s.md" % history.fresh(), b"terraform/%s.tf" % history.fresh()
    side, both = history._text(), history._terraform()
    history.landing_zone.files = {**files, path: side}
    branch = history.landing_zone.commit("On a branch", base, author="Bilal")
    history.landing_zone.files = current
    history.put(path, side)
    history.put(other, both)
    history._commit(f"Merge branch\n\n{path.decode()}", here, branch)
    return f"{path.decode()} from a branch, {other.decode()} in the merge itself"


@change
def force_pushed(history: History) -> str:
    count = min(len(history._past) - 1, history.random.randint(2, 5))
    del history._past[len(history._past) - count :]
    base, files = history._past[-1]
    history.landing_zone.files = dict(files)
    path = history.pick()
    history.put(path, history._text())
    history._commit("Another history", base)
    return f"{count} commits are no more; {path.decode('utf-8', 'backslashreplace')}"


@change
def broken_terraform(history: History) -> str:
    path = history.pick(b"terraform/", b".tf")
    history.put(path, history.landing_zone.blob(b'variable "ok" {}\nresource "x" "y" {\n  a = = \n' + history.fresh()))
    return history.commit(path)


def _pmo(history: History, data: bytes | None) -> str:
    if data is None:
        history.remove(b"pmo.yaml")
    else:
        history.put(b"pmo.yaml", history.landing_zone.blob(data))
    return history.commit(b"pmo.yaml")


@change
def invalid_yaml(history: History) -> str:
    history.later(valid_yaml)
    return _pmo(history, b"programme:\n  name: [unclosed %s\n" % history.fresh())


@change
def empty_yaml(history: History) -> str:
    return _pmo(history, b"")


@change
def valid_yaml(history: History) -> str:
    return _pmo(history, b"programme:\n  name: %s\n" % history.fresh())


@change
def no_yaml(history: History) -> str:
    history.later(valid_yaml)
    return _pmo(history, None)


@change
def name_not_utf8(history: History) -> str:
    path = b"docs/caf\xe9-%s.md" % history.fresh()
    history.put(path, history._text())
    return history.commit(path)


@change
def crlf(history: History) -> str:
    path = history.pick()
    history.put(path, history.landing_zone.blob(b"\xef\xbb\xbf# With\r\n\r\ncarriage returns %s\r\n" % history.fresh()))
    return history.commit(path)


@change
def made_executable(history: History) -> str:
    path = history.pick()
    history.put(path, Entry(EXECUTABLE, history.landing_zone.files[path].oid))

    def made_regular(history: History) -> str:
        if path in history.landing_zone.files:
            history.put(path, Entry(REGULAR, history.landing_zone.files[path].oid))
        return history.commit(path)

    history.later(made_regular)
    return history.commit(path)


@change
def large_file(history: History) -> str:
    path = b"docs/large-%s.bin" % history.fresh()
    history.put(path, history.landing_zone.blob(path.ljust(history.large, b"\0")))

    def large_file_shrinks(history: History) -> str:
        history.put(path, history.landing_zone.blob(path))
        return history.commit(path)

    history.later(large_file_shrinks)
    return history.commit(path)


@change
def secret_comes(history: History) -> str:
    path = history.pick()
    before = history.landing_zone.files[path]
    history.put(path, history.landing_zone.blob(b"# Key\n\n" + SECRET + history.fresh()))

    def secret_goes(history: History) -> str:
        history.put(path, before)
        return history.commit(path)

    history.later(secret_goes)
    return history.commit(path)


@change
def unsafe_paths(history: History) -> str:
    name = history.fresh()
    paths = [
        template.replace(b"%", name)
        for template in (
            b"docs/%/.git/config",
            b"docs/%/.GIT/hooks/post-checkout",
            b"docs/%/git~1/config",
            b"docs/%/dot./a.md",
            b"docs/%/space /a.md",
            b"docs/%/a.md.",
            b"docs/%/back\\slash.md",
            b"docs/%/../../../a.md",
        )
    ]
    for path in paths:
        history.put(path, history._text())
    return history.commit(*paths)


@change
def path_too_long(history: History) -> str:
    path = b"docs/%s/%s.md" % (history.fresh(), b"/".join([b"long" * 30] * 9))
    history.put(path, history._text())
    return history.commit(path)


@change
def outside_the_mapping(history: History) -> str:
    paths = (b"README.md", b"terraform/%s.txt" % history.fresh(), b"src/docs/%s.md" % history.fresh())
    for path in paths:
        history.put(path, history._text())
    return history.commit(*paths)


@change
def emptied(history: History) -> str:
    path = history.pick()
    history.put(path, history.landing_zone.blob(b""))
    return history.commit(path)


@change
def reverted(history: History) -> str:
    history.landing_zone.files = dict(history._past[-min(len(history._past), 3)][1])
    return history.commit(b"the last two commits")


@change
def nothing_changed(history: History) -> str:
    return history.commit()


@change
def contents_swapped(history: History) -> str:
    files = history.landing_zone.files
    one, other = history.pick(), history.pick(b"terraform/", b".tf")
    files[one], files[other] = files[other], files[one]
    return history.commit(one, other)


@change
def copied(history: History) -> str:
    old, new = history.pick(), b"docs/%s/copy.md" % history.fresh()
    history.put(new, history.landing_zone.files[old])
    return history.commit(old, new)


@change
def leaves_the_mapping(history: History) -> str:
    old, new = history.folder(), b"attic/%s/" % history.fresh()
    history.move(old, new)

    def returns_to_the_mapping(history: History) -> str:
        history.move(new, old)
        return history.commit(new, old)

    history.later(returns_to_the_mapping)
    return history.commit(old, new)


# The portal repository, and the settings.


def _in_the_way(history: History, below: bytes, entry: Entry, content: Entry | None = None) -> str:
    """A person's file where a file of the landing zone will want to be."""
    name = history.fresh()
    place = PLACE + name + b".md"

    def wanted(history: History) -> str:
        path = b"docs/" + name + b".md"
        history.put(path, content or history._text())

        def goes_from_the_portal(history: History) -> str:
            return history.edit_portal(f"{place.decode()} removed", {place + below: None, place.swapcase(): None})

        history.later(goes_from_the_portal)
        return history.commit(path)

    history.later(wanted)
    return history.edit_portal((place + below).decode(), {place + below: entry})


@meddling
def own_file_elsewhere(history: History) -> str:
    paths = (b"docs/%s.md" % history.fresh(), b"docs/lz-reference/caf\xe9-%s" % history.fresh())
    return history.edit_portal(str(paths), {path: history.portal.blob(b"by hand\r\n" + path) for path in paths})


@meddling
def own_file_at_a_place_that_is_wanted_later(history: History) -> str:
    return _in_the_way(history, b"", history.portal.blob(b"by hand"))


@meddling
def own_folder_at_a_place_that_is_wanted_later(history: History) -> str:
    return _in_the_way(history, b"/inside.md", history.portal.blob(b"by hand"))


@meddling
def own_link_at_a_place_that_is_wanted_later(history: History) -> str:
    return _in_the_way(history, b"", history.portal.blob(b"../index.md", SYMLINK))


@meddling
def own_file_that_equals_the_one_wanted_later(history: History) -> str:
    data = b"# The same\n\n" + history.fresh()
    return _in_the_way(history, b"", history.portal.blob(data), history.landing_zone.blob(data))


@meddling
def own_file_in_another_case_of_a_place_that_is_wanted_later(history: History) -> str:
    name = history.fresh()

    def wanted(history: History) -> str:
        history.put(b"docs/%s.md" % name, history._text())
        return history.commit(b"docs/%s.md" % name)

    history.later(wanted)
    place = PLACE + name.upper() + b".md"
    return history.edit_portal(place.decode(), {place: history.portal.blob(b"by hand")})


@meddling
def own_file_in_another_case_of_a_synced_one(history: History) -> str:
    head, _, name = history.synced().rpartition(b"/")
    place = head + b"/" + name.swapcase()
    if place in history.owned:
        return "not possible"
    return history.edit_portal(str(place), {place: history.portal.blob(b"by hand")})


@meddling
def synced_file_edited(history: History) -> str:
    place = history.synced()
    return history.edit_portal(str(place), {place: history.portal.blob(b"by hand " + history.fresh())})


@meddling
def synced_files_removed(history: History) -> str:
    places = {history.synced(), history.synced()}
    return history.edit_portal(str(places), dict.fromkeys(places))


@meddling
def synced_file_made_executable(history: History) -> str:
    place = history.synced()
    changed: dict[bytes, Entry | None] = {}
    history.edit_portal("look", {})
    if place in history.portal.files:
        changed[place] = Entry(EXECUTABLE, history.portal.files[place].oid)
    return history.edit_portal(str(place), changed)


@meddling
def synced_file_becomes_own_folder(history: History) -> str:
    place = history.synced()
    return history.edit_portal(str(place), {place + b"/inside.md": history.portal.blob(b"by hand")})


@meddling
def synced_folder_becomes_own_file(history: History) -> str:
    place = PLACE + history.folder()[5:].rstrip(b"/")
    return history.edit_portal(str(place), {place: history.portal.blob(b"by hand")})


@meddling
def exclude_is_set_or_unset(history: History) -> str:
    history.excludes_internal = not history.excludes_internal
    return str(history.excludes_internal)


@meddling
def second_destination_is_set_or_unset(history: History) -> str:
    history.shares = not history.shares
    return str(history.shares)
