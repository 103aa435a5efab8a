"""The production processes that an installation is made of, each of which can be started, killed and started again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import yaml

from demo.landing_zone import HOST, answers, free_port
from demo.processes import Processes

#: The configuration of Dagster that the project ships.
DAGSTER_YAML = Path(__file__).resolve().parent.parent / "dagster.yaml"
#: The name of the code location in Dagster, and of the package.
LOCATION = "lz_sync_dagster"
PORTAL, CODE, DAEMON, WEBSERVER = "portal", "dagster-code", "dagster-daemon", "dagster-webserver"
#: What a process gets to come up, in seconds.
START_SECONDS = 60.0

_BIN = Path(sys.executable).parent


def command(name: str, *arguments: str) -> list[str]:
    """The command line of a script that is installed beside this Python."""
    return [str(_BIN / name), *arguments]


@dataclass
class Installation:
    """A portal, and a Dagster with a code server for all of its processes. Addresses stay over a restart.

    Args:
        processes: where they run, with their environment.
        home: DAGSTER_HOME; made if it is not there.
        portal_port: the portal's.
        dagster_yaml: the content of Dagster's configuration.
        seconds: what a process gets to come up.
    """

    processes: Processes
    home: Path
    portal_port: int = field(default_factory=free_port)
    dagster_yaml: str = field(default_factory=lambda: DAGSTER_YAML.read_text(encoding="utf-8"))
    seconds: float = START_SECONDS
    code_port: int = field(default_factory=free_port)
    webserver_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "dagster.yaml").write_text(self.dagster_yaml, encoding="utf-8")
        location = {"host": HOST, "port": self.code_port, "location_name": LOCATION}
        workspace = yaml.safe_dump({"load_from": [{"grpc_server": location}]})
        self._workspace.write_text(workspace, encoding="utf-8")

    @property
    def portal_url(self) -> str:
        """Where the portal listens."""
        return f"http://{HOST}:{self.portal_port}"

    @property
    def webserver_url(self) -> str:
        """Where Dagster's pages are."""
        return f"http://{HOST}:{self.webserver_port}"

    def start(self, name: str) -> None:
        """Start one of the processes; see the ``wait_for_…`` for when it is there."""
        address = ["--host", HOST, "--port", str(self.portal_port)]
        module = ["-m", f"{LOCATION}.definitions", "--location-name", LOCATION]
        workspace = ["-w", str(self._workspace)]
        commands = {
            PORTAL: command("lz-sync", "portal", *address),
            CODE: command("dagster", "api", "grpc", *module, "-h", HOST, "-p", str(self.code_port)),
            DAEMON: command("dagster-daemon", "run", *workspace),
            WEBSERVER: command("dagster-webserver", *workspace, "-h", HOST, "-p", str(self.webserver_port)),
        }
        self.processes.start(name, commands[name], extra={"DAGSTER_HOME": str(self.home)})

    def start_and_wait(self, names: Sequence[str], *, stopped: Callable[[], bool] = lambda: False) -> None:
        """Start processes side by side, and wait until each answers, or until ``stopped`` says so.

        Raises:
            SyncError: one of the processes ended, or does not answer in time.
        """
        for name in names:
            self.start(name)
        for name in names:
            self.wait_for(name, stopped=stopped)

    def wait_for(self, name: str, *, stopped: Callable[[], bool] = lambda: False) -> None:
        """Wait until a process answers. The daemon has no address: it is not waited for.

        Raises:
            SyncError: one of the processes ended, or this one does not answer in time.
        """
        probes: dict[str, Callable[[], bool]] = {
            PORTAL: self.portal_is_ready,
            CODE: partial(answers, self.code_port),
            WEBSERVER: partial(answers, self.webserver_port),
        }
        if name in probes:
            self.processes.wait_for(lambda: probes[name]() or stopped(), what=name, seconds=self.seconds)

    def portal_is_ready(self) -> bool:
        """Whether the portal takes deliveries."""
        try:
            return httpx.get(f"{self.portal_url}/readyz", timeout=2).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    @property
    def _workspace(self) -> Path:
        return self.home / "workspace.yaml"
