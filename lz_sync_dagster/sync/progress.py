"""How long work says how far it is: one call signature for the command line's bars, Dagster's log and silence."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called as work goes on. ``total`` is ``None`` while it is not known."""

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """``what`` names the step (``reading compute.googleapis.com/Instance``), ``done`` counts up to ``total``."""


def silent(what: str, done: int, total: int | None) -> None:
    """A `Progress` that says nothing."""
