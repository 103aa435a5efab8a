"""The README's two commands, as a newcomer runs them: by make, on a data directory of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, expect

from lz_sync_dagster.layers import LAYERS
from lz_sync_dagster.sync.store import Store, open_store
from lz_sync_dagster.sync.store.schema import event_log, portal_commits, resource_versions, resources
from tests.conftest import until

ROOT = Path(__file__).resolve().parents[2]
#: What the README's first block says.
COMMANDS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)[0].split("\n")[:-1]


def make(target: str, arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LZ_SYNC_")}
    return subprocess.run(
        ["make", "--silent", target, f"ARGS={arguments}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def rows(folder: Path) -> dict[str, int]:
    """What a sync that changes nothing must not add to."""
    counted: dict[str, int] = {}
    with open_store(f"sqlite:///{folder / 'lz_sync' / 'store.db'}", migrate=False) as store, store.read() as connection:
        for table in (event_log, resource_versions, resources, portal_commits):
            counted[table.name] = connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
    return counted


def portal_head(folder: Path) -> str:
    repository = folder / "repositories" / "gcp-landing-zone-portal.git"
    return subprocess.check_output(["git", "-C", str(repository), "rev-parse", "main"], text=True).strip()


def test_the_readme_names_the_two_commands() -> None:
    assert COMMANDS == ["make demo-once", "make demo"]


@pytest.mark.timeout(400)
def test_demo_once_syncs_five_layers_and_a_second_time_nothing_changes(tmp_path: Path) -> None:
    done = make("demo-once", f"--json --assets 3000 --data-dir {tmp_path}")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert [layer["layer"] for layer in document["layers"]] == [layer.id.value for layer in LAYERS]
    assert {layer["status"] for layer in document["layers"]} == {"success"}
    assert all(layer["items_synced"] > 0 for layer in document["layers"])
    assert document["state"]["counts"]["resources"] == 3000
    assert document["coverage"]["status"] == "complete"
    assert document["durations"].keys() == {layer.id.value for layer in LAYERS}
    before, head = rows(tmp_path), portal_head(tmp_path)

    again = make("demo-once", f"--data-dir {tmp_path}")
    assert again.returncode == 0, again.stderr
    assert len(re.findall(r"│ success +│", again.stdout)) == len(LAYERS)
    assert len(re.findall(r"│ +0 │", again.stdout)) == len(LAYERS), "nothing changed in any layer"
    assert rows(tmp_path) == before
    assert portal_head(tmp_path) == head


@pytest.mark.timeout(400)
def test_a_layer_that_breaks_is_partial_names_the_role_and_deletes_nothing(tmp_path: Path) -> None:
    assert make("demo-once", f"--assets 500 --data-dir {tmp_path}").returncode == 0
    before = rows(tmp_path)
    broken = make("demo-once", f"--json --data-dir {tmp_path} --fault asset_denied")
    assert broken.returncode != 0
    document = json.loads(broken.stdout)
    (layer,) = [layer for layer in document["layers"] if layer["layer"] == "api"]
    assert layer["status"] == "partial"
    assert "roles/cloudasset.viewer" in layer["errors"][0]
    assert {gap["reason"] for gap in document["coverage"]["gaps"]} == {"permission_denied"}
    assert rows(tmp_path)["resources"] == before["resources"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_demo_once_that_is_stopped_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-m", "demo", "once", "--data-dir", str(tmp_path), "--assets", "500"]
    with (tmp_path / "output.log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    children = until(lambda: len(found := running(process)) >= 2 and found, seconds=60, what="portal and sync")
    process.send_signal(number)
    assert process.wait(15) != 0
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive


def running(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_a_wrong_option_is_one_line(tmp_path: Path) -> None:
    done = make("demo-once", f"--data-dir {tmp_path} --fault everything")
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "--fault everything: is not a fault; choose from asset_denied" in line


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    output = tmp_path / "output.log"
    with output.open("w") as log:
        process = subprocess.Popen(
            ["make", "--silent", "demo", f"ARGS=--data-dir {tmp_path / 'demo'} --assets 500"],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    yield process, output
    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()


def store_of(folder: Path) -> Store:
    return open_store(f"sqlite:///{folder / 'demo' / 'lz_sync' / 'store.db'}", migrate=False)


@pytest.mark.timeout(300)
def test_demo_shows_five_layers_and_live_changes_and_leaves_nothing_behind(
    demo: tuple[subprocess.Popen[str], Path], browser: Browser
) -> None:
    process, output = demo

    def said(pattern: str) -> re.Match[str] | None:
        assert process.poll() is None, output.read_text()
        return re.search(pattern, output.read_text())

    address = until(lambda: said(r"http://\S+/lz-sync"), seconds=60, what="the pages' address").group()
    page = browser.new_page()
    page.goto(address)
    for layer in LAYERS:
        expect(page.get_by_text(layer.title, exact=True)).to_be_visible(timeout=60_000)
    expect(page.get_by_text("Success", exact=True)).to_have_count(len(LAYERS), timeout=60_000)
    dagster = until(lambda: said(r"Dagster +(http://\S+)"), seconds=60, what="Dagster's address").group(1)
    assert httpx.get(f"{dagster}/server_info", timeout=30).status_code == 200

    until(lambda: said(r"create_vm: \S+/(vm-\w+)"), seconds=60, what="a new instance")
    created = re.findall(r"create_vm: \S+/(vm-\w+)", output.read_text())[-1]
    expect(page.get_by_text(created).first).to_be_visible(timeout=20_000)

    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) > 4
    process.send_signal(signal.SIGINT)
    for child in children[:1]:
        child.send_signal(signal.SIGINT)
    gone, alive = psutil.wait_procs(children, timeout=15)
    assert not alive, f"{len(gone)} ended, these did not: {alive}"
