"""``python -m demo up`` and ``python -m demo once``: the project on a landing zone of its own.

Both start the production commands as processes and point them at the demo by configuration alone.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, NoReturn

import httpx
import typer

from demo.dagster_runs import launch_jobs
from demo.faults import FAULTS, parse_faults
from demo.installation import CODE, DAEMON, PORTAL, WEBSERVER, Installation, command
from demo.landing_zone import DemoLandingZone
from demo.processes import Processes
from lz_sync_dagster.config import ConfigError
from lz_sync_dagster.sync.errors import SyncError
from lz_sync_dagster.sync.timing import utcnow

app = typer.Typer(help="A landing zone to try lz-sync on.", no_args_is_help=True, add_completion=False)

#: Seconds between two changes that the simulator makes.
_PACE = 4.0

DataDir = Annotated[Path, typer.Option("--data-dir", help="Where the demo keeps everything.")]
Assets = Annotated[int | None, typer.Option("--assets", help="Size of the organization (default 2,000).")]
Fault = Annotated[
    list[str] | None,
    typer.Option(
        "--fault",
        metavar="NAME",
        help="What goes wrong, several times for several.\n\n"
        + "\n\n".join(f"{name}: {text}." for name, text in FAULTS.items()),
    ),
]


@app.command()
def once(
    data_dir: DataDir = Path(".demo"),
    assets: Assets = None,
    fault: Fault = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """One full sync of all five layers, and its result. Exits with 0 only if each layer succeeded."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)
    _say("making the landing zone")
    with (
        DemoLandingZone(data_dir, assets=assets, faults=parse_faults(fault or []), clock=utcnow) as zone,
        Processes(zone.folder / "logs", zone.environment) as processes,
    ):
        _installation(zone, processes).start_and_wait([PORTAL])
        if zone.is_new:
            zone.simulator.welcome()
            zone.simulator.script()
        _expect_accepted(zone.deliver_head())
        if zone.is_new and zone.has_trouble:
            _say("first sync, in which nothing goes wrong yet")
            processes.run(command("lz-sync", "sync", "git"), log="first-sync")
        for done in zone.make_trouble():
            _say(done)
        code = processes.run(command("lz-sync", "sync", "all", *(["--json"] if as_json else [])))
    raise typer.Exit(1 if code is None else code)


@app.command()
def up(
    data_dir: DataDir = Path(".demo"),
    assets: Assets = None,
    fault: Fault = None,
) -> None:
    """Start everything, sync once, print the addresses, and keep changing things until Ctrl-C."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    _say("making the landing zone")
    with (
        DemoLandingZone(data_dir, assets=assets, faults=parse_faults(fault or []), clock=utcnow) as zone,
        Processes(zone.folder / "logs", zone.environment) as processes,
    ):
        installation = _installation(zone, processes)
        installation.start_and_wait([PORTAL])
        _say(f"LZ Sync pages    {zone.portal_url}/lz-sync")
        if zone.is_new:
            zone.simulator.welcome()
        _expect_accepted(zone.deliver_head())
        processes.start("listener", command("lz-sync", "listen"))
        installation.start(CODE)
        _say("first full sync")
        if processes.run(command("lz-sync", "sync", "all"), stopped=stop.is_set) is not None:
            dagster = _start_dagster(installation, stop)
            _say(f"LZ Sync pages    {zone.portal_url}/lz-sync")
            _say(f"Dagster          {dagster}")
            _say(f"API              {zone.portal_url}/api/v1/openapi.json")
            _say(f"logs             {processes.logs}")
            _say("a change every few seconds; Ctrl-C ends everything")
            for done in zone.make_trouble():
                _say(done)
        while not stop.wait(_PACE):
            processes.check()
            change = zone.simulator.step()
            _say(f"{change.at:%H:%M:%S} {change.kind}: {change.target}")
        _say("stopping")
    _say("stopped")


def _installation(zone: DemoLandingZone, processes: Processes) -> Installation:
    return Installation(processes, zone.folder / "dagster", portal_port=zone.portal_port)


def _start_dagster(installation: Installation, stop: threading.Event) -> str:
    """Start Dagster's webserver and daemon, and one run of each layer that has them; returns the web address."""
    installation.wait_for(CODE, stopped=stop.is_set)
    installation.start_and_wait([WEBSERVER, DAEMON], stopped=stop.is_set)
    if not stop.is_set():
        launch_jobs(installation.webserver_url, ["git_job", "inventory_job", "analytics_job"])
    return installation.webserver_url


def _expect_accepted(status: int | None) -> None:
    if status is not None and status != httpx.codes.ACCEPTED:
        raise typer.BadParameter(f"the portal answered {status} to a signed delivery")


def _exit(number: int, _frame: object) -> NoReturn:
    """End by leaving every context, so that the processes end too."""
    sys.exit(128 + number)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        typer.echo(text, err=True)


if __name__ == "__main__":
    try:
        app()
    except ConfigError as error:
        sys.exit("\n".join(f"error: {line}" for line in error.lines))
    except SyncError as error:
        sys.exit(f"error: {error}")
