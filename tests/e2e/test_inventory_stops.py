"""A sync of the inventory that is told to end, in every phase: it ends within seconds, frees its layer, leaves no
process behind, and the next sync does the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from demo.asset_server import AssetServer, start_asset_server
from demo.faults import Faults
from demo.organization import ORGANIZATION, Organization
from demo.storage_server import StorageServer, start_storage_server
from lz_sync_dagster.config import Settings, load_settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.inventory.service import sync_inventory
from lz_sync_dagster.sync.models import Status
from lz_sync_dagster.sync.progress import silent
from lz_sync_dagster.sync.runs import run_to_end
from lz_sync_dagster.sync.store import Store, open_store
from lz_sync_dagster.sync.store.schema import layer_runs, layer_status, quota_usage, snapshots
from lz_sync_dagster.sync.timing import utcnow
from tests.conftest import until

ROOT = Path(__file__).parents[2]
BUCKET_NAME = "lz-exports"
ENDED = 143

#: ``lz-sync sync inventory``, decoding in another process from the first asset on; it says when it waits for that one.
PROGRAM = """
import faulthandler
import pathlib
import signal
import time
from lz_sync_dagster.cli import main
from lz_sync_dagster.sync.inventory.decode_pool import DecodePool
from lz_sync_dagster.sync.inventory.decoder import Decoder

if __name__ == "__mp_main__":
    decode = Decoder.decode
    def decodes_until_told(self, *batch):
        while not pathlib.Path("told").exists():
            time.sleep(0.05)
        return decode(self, *batch)
    Decoder.decode = decodes_until_told
if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    if {decodes}:
        DecodePool.__init__.__kwdefaults__.update(processes=1, worth_a_pool=0)
        result = DecodePool._result
        def waits(self, future, batch):
            pathlib.Path("waits").touch()
            return result(self, future, batch)
        DecodePool._result = waits
    main()
"""


def is_gone(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process has ended, with all of its children."""
    if process.poll() is None:
        return False
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return True
    return False


class Phase:
    """A sync in a process of its own, in a world that keeps it in one phase."""

    def __init__(self, name: str, folder: Path, template: Path, organization: Organization) -> None:
        self.name, self.folder = name, folder
        self.faults = Faults()
        self.storage: StorageServer = start_storage_server([BUCKET_NAME])
        self.assets: AssetServer = start_asset_server(organization, self.faults, storage=self.storage.storage)
        folder.mkdir()
        (folder / "store.db").write_bytes(template.read_bytes())
        (folder / "program.py").write_text(PROGRAM.format(decodes=name == "decoding"))
        if name == "reading":
            self.faults.on("asset_page_timeout")
        if name == "export":
            self.faults.on("export_hangs", calls=2)
        self.settings = self._settings(quota=1 if name == "quota" else 1_000)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("LZ_SYNC_", "PYTEST_"))}
        log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "program.py", "sync", "inventory", "--config", "config.yaml"],
            cwd=folder,
            env=environment | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
        log.close()

    def _settings(self, *, quota: int, bulk: bool | None = None) -> Settings:
        enabled = self.name == "export" if bulk is None else bulk
        config = {
            "data_dir": str(self.folder),
            "google_cloud": {"asset_endpoint": self.assets.endpoint, "storage_endpoint": self.storage.endpoint},
            "sync_layers": {
                "api_sync": {
                    "scopes": [ORGANIZATION],
                    "endpoints": ["/vpcs", "/storage"],
                    "quotas": {"list_assets": quota},
                    "bulk": {"enabled": enabled, "destination": f"gs://{BUCKET_NAME}/cai", "from_assets": 0},
                }
            },
        }
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        return load_settings(path, environ={})

    def store(self) -> Store:
        return open_store(self.settings.store_url, migrate=False)

    def is_reached(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError((self.folder / "log").read_text())
        if self.name == "export":
            return any(item.name.endswith("running.json") for item in self.storage.storage.objects(BUCKET_NAME))
        if self.name == "decoding":
            return (self.folder / "waits").exists()
        return bool(self.rows(snapshots if self.name == "quota" else quota_usage))

    def rows(self, table: sa.Table) -> list[Any]:
        with self.store() as store, store.read() as connection:
            return list(connection.execute(sa.select(table).order_by(*table.primary_key)))

    def sync_again(self) -> Status:
        self.faults.off("asset_page_timeout")
        settings = self._settings(quota=1_000, bulk=False)
        with self.store() as store:
            return run_to_end(
                store,
                LayerId.API,
                lambda run: sync_inventory(settings, store, run, clock=utcnow, progress=silent),
                triggered_by="test",
                clock=utcnow,
                sleep=lambda _: None,
            ).status

    def says_where_it_is(self) -> str:
        """What it has logged, with the stacks of its threads."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGUSR1)
            until(lambda: "most recent call first" in (self.folder / "log").read_text(), what="the stacks")
        return (self.folder / "log").read_text()

    def stop(self) -> None:
        if not is_gone(self.process):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.assets.stop()
        self.storage.stop()


PHASES = ("reading", "quota", "export", "decoding")


@pytest.fixture(scope="module")
def phases(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Callable[[str], Phase]]:
    """All of them start at once: a process takes seconds to begin."""
    folder, organization = tmp_path_factory.mktemp("stops"), Organization(200)
    started = {name: Phase(name, folder / name, sqlite_template, organization) for name in PHASES}
    yield started.__getitem__
    for phase in started.values():
        phase.stop()


@pytest.mark.parametrize("name", PHASES)
def test_it_ends_in_order(phases: Callable[[str], Phase], name: str) -> None:
    phase = phases(name)
    until(phase.is_reached, seconds=60, what=f"the phase {name}")
    phase.process.terminate()
    (phase.folder / "told").touch()
    try:
        until(lambda: is_gone(phase.process), seconds=30, what="the end of the process and its children")
    except AssertionError as error:
        raise AssertionError(phase.says_where_it_is()) from error
    assert phase.process.returncode == ENDED
    [health] = phase.rows(layer_status)
    assert (health.status, health.lease_holder) == (Status.FAILED.value, None)
    [run] = phase.rows(layer_runs)
    assert run.finished_at is not None
    assert "was interrupted" in run.errors[0]
    assert phase.sync_again() is Status.SUCCESS


KILLED = """
import os, signal
from lz_sync_dagster.sync.compliance.controls import load_controls
from lz_sync_dagster.sync.inventory.decode_pool import DecodePool

if __name__ == "__main__":
    pool = DecodePool(load_controls().evaluate, processes=1, worth_a_pool=0)
    pool.decode((("organizations/1", "a/B", "RESOURCE"), 1, []))()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_is_killed_leaves_none_behind_that_decodes_for_it(tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text(KILLED)
    process = subprocess.Popen(
        [sys.executable, "killed.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.wait(60) == -signal.SIGKILL
    try:
        until(lambda: is_gone(process), seconds=10, what="the end of the process that decodes")
    finally:
        if not is_gone(process):
            os.killpg(process.pid, signal.SIGKILL)
