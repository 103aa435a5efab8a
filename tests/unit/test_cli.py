"""``lz-sync`` as a user meets it: exit codes, what goes to stdout, and errors of one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lz_sync_dagster import __version__
from lz_sync_dagster.cli import main
from lz_sync_dagster.layers import LAYERS

pytestmark = pytest.mark.usefixtures("kept_logs")


@dataclass(frozen=True, slots=True)
class Done:
    """What a command said, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``lz-sync`` in an empty folder, without any setting of this process."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("LZ_SYNC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str, **settings: str) -> Done:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["lz-sync", *words])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        code = end.value.code or 0
        assert isinstance(code, int)
        return Done(code, said.out, said.err)

    return run


def test_a_wrong_key_is_one_line_on_stderr_and_exit_2(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sync_config.yaml").write_text("sync_layers:\n  git_sync:\n    frequency_minutes: 6\n")
    done = run("status")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: sync_config.yaml:3: sync_layers.git_sync.frequency_minutes: is not a known key")


def test_an_error_shows_no_secret(run: Run, tmp_path: Path) -> None:
    wrong = "sync_layers: {api_sync: {page_size: {password: hunter2}}, pubsub: {enabled: ghp_%s}}\n" % ("a" * 36)
    (tmp_path / "sync_config.yaml").write_text(wrong)
    done = run("status")
    assert done.returncode == 2
    assert "hunter2" not in done.stderr
    assert "ghp_" not in done.stderr
    done = run("status", LZ_SYNC_STORE__URL="mysql://user:hunter2@db/x?token=hunter2")
    assert "hunter2" not in done.stderr


def test_every_mistake_has_its_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sync_config.yaml").write_text("owner: me\nsync_layers: {api_sync: {page_size: 0}}\n")
    done = run("sync", "all")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2


def test_a_settings_file_that_is_not_there_is_exit_2(run: Run) -> None:
    done = run("status", "--config", "missing.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith("error: missing.yaml: cannot be read")


@pytest.mark.parametrize("words", [("sync", "everything"), ("synchronize",), ("portal", "--port", "99999")])
def test_an_unknown_word_is_a_usage_error(run: Run, words: tuple[str, ...], tmp_path: Path) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Usage: lz-sync" in done.stderr
    assert not list(tmp_path.iterdir()), "nothing was opened"


def test_an_unknown_layer_is_told_which_ones_there_are(run: Run) -> None:
    said = run("sync", "everything").stderr
    assert "everything" in said
    assert all(layer.command in said for layer in LAYERS)


def test_status_json_is_one_document_on_stdout(run: Run) -> None:
    done = run("status", "--json")
    assert done.returncode == 0
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert [layer["layer"] for layer in document["layers"]] == [layer.id for layer in LAYERS]
    assert {layer["status"] for layer in document["layers"]} == {"unknown"}
    assert {layer["coverage"]["status"] for layer in document["layers"]} == {"unknown"}


def test_the_stores_schema_is_told_and_migrated(run: Run) -> None:
    before = run("db", "status")
    assert before.returncode == 1
    assert before.stdout.startswith("at revision none, newest is ")
    assert before.stderr == "run 'lz-sync db migrate'\n"
    assert run("db", "migrate").returncode == 0
    after = run("db", "status")
    assert (after.returncode, after.stderr) == (0, "")


def test_a_sync_that_fails_says_so_once_and_exits_with_1(run: Run) -> None:
    done = run("sync", "inventory")
    assert done.returncode == 1
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if "scope" in line]
    assert line.startswith("API sync: sync_layers.api_sync.scopes: names no scope to read; list organizations/NUMBER")


def test_a_failed_sync_is_one_document_too(run: Run) -> None:
    done = run("sync", "inventory", "--json")
    assert done.returncode == 1
    (layer,) = json.loads(done.stdout)["layers"]
    assert (layer["layer"], layer["status"], len(layer["errors"])) == ("api", "failed", 1)


def test_a_disabled_layer_does_not_fail_a_sync(run: Run) -> None:
    done = run("sync", "inventory", "--json", LZ_SYNC_SYNC_LAYERS__API_SYNC__ENABLED="false")
    assert done.returncode == 0
    assert json.loads(done.stdout)["layers"][0]["status"] == "disabled"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://me:t0ps3cret@host/db", "has the unsupported backend 'mysql'"),
        ("nowhere", "is not a database URL"),
        ("postgresql://me:t0ps3cret@127.0.0.1:9/db", "cannot be opened"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_line_without_the_password(run: Run, url: str, said: str) -> None:
    done = run("status", LZ_SYNC_STORE__URL=url)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: store")
    assert said in line
    assert "t0ps3cret" not in line


def test_the_installed_command_says_its_version() -> None:
    command = [str(Path(sys.executable).parent / "lz-sync"), "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"lz-sync {__version__}\n"
