"""``lz-sync``: the command line. Thin: each command loads the settings, opens the store and calls the domain.

Imports are lazy, so that ``--help`` needs neither Dagster nor a database.
"""

from __future__ import annotations

import getpass
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from lz_sync_dagster import __version__

if TYPE_CHECKING:
    from lz_sync_dagster.config import Settings
    from lz_sync_dagster.sync.doctor import Report
    from lz_sync_dagster.sync.foreground import ForegroundResult
    from lz_sync_dagster.sync.models import SyncStatus
    from lz_sync_dagster.sync.progress import Progress
    from lz_sync_dagster.sync.store import Store

app = typer.Typer(
    name="lz-sync",
    help="Keeps a Portal in live sync with a Google Cloud landing zone.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
db = typer.Typer(help="The operational store's schema.", no_args_is_help=True)
app.add_typer(db, name="db")
breaker = typer.Typer(
    help="Deletions that wait for a person: too many assets of a type vanished at once.", no_args_is_help=True
)
app.add_typer(breaker, name="breaker")

EXIT_NOT_IN_SYNC = 1
EXIT_USAGE = 2
#: Without a terminal, long work says how far it is this often.
_LINE_SECONDS = 5.0
#: Names of vanished assets that are shown before a confirmation, and that are read at once.
_SAMPLE, _PAGE = 10, 5_000

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", envvar="LZ_SYNC_CONFIG", help="The settings file (default: ./sync_config.yaml)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]


class SyncTarget(StrEnum):
    """What ``lz-sync sync`` takes."""

    WEBHOOK = "webhook"
    GIT = "git"
    INVENTORY = "inventory"
    EVENTS = "events"
    ANALYTICS = "analytics"
    ALL = "all"


def main() -> None:
    """Entry point: a known error becomes one line on stderr and an exit code."""
    from lz_sync_dagster.config import ConfigError
    from lz_sync_dagster.sync.errors import SyncError
    from lz_sync_dagster.sync.state.redaction import redact_text

    try:
        app(prog_name="lz-sync")
    except ConfigError as error:
        for line in error.lines:
            print(f"error: {redact_text(line)}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_USAGE)
    except SyncError as error:
        print(redact_text(f"error: {error}"), file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_NOT_IN_SYNC)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"lz-sync {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    from lz_sync_dagster.sync.logging import configure_logging

    configure_logging(level=logging.DEBUG if verbose else logging.INFO)


@contextmanager
def _opened(config: Path | None) -> Iterator[tuple[Settings, Store]]:
    from lz_sync_dagster.config import load_settings
    from lz_sync_dagster.sync.store import open_store

    settings = load_settings(config)
    with open_store(settings.store_url) as store:
        yield settings, store


@app.command()
def sync(
    target: Annotated[SyncTarget, typer.Argument(help="The layer to sync, or all of them.")],
    config: ConfigOption = None,
    full: Annotated[
        bool, typer.Option("--full", help="Look at everything anew, not only at what moved since the last sync.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Sync one layer, or all, in the foreground. Exits with 1 unless each ends in success."""
    from lz_sync_dagster.sync import foreground
    from lz_sync_dagster.sync.timing import utcnow

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with _opened(config) as (settings, store):
        with _bars() as progress:
            results = foreground.sync_layers(
                settings,
                store,
                foreground.layers_of(target),
                triggered_by=f"manual:{getpass.getuser()}",
                clock=utcnow,
                sleep=time.sleep,
                progress=progress,
                full=full,
            )
        if as_json:
            _print_json(foreground.report(settings, store, results, now=utcnow()))
        else:
            _print_results(results)
    if not foreground.succeeded(results):
        raise typer.Exit(EXIT_NOT_IN_SYNC)


def _interrupt(number: int, _frame: object) -> NoReturn:
    """End the sync in order, so that its layer does not stay reserved."""
    sys.exit(128 + number)


@app.command()
def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show the health of the five layers."""
    from lz_sync_dagster.sync.store import alerts, layer_runs
    from lz_sync_dagster.sync.timing import utcnow

    with _opened(config) as (settings, store):
        now = utcnow()
        with store.read() as connection:
            statuses = layer_runs.statuses(connection, now=now, disabled=settings.disabled_layers)
            raised = alerts.open_alerts(connection)
    if as_json:
        shown = [{**asdict(alert), "opened_at": alert.opened_at.isoformat()} for alert in raised]
        layers = [item.model_dump(mode="json") for item in statuses]
        _print_json({"layers": layers, "alerts": shown, "as_of": now.isoformat()})
        return
    _print_statuses(statuses, {})
    for alert in raised:
        typer.echo(f"{alert.severity} alert {alert.name} since {alert.opened_at:%Y-%m-%d %H:%M} UTC: {alert.message}")


@app.command()
def doctor(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for what is looked at.", min=1, max=600)] = 30.0,
) -> None:
    """Check that everything a sync needs is there, and say what to do about what is not. Exits with 1 if something
    failed."""
    from lz_sync_dagster.config import ConfigError, load_settings, settings_file
    from lz_sync_dagster.sync.doctor import examine, unusable_configuration
    from lz_sync_dagster.sync.timing import utcnow

    try:
        report = examine(load_settings(config), clock=utcnow, seconds=timeout, file=settings_file(config))
    except ConfigError as error:
        report = unusable_configuration(error.lines, now=utcnow())
    if as_json:
        _print_json(report.document())
    else:
        _print_report(report)
    if not report.ok:
        raise typer.Exit(EXIT_NOT_IN_SYNC)


@app.command()
def portal(
    config: ConfigOption = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)] = 8080,
) -> None:
    """Serve the Portal: the API, the live feed, the webhook and the "LZ Sync" pages."""
    from lz_sync_dagster.portal.server import serve

    with _opened(config) as (settings, store):
        serve(settings, store, host, port)


@app.command()
def listen(config: ConfigOption = None) -> None:
    """Listen to the asset feed until SIGINT or SIGTERM."""
    from lz_sync_dagster.sync.events.listener import run_listener, stop_on_signals
    from lz_sync_dagster.sync.timing import utcnow

    stop = stop_on_signals()
    with _opened(config) as (settings, store):
        run_listener(settings, store, utcnow, stop)


@db.command("migrate")
def migrate(config: ConfigOption = None) -> None:
    """Bring the store to the schema of this version."""
    from lz_sync_dagster.config import load_settings
    from lz_sync_dagster.sync.store import open_store
    from lz_sync_dagster.sync.store.migrations import upgrade

    with open_store(load_settings(config).store_url, migrate=False) as store:
        before, after = upgrade(store.engine)
    typer.echo(f"at revision {after} already" if before == after else f"migrated from {before or 'empty'} to {after}")


@db.command("status")
def db_status(config: ConfigOption = None) -> None:
    """Say which schema revision the store is at. Exits with 1 if it is not the newest."""
    from lz_sync_dagster.config import load_settings
    from lz_sync_dagster.sync.store import open_store
    from lz_sync_dagster.sync.store.migrations import current_revision, newest_revision

    with open_store(load_settings(config).store_url, migrate=False) as store, store.read() as connection:
        current = current_revision(connection)
    newest = newest_revision()
    typer.echo(f"at revision {current or 'none'}, newest is {newest}")
    if current != newest:
        typer.echo("run 'lz-sync db migrate'", err=True)
        raise typer.Exit(EXIT_NOT_IN_SYNC)


ScopeArgument = Annotated[str, typer.Argument(help="organizations/N, folders/N or projects/N.")]
TypeArgument = Annotated[str, typer.Argument(help="The asset type, e.g. compute.googleapis.com/Instance.")]
ContentArgument = Annotated[str, typer.Argument(help="The content type, e.g. RESOURCE.")]


@breaker.command("list")
def breaker_list(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List what waits for a confirmation: how many assets of which part vanished, since when, and some names."""
    from lz_sync_dagster.sync.store import breakers
    from lz_sync_dagster.sync.timing import format_ns

    with _opened(config) as (_, store), store.read() as connection:
        found = [
            (item, breakers.losses(connection, item.part, limit=_SAMPLE)) for item in breakers.open_breakers(connection)
        ]
    if as_json:
        items = [
            {
                **dict(zip(("scope", "asset_type", "content_type"), item.part, strict=True)),
                "known": item.known,
                "lost": item.lost,
                "since": item.opened_at.isoformat(),
                "read_at": format_ns(item.read_ns),
                "fingerprint": item.fingerprint,
                "sample": sample,
            }
            for item, sample in found
        ]
        _print_json({"items": items})
        return
    if not found:
        typer.echo("nothing waits for a confirmation")
    for item, sample in found:
        typer.echo(
            f"{' '.join(item.part)}: {item.lost} of {item.known} vanished, since {item.opened_at.isoformat()}, "
            f"fingerprint {item.fingerprint}"
        )
        for name in sample:
            typer.echo(f"  {name}")
        if item.lost > len(sample):
            typer.echo(f"  … and {item.lost - len(sample)} more: 'lz-sync breaker show {' '.join(item.part)}'")


@breaker.command("show")
def breaker_show(
    scope: ScopeArgument, asset_type: TypeArgument, content_type: ContentArgument, config: ConfigOption = None
) -> None:
    """Print the names of all assets of a part that vanished, one a line; their fingerprint goes to stderr."""
    from lz_sync_dagster.sync.store import breakers

    part = (scope, asset_type, content_type)
    with _opened(config) as (_, store), store.read() as connection:
        typer.echo(f"fingerprint {breakers.find(connection, part).fingerprint}", err=True)
        after = ""
        while names := breakers.losses(connection, part, limit=_PAGE, after=after):
            typer.echo("\n".join(names))
            after = names[-1]


@breaker.command("confirm")
def breaker_confirm(
    scope: ScopeArgument,
    asset_type: TypeArgument,
    content_type: ContentArgument,
    config: ConfigOption = None,
    fingerprint: Annotated[
        str | None,
        typer.Option("--fingerprint", help="Of what you looked at, as list and show tell it; --yes needs it."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Say that the deletions of a part were meant. They are made, and the audit log says by whom."""
    from lz_sync_dagster.sync.errors import SyncError
    from lz_sync_dagster.sync.store import audit, breakers, reads
    from lz_sync_dagster.sync.timing import utcnow

    part = (scope, asset_type, content_type)
    actor = f"cli:{getpass.getuser()}"
    if yes and fingerprint is None:
        raise typer.BadParameter("--yes needs --fingerprint: that of what you looked at", param_hint="--fingerprint")
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask on: use --yes with --fingerprint", param_hint="--yes")
    with _opened(config) as (_, store):
        try:
            with store.read() as connection:
                found = breakers.find(connection, part)
                sample = breakers.losses(connection, part, limit=_SAMPLE)
            if fingerprint is not None and fingerprint != found.fingerprint:
                raise breakers.changed(found)
            if not yes:
                typer.echo(f"{found.lost} of {found.known} {asset_type} ({content_type}) in {scope} vanished:")
                typer.echo("\n".join(f"  {name}" for name in sample) + ("\n  …" if found.lost > len(sample) else ""))
                typer.confirm("Delete them here too?", abort=True)
            done = reads.confirm_losses(store, part, fingerprint=found.fingerprint, actor=actor, clock=utcnow)
        except SyncError as error:
            details = {"detail": str(error)}
            audit.record_refusal(
                store,
                actor=actor,
                action=breakers.CONFIRMED,
                target="/".join(part),
                details=details,
                now=utcnow(),
            )
            raise
    came_back = done.lost - done.deleted - done.remaining
    typer.echo(f"{done.deleted} deleted" + (f"; {came_back} are there again" if came_back else ""))


def _print_json(document: dict[str, Any]) -> None:
    typer.echo(json.dumps(document, indent=2))


@contextmanager
def _bars() -> Iterator[Callable[[Any], Progress]]:
    """Progress bars on stderr; without a terminal, one line per step."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    from lz_sync_dagster.layers import LayerId, layer

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda layer_id: _lines(layer(layer_id).title)
        return
    columns = (
        TextColumn("{task.fields[layer]:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Bars(*columns, console=console, transient=True) as bars:

        def of_layer(layer_id: LayerId) -> Progress:
            task = bars.add_task("starting", total=None, layer=layer(layer_id).title)

            def report(what: str, done: int, total: int | None) -> None:
                bars.update(task, description=what, completed=done, total=total)

            return report

        yield of_layer


def _lines(title: str) -> Progress:
    last, said_at = "", 0.0

    def report(what: str, done: int, total: int | None) -> None:
        nonlocal last, said_at
        step, now = what.split(" ", 1)[0], time.monotonic()
        if step != last or now - said_at > _LINE_SECONDS:
            last, said_at = step, now
            typer.echo(f"{title}: {what}" + ("" if total is None else f" ({done}/{total})"), err=True)

    return report


def _print_results(results: Sequence[ForegroundResult]) -> None:
    _print_statuses([result.status for result in results], {result.status.layer: result.seconds for result in results})


def _print_report(report: Report) -> None:
    from rich.console import Console
    from rich.text import Text

    colors = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim"}
    console = Console(highlight=False)
    for result in report.results:
        line = Text(f"{result.verdict.value:<8}", style=colors[result.verdict.value])
        line.append(f"{result.check:<18}", style="bold").append(f"{result.subject}: {result.what}", style="default")
        console.print(line, soft_wrap=True)
        if result.remedy is not None:
            console.print(f"{'':<26}→ {result.remedy}", markup=False, soft_wrap=True)


def _count(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _print_statuses(statuses: Sequence[SyncStatus], seconds: dict[Any, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    from lz_sync_dagster.layers import layer
    from lz_sync_dagster.sync.state.redaction import redact_text

    colors = {"success": "green", "partial": "yellow", "stale": "yellow", "failed": "red", "in_progress": "cyan"}
    table = Table(title="LZ Sync")
    for heading in ("Layer", "Status", "Items", "Changed", "As of (UTC)", "Coverage"):
        table.add_column(heading, justify="right" if heading in ("Items", "Changed") else "left")
    if seconds:
        table.add_column("Seconds", justify="right")
    for item in statuses:
        row = [
            f"{layer(item.layer).number} {layer(item.layer).title}",
            f"[{colors.get(item.status, 'white')}]{item.status}[/]",
            _count(item.items_synced),
            _count(item.items_changed),
            item.as_of.strftime("%Y-%m-%d %H:%M:%S") if item.as_of is not None else "never",
            item.coverage.status.value,
        ]
        table.add_row(*row, *([f"{seconds.get(item.layer, 0.0):.1f}"] if seconds else []))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for item in statuses:
        for error in item.errors:
            console.print(f"{layer(item.layer).title}: {redact_text(error)}", style="red", markup=False, soft_wrap=True)
