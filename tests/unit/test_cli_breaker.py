"""``lz-sync breaker``: what vanished, and the confirmation of a person."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from lz_sync_dagster.sync.store import Store, audit
from tests.integration.test_portal_breakers import PART, existing, lose, read_in_turn
from tests.unit import test_cli
from tests.unit.test_cli import Run

pytestmark = pytest.mark.usefixtures("kept_logs")
run = test_cli.run


@pytest.fixture
def lost(sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Store:
    """A store in which six of ten assets vanished; the command line works on it."""
    monkeypatch.setenv("LZ_SYNC_STORE__URL", f"sqlite:///{tmp_path / 'store.db'}")
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    lose(sqlite_store)
    return sqlite_store


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(store: Store) -> list[tuple[str, str]]:
    with store.read() as connection:
        return [(line.actor, line.action) for line in audit.recent(connection, limit=10)]


def fingerprint(run: Run) -> str:
    [item] = json.loads(run("breaker", "list", "--json").stdout)["items"]
    return str(item["fingerprint"])


def test_what_waits_is_listed_and_shown(run: Run, lost: Store) -> None:
    said = run("breaker", "list")
    assert said.returncode == 0
    assert said.stdout.splitlines()[0].startswith(f"{' '.join(PART)}: 6 of 10 vanished, since 2026-03-01T12:00:00")
    [item] = json.loads(run("breaker", "list", "--json").stdout)["items"]
    assert (item["known"], item["lost"], len(item["sample"])) == (10, 6, 6)
    assert f"fingerprint {item['fingerprint']}" in said.stdout.splitlines()[0]
    shown = run("breaker", "show", *PART)
    assert shown.stderr.splitlines()[-1] == f"fingerprint {item['fingerprint']}"
    assert shown.stdout.splitlines() == [f"//b/{number:02}" for number in range(4, 10)]
    missing = run("breaker", "show", "folders/1", *PART[1:])
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "no deletions wait for a confirmation" in missing.stderr


def test_of_an_empty_store_nothing_waits(run: Run, tmp_path: Path) -> None:
    said = run("breaker", "list", LZ_SYNC_STORE__URL=f"sqlite:///{tmp_path / 'empty.db'}")
    assert said.stdout == "nothing waits for a confirmation\n"


def test_without_a_terminal_the_fingerprint_is_named(run: Run, lost: Store) -> None:
    assert run("breaker", "confirm", *PART).returncode == 2
    assert run("breaker", "confirm", *PART, "--yes").returncode == 2
    assert existing(lost) == 10
    shown = fingerprint(run)
    read_in_turn(lost, range(10), range(6, 10), range(6, 10), first=4)
    changed = run("breaker", "confirm", *PART, "--yes", "--fingerprint", shown)
    assert changed.returncode == 1
    assert "has changed since you looked: now 6 of 10" in changed.stderr
    assert lines(lost) == [("cli:ada", "refused")]
    assert existing(lost) == 10
    done = run("breaker", "confirm", *PART, "--yes", "--fingerprint", fingerprint(run))
    assert (done.returncode, done.stdout) == (0, "6 deleted\n")
    assert existing(lost) == 4
    assert lines(lost)[0] == ("cli:ada", "confirm_deletions")


@pytest.mark.parametrize(("answer", "left", "code"), [("n\n", 10, 1), ("y\n", 4, 0)])
def test_on_a_terminal_it_shows_and_asks(
    run: Run,
    lost: Store,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    left: int,
    code: int,
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    said = run("breaker", "confirm", *PART)
    assert said.returncode == code
    assert "6 of 10" in said.stdout
    assert "//b/04" in said.stdout
    assert existing(lost) == left


def test_nothing_is_confirmed_twice(run: Run, lost: Store) -> None:
    shown = fingerprint(run)
    run("breaker", "confirm", *PART, "--yes", "--fingerprint", shown)
    again = run("breaker", "confirm", *PART, "--yes", "--fingerprint", shown)
    assert again.returncode == 1
    assert "no deletions wait" in again.stderr
    assert lines(lost) == [("cli:ada", "refused"), ("cli:ada", "confirm_deletions")]
