"""What every benchmark needs: sides that alternate, medians, and ratios judged by ``targets.toml``.

A benchmark is a function that measures and returns a `Measured`; what the figures have to reach stands in the file
alone.
"""

from __future__ import annotations

import gc
import os
import platform
import random
import statistics
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict

TARGETS_FILE = Path(__file__).with_name("targets.toml")
#: How often each side of a ratio runs at least; ``--quick`` makes do with fewer.
ROUNDS = 5


class BenchError(Exception):
    """A benchmark cannot be run, or what ran did not do its work."""


class Target(BaseModel):
    """What a figure has to reach. ``optional``: only measured when asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    better: Literal["higher", "lower"]
    target: float
    optional: bool = False

    def met(self, value: float) -> bool:
        """Whether a value is good enough."""
        return value >= self.target if self.better == "higher" else value <= self.target


@dataclass(frozen=True, slots=True)
class Options:
    """How to run.

    Attributes:
        folder: an empty folder for everything that the benchmark makes.
        quick: small and short, to see that it runs; the figures mean nothing.
        dagster: also measure through a running Dagster.
        large: also measure the largest case that there is.
        say: called with a line on how far it is.
    """

    folder: Path
    quick: bool = False
    dagster: bool = False
    large: bool = False
    say: Callable[[str], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Measured:
    """What a benchmark found: ``ratios`` by key, and ``figures`` (a name ends with its unit) that explain them."""

    ratios: Mapping[str, float]
    figures: Mapping[str, Any] = field(default_factory=dict)


class Benchmark(Protocol):
    """Measures something. Raises `BenchError`."""

    def __call__(self, options: Options) -> Measured:
        """Run it."""


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: ``run`` is timed; ``prepare`` before it and ``check`` after it are not."""

    run: Callable[[], object]
    prepare: Callable[[], object] = lambda: None
    check: Callable[[], object] = lambda: None


def alternate(
    sides: Mapping[str, Side], *, rounds: int, before: Callable[[int], object] = lambda _: None
) -> dict[str, list[float]]:
    """Run all sides in each round, so that a slow minute of the machine hits every one. Their order changes.

    Args:
        before: called with the number of a round, before it.

    Returns:
        The seconds of each run, by side.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    order = random.Random(rounds)
    for number in range(rounds):
        before(number)
        for name in order.sample(list(sides), len(sides)):
            sides[name].prepare()
            gc.collect()
            started = time.perf_counter()
            sides[name].run()
            seconds[name].append(time.perf_counter() - started)
            sides[name].check()
    return seconds


def medians_ms(seconds: Mapping[str, Sequence[float]], *, prefix: str) -> dict[str, float]:
    """The median of each side in milliseconds, as figures ``<prefix>_<side>_ms``."""
    return {f"{prefix}_{name}_ms": round(1000 * statistics.median(runs), 2) for name, runs in seconds.items()}


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The quotient of two medians."""
    return statistics.median(above) / statistics.median(below)


def load_targets(path: Path = TARGETS_FILE) -> dict[str, dict[str, Target]]:
    """The targets by benchmark and key."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    return {
        name: {key: Target.model_validate(value) for key, value in targets.items()}
        for name, targets in document.items()
    }


def report(name: str, measured: Measured, targets: Mapping[str, Target] | None) -> dict[str, Any]:
    """The benchmark's document.

    Args:
        targets: of the benchmark, by key of a ratio or of a figure; ``None`` (a quick run) judges nothing.

    Raises:
        BenchError: a ratio has no target, or a target was not measured.
    """
    figures = dict(measured.figures)
    if targets is None:
        ratios = {
            key: {"value": round(value, 3), "better": None, "target": None, "ok": None}
            for key, value in measured.ratios.items()
        }
        return {"name": name, "machine": machine(), "ratios": ratios, "figures": figures}
    missing = {key for key, target in targets.items() if not target.optional} - measured.ratios.keys() - figures.keys()
    if missing or (missing := measured.ratios.keys() - targets.keys()):
        raise BenchError(f"{name}: target and measurement do not fit together: {', '.join(sorted(missing))}")
    for key in targets.keys() & figures.keys():
        figures[key] = _judged(figures[key], targets[key])
    ratios = {key: _judged(value, targets[key]) for key, value in measured.ratios.items()}
    return {"name": name, "machine": machine(), "ratios": ratios, "figures": figures}


def _judged(value: float, target: Target) -> dict[str, Any]:
    return {"value": round(value, 3), "better": target.better, "target": target.target, "ok": target.met(value)}


def missed(document: Mapping[str, Any]) -> list[str]:
    """The keys whose target is missed."""
    return [key for key, value in _judgements(document) if value["ok"] is False]


def lines(document: Mapping[str, Any]) -> Iterable[str]:
    """The document for people."""
    yield f"{document['name']}  ({', '.join(f'{key} {value}' for key, value in document['machine'].items())})"
    judged = dict(_judgements(document))
    for key, found in judged.items():
        sign = {"higher": "≥", "lower": "≤", None: ""}[found["better"]]
        verdict = {True: "ok", False: "MISSED", None: ""}[found["ok"]]
        yield f"  {key:36} {found['value']:>10} {sign} {found['target'] or ''} {verdict}".rstrip()
    for key, figure in document["figures"].items():
        if key not in judged:
            yield f"  {key:36} {figure:>10}"


def _judgements(document: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    figures = [(key, value) for key, value in document["figures"].items() if isinstance(value, dict)]
    return [*document["ratios"].items(), *figures]


def machine() -> dict[str, Any]:
    """What the figures were measured on, without its name."""
    git = subprocess.run(["git", "--version"], check=True, capture_output=True, text=True).stdout
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "git": git.removeprefix("git version").strip(),
    }
