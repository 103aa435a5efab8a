"""What the pages on the inventory share: the layer's state, the parts that a question is about, and how they show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from nicegui import ui

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.portal.answers import layer_status
from lz_sync_dagster.portal.context import Portal
from lz_sync_dagster.portal.pages import asked, elements, inventory_words, words
from lz_sync_dagster.portal.pages.elements import Frame, instant, link, text
from lz_sync_dagster.sync.models import Coverage, CoverageStatus, SyncStatus
from lz_sync_dagster.sync.store import coverage_views, layer_runs
from lz_sync_dagster.sync.store.coverage_views import LedgerRow, Parts
from lz_sync_dagster.sync.timing import from_ns

#: Parts that a note on what is missing names.
NAMED = 5


@dataclass(frozen=True, slots=True)
class Known:
    """What was known when a page was read. ``rows``: of the parts that it is about, at the instant that it is of."""

    now: datetime
    status: SyncStatus
    rows: list[LedgerRow]
    as_of_ns: int | None

    @property
    def instant(self) -> datetime:
        """The instant that it is of."""
        return self.now if self.as_of_ns is None else from_ns(self.as_of_ns)

    @property
    def coverage(self) -> Coverage:
        """Of the parts."""
        return coverage_views.of_rows(self.rows)

    @property
    def gaps(self) -> list[LedgerRow]:
        """The parts that were not read completely."""
        return [row for row in self.rows if row.status is not CoverageStatus.COMPLETE]


def known(connection: sa.Connection, portal: Portal, now: datetime, only: Parts, as_of_ns: int | None = None) -> Known:
    """The layer, and the ledger of these parts, now or at an instant."""
    ttl = layer_runs.CACHE_TTL
    if as_of_ns is None:
        rows = coverage_views.ledger(connection, now=now, ttl=ttl, only=only)
    else:
        rows = coverage_views.ledger_at(connection, as_of_ns, ttl=ttl, only=only)
    return Known(now, layer_status(connection, portal, LayerId.API, now), rows, as_of_ns)


def announce(frame: Frame, state: Known) -> None:
    """Say in the banner what is wrong with the layer."""
    frame.warn(inventory_words.inventory_notice(state.status, state.now))


def provenance(state: Known) -> None:
    """One line: the layer's state, how old the data is, where it comes from, how much is known."""
    with ui.element("div").classes("lz-line lz-provenance"):
        name = "API sync" if state.as_of_ns is None else "API sync now:"
        elements.layer_state(name, words.STATUS_SIGNS[state.status.status])
        if state.as_of_ns is None:
            elements.as_of(state.status.as_of, state.now)
        else:
            text("span", f"as of {instant(from_ns(state.as_of_ns))}")
        text("span", f"from {state.status.source.replace('_', ' ')}")
        coverage = state.coverage
        sign = words.COVERAGE_SIGNS[coverage.status].word.lower()
        part = state.rows[0].part if len(state.rows) == 1 else None
        address = asked.coverage_address(part=part, as_of_ns=state.as_of_ns)
        link(f"coverage {sign}: {words.share_read(coverage)}", address)


def missing(state: Known) -> None:
    """What the data lacks, part by part; nothing if everything was read."""
    note = inventory_words.gap_note(state.rows, then=state.as_of_ns is not None)
    if note is None:
        return
    with ui.element("div").classes("lz-note lz-missing").props('role="note"'):
        text("p", note)
        if state.gaps:
            with ui.element("ul"):
                for gaps in inventory_words.alike(state.gaps):
                    with ui.element("li"):
                        _gap(gaps, state.as_of_ns)


def _gap(rows: list[LedgerRow], as_of_ns: int | None) -> None:
    """Parts that were not read completely for one reason: which, why, and what to do."""
    for number, row in enumerate(rows[:NAMED]):
        if number:
            text("span", ", ")
        said = f"{row.asset_type} ({row.content_type}) in {row.scope}"
        link(said, asked.coverage_address(part=row.part, as_of_ns=as_of_ns))
    if len(rows) > NAMED:
        text("span", " ")
        link(f"and {len(rows) - NAMED:,} more", asked.coverage_address(as_of_ns=as_of_ns, problems=True))
    text("span", f": {inventory_words.why_all(rows)} ")
    remedy("span", rows[0])


def remedy(tag: str, row: LedgerRow) -> None:
    """What to do about a part; if nothing can be done, that."""
    said, can_be_done = inventory_words.remedy(row)
    if said:
        text(tag, said, "lz-remedy" if can_be_done else "")


def notes(said: Sequence[str]) -> None:
    """What of an address was not understood."""
    for note in said:
        text("p", note, "lz-note").props('role="note"')
