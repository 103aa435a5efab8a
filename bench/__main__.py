"""``python -m bench NAME``: run a benchmark. Exits with 1 if a target is missed."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from bench.git import bench_git
from bench.harness import BenchError, Benchmark, Options, lines, load_targets, missed, report
from bench.inventory import bench_inventory
from bench.queries import bench_queries
from lz_sync_dagster.sync.errors import SyncError
from lz_sync_dagster.sync.logging import configure_logging

BENCHMARKS: dict[str, Benchmark] = {"git": bench_git, "inventory": bench_inventory, "queries": bench_queries}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(BENCHMARKS)}.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Small and without targets: does it run?")] = False,
    fail: Annotated[bool, typer.Option("--fail/--no-fail", help="Exit with 1 if a target is missed.")] = True,
    dagster: Annotated[bool, typer.Option("--dagster", help="Also measure through a running Dagster.")] = False,
    large: Annotated[bool, typer.Option("--large", help="Also measure the largest case (a million assets).")] = False,
) -> None:
    """Measure, and compare with a reference in the same run."""
    if name not in BENCHMARKS:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(BENCHMARKS)}", param_hint="NAME")
    configure_logging(level=logging.WARNING)
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as folder:
        measured = BENCHMARKS[name](Options(Path(folder), quick=quick, dagster=dagster, large=large, say=_say))
    document = report(name, measured, None if quick else load_targets()[name])
    print(json.dumps(document, indent=2) if as_json else "\n".join(lines(document)))
    if missed(document) and fail:
        raise typer.Exit(1)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        app(prog_name="python -m bench")
    except (BenchError, SyncError) as error:
        sys.exit(f"error: {error}")
