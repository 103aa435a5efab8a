"""Repositories of a given size for the git benchmark: realistic files in folders of at most sixty, in one pack."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pygit2

from demo.repositories import BRANCH, commit_changes

_FILES_A_FOLDER = 60
_START = datetime(2026, 1, 5, 9, tzinfo=UTC)
_WORDS = re.findall(
    r"\w+",
    "the hub network routes traffic between spokes and on premises through a firewall every project is billed to a "
    "cost centre and labelled by its team logs are kept for one year in a bucket that nobody can delete keys rotate "
    "each quarter reviews happen before a change reaches production",
)


@dataclass
class Growing:
    """A landing-zone repository to which somebody pushes."""

    path: Path
    documents: list[str]
    terraform: list[str]
    commits: int = 0

    def push_change(self, number: int) -> dict[str, bytes | None]:
        """Commit a change of three files: a document edited, a terraform file edited, and a document added or, the
        next time, removed. ``number`` counts from 0."""
        extra = f"docs/area-000/extra-{number // 2}.md"
        changes: dict[str, bytes | None] = {
            self.documents[(number * 37) % len(self.documents)]: _document(random.Random(f"edit {number}")),
            self.terraform[(number * 53) % len(self.terraform)]: _terraform(random.Random(f"edit {number}")),
            extra: _document(random.Random(f"extra {number}")) if number % 2 == 0 else None,
        }
        self.commits += 1
        at = _START + timedelta(days=30, minutes=self.commits)
        commit_changes(self.path, changes, message=f"Change {number}", at=at)
        return changes


def make_landing_zone(path: Path, files: int) -> Growing:
    """A bare repository with so many files: documents and terraform in equal parts, and four at the top."""
    names = [
        (f"docs/area-{number // _FILES_A_FOLDER:03}/page-{number % _FILES_A_FOLDER:02}.md", _document)
        if kind
        else (f"terraform/stack-{number // _FILES_A_FOLDER:03}/part-{number % _FILES_A_FOLDER:02}.tf", _terraform)
        for number in range(files // 2)
        for kind in (True, False)
    ]
    everything = {name: make(random.Random(name)) for name, make in names}
    everything |= {
        "README.md": b"# Landing zone\n",
        "pmo.yaml": b"programme:\n  name: Landing zone\n  owner: platform\n",
        "ENFORCEMENT_GATES.md": b"# Gates\n\n| Gate | Phase | Severity |\n|---|---|---|\n| GATE-01 | build | high |\n",
        "RUNBOOKS.md": b"# Runbooks\n\n## Restart\n\n```sh\nkubectl rollout restart deployment/web\n```\n",
    }
    _import(path, everything)
    names_only = [name for name, _ in names]
    return Growing(
        path,
        [name for name in names_only if name.endswith(".md")],
        [name for name in names_only if name.endswith(".tf")],
    )


def make_portal(path: Path) -> Path:
    """A bare repository with a few files of the portal's own."""
    _import(path, {f"src/pages/page-{number:02}.ts": b"export {}\n" * number for number in range(1, 41)})
    return path


def head(path: Path) -> str:
    """The commit that the branch is at."""
    return str(pygit2.Repository(str(path)).references[f"refs/heads/{BRANCH}"].target)


def _import(path: Path, files: dict[str, bytes]) -> None:
    subprocess.run(["git", "init", "--quiet", "--bare", f"--initial-branch={BRANCH}", str(path)], check=True)
    stream = b"".join(_stream(files))
    subprocess.run(["git", f"--git-dir={path}", "fast-import", "--quiet"], input=stream, check=True)
    subprocess.run(["git", f"--git-dir={path}", "repack", "-a", "-d", "-q"], check=True)


def _stream(files: dict[str, bytes]) -> Iterator[bytes]:
    who = f"Alice <alice@example.com> {int(_START.timestamp())} +0000".encode()
    yield b"commit refs/heads/%s\ncommitter %s\ndata 6\nImport\n" % (BRANCH.encode(), who)
    for name, data in files.items():
        yield b"M 100644 inline %s\ndata %d\n%s\n" % (name.encode(), len(data), data)


def _document(rng: random.Random) -> bytes:
    sections = [
        f"## {rng.choice(_WORDS).title()} {number}\n\n{' '.join(rng.choices(_WORDS, k=rng.randint(40, 120)))}.\n"
        for number in range(1, rng.randint(3, 6))
    ]
    return "\n".join([f"# {' '.join(rng.choices(_WORDS, k=3)).title()}\n", *sections]).encode()


def _terraform(rng: random.Random) -> bytes:
    blocks = [
        f'resource "google_storage_bucket" "b{number}" {{\n  name     = "lz-{rng.getrandbits(40):x}"\n'
        f'  location = "EU"\n  labels = {{\n    team = "{rng.choice(_WORDS)}"\n  }}\n'
        f"  versioning {{\n    enabled = true\n  }}\n}}\n"
        for number in range(rng.randint(2, 6))
    ]
    return "\n".join([f'variable "region_{rng.getrandbits(16)}" {{\n  type = string\n}}\n', *blocks]).encode()
