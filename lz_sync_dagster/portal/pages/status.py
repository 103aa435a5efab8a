"""The Sync Status page: five layers, what happened and was delivered lately, the state's figures and what is missing.

It updates itself, element by element.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import anyio.to_thread
import structlog
from fastapi import Request
from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from lz_sync_dagster.layers import LAYERS, Layer, LayerId
from lz_sync_dagster.portal.board import EVENTS, Board, Figures
from lz_sync_dagster.portal.context import Portal, portal_of
from lz_sync_dagster.portal.pages import elements, words
from lz_sync_dagster.portal.pages.asked import (
    COVERAGE_PAGE,
    ListQuestion,
    coverage_address,
    list_address,
    resource_address,
)
from lz_sync_dagster.portal.pages.elements import Chip, put_age
from lz_sync_dagster.portal.pages.elements import hint as _hint
from lz_sync_dagster.portal.pages.elements import instant as _instant
from lz_sync_dagster.portal.pages.elements import put as _set
from lz_sync_dagster.portal.pages.elements import show as _show
from lz_sync_dagster.portal.pages.elements import text as _text
from lz_sync_dagster.sync.inventory import views
from lz_sync_dagster.sync.models import (
    Coverage,
    CoverageGap,
    CoverageStatus,
    FeedFrame,
    LZInfrastructureState,
    Status,
    SyncStatus,
)
from lz_sync_dagster.sync.store.inbox import DeliveryRecord
from lz_sync_dagster.sync.store.resource_views import ResourceFilter

PATHS = ("/", "/lz-sync")
REFRESH_SECONDS = 1.0
#: How long the store may take to answer before the page says that it does not.
READ_SECONDS = 5.0
GAPS_SHOWN = 25
ERRORS_SHOWN = 5

log = structlog.get_logger(__name__)


def register() -> None:
    """Register the page at its paths."""
    for path in PATHS:
        ui.page(path, title="LZ Sync · Status", response_timeout=15.0)(_page)


async def _page(request: Request) -> None:
    page = StatusPage(portal_of(request))
    await page.refresh()
    ui.timer(REFRESH_SECONDS, page.refresh, immediate=False)


class LayerCard:
    """One layer: status, age, items, next sync, coverage and, if any, errors with their remedies."""

    def __init__(self, layer: Layer) -> None:
        with ui.element("li").classes("lz-layer").props(f'data-layer="{layer.id}"'):
            with ui.element("div").classes("lz-layer-name"):
                _text("span", str(layer.number), "lz-number").props('aria-hidden="true"')
                with ui.element("div"):
                    _text("h3", layer.title)
                    _text("p", f"from {layer.source.replace('_', ' ')} · target {words.span(layer.target)}", "lz-dim")
            self._chip = Chip(words.STATUS_SIGNS[Status.UNKNOWN])
            with ui.element("dl").classes("lz-facts"):
                self._last = self._fact("Last success", "time")
                self._attempt = self._fact("Last attempt", "time")
                self._age = self._fact("Data age", "time")
                self._items = self._fact("Items synced")
                self._changed = self._fact("Changed")
                self._next = self._fact("Next sync")
                self._coverage = self._fact("Coverage")
            self._errors = ui.element("ul").classes("lz-errors").props('aria-label="Errors"')
            self._shown_errors: list[str] = []

    @staticmethod
    def _fact(name: str, tag: str = "span") -> TextElement:
        with ui.element("div"):
            _text("dt", name)
            with ui.element("dd"):
                return _text(tag, words.UNKNOWN)

    def show(self, status: SyncStatus, now: datetime) -> None:
        self._chip.show(words.STATUS_SIGNS[status.status])
        put_age(self._last, status.last_sync, now, never="never")
        put_age(self._attempt, status.last_attempt, now, never="never")
        put_age(self._age, status.as_of, now, length=True)
        _set(self._items, words.number(status.items_synced))
        _set(self._changed, words.number(status.items_changed))
        _set(self._next, words.due(status, now))
        _hint(self._next, _instant(status.next_sync))
        _set(self._coverage, words.COVERAGE_SIGNS[status.coverage.status].word.lower())
        errors = status.errors[:ERRORS_SHOWN]
        if len(status.errors) > ERRORS_SHOWN:
            errors.append(f"and {len(status.errors) - ERRORS_SHOWN:,} more")
        if status.consecutive_failures > 1:
            errors.insert(0, f"failed {status.consecutive_failures} times in a row")
        if errors != self._shown_errors:
            self._errors.clear()
            with self._errors:
                for error in errors:
                    _text("li", error)
            self._shown_errors = errors


@dataclass(frozen=True, slots=True)
class Kind:
    """A count of the state: its key, and what it is called."""

    key: str
    title: str

    @property
    def address(self) -> str:
        """The list of what is counted."""
        types = tuple(sorted(views.KINDS.get(self.key, ())))
        where = ResourceFilter(asset_types=types) if types else ResourceFilter(has_findings=True)
        return list_address(ListQuestion(where))


KINDS = (
    Kind("projects", "Projects"),
    Kind("vpcs", "VPC networks"),
    Kind("compute_instances", "Instances"),
    Kind("gke_clusters", "GKE clusters"),
    Kind("databases", "Databases"),
    Kind("policy_violations", "Open violations"),
)


def count_shown(kind: Kind, state: LZInfrastructureState) -> tuple[str, str]:
    """A count as text, and a note on what it lacks."""
    types = views.KINDS.get(kind.key)
    gaps = [gap for gap in state.coverage.gaps if types is None or gap.asset_type in types]
    count = state.counts.get(kind.key)
    note = _gap_note(gaps) if gaps else "not read yet" if count is None else "complete"
    return words.number(count), note


def _gap_note(gaps: list[CoverageGap]) -> str:
    return f"incomplete: {len(gaps)} gap{'s' if len(gaps) > 1 else ''}"


class Provenance:
    """One line: how old the inventory is, and where it comes from."""

    def __init__(self, more: str = "") -> None:
        with ui.element("div").classes("lz-line lz-provenance"):
            with _text("span", "as of "):
                self._age = _text("time", words.UNKNOWN)
            self._source = _text("span")
            if more:
                _text("span", more)

    def show(self, as_of: datetime | None, source: str, now: datetime) -> None:
        put_age(self._age, as_of, now)
        _set(self._source, f"from {source.replace('_', ' ')}")


class FiguresPanel:
    """The state's counts and its compliance score."""

    def __init__(self) -> None:
        self._provenance = Provenance("compliance: the controls of this installation, on the same resources")
        with ui.element("dl").classes("lz-figures"):
            self._counts = {kind.key: self._figure(kind.title, kind.address) for kind in KINDS}
            self._score = self._figure("Compliance score")

    @staticmethod
    def _figure(title: str, address: str | None = None) -> tuple[TextElement, TextElement]:
        with ui.element("div").classes("lz-figure"):
            if address is None:
                _text("dt", title)
            else:
                with ui.element("dt"):
                    elements.link(title, address)
            return _text("dd", words.UNKNOWN, "lz-value"), _text("dd", "not read yet", "lz-dim")

    def show(self, figures: Figures, now: datetime) -> None:
        state = figures.state
        self._provenance.show(state.as_of, state.source, now)
        for kind in KINDS:
            value, note = count_shown(kind, state)
            _set(self._counts[kind.key][0], value)
            _set(self._counts[kind.key][1], note)
        _set(self._score[0], words.percent(state.compliance_score))
        coverage = words.COVERAGE_SIGNS[state.coverage.status].word.lower()
        _set(self._score[1], f"coverage {coverage}" if state.compliance_score is not None else "nothing decided yet")


class ActivityFeed:
    """The newest events, newest first. New rows are put on top; the others stay."""

    def __init__(self) -> None:
        self._rows: dict[int, ui.element] = {}
        self._empty = _text("p", "Nothing has happened yet.", "lz-empty")
        self._list = (
            ui.element("ol")
            .classes("lz-feed")
            .props('role="log" aria-relevant="additions" tabindex="0" aria-label="Newest events first"')
        )

    def show(self, events: list[FeedFrame], now: datetime) -> None:
        wanted = {frame.seq for frame in events}
        for seq in [seq for seq in self._rows if seq not in wanted]:
            self._rows.pop(seq).delete()
        for frame in reversed(events):
            if frame.seq not in self._rows:
                row = self._row(frame, now)
                row.move(self._list, target_index=0)
                self._rows[frame.seq] = row
        _show(self._empty, not self._rows)

    def _row(self, frame: FeedFrame, now: datetime) -> ui.element:
        with self._list, ui.element("li").props(f'data-seq="{frame.seq}"') as row:
            Chip(words.EVENT_SIGNS[frame.event_type])
            with ui.element("div").classes("lz-what"):
                name = (frame.resource or {}).get("name")
                if name:
                    _hint(elements.link(words.happened(frame), resource_address(str(name)), "lz-event"), str(name))
                else:
                    _text("p", words.happened(frame))
                project = (frame.resource or {}).get("project")
                origin = "found by a snapshot" if frame.data.get("synthetic") else f"layer {frame.layer}"
                _text("p", f"{project} · {origin}" if project else origin, "lz-dim")
            age = elements.age(frame.timestamp, now, "lz-dim").props('aria-live="off"')
            _hint(age, f"{_instant(frame.timestamp)}, seq {frame.seq}")
        return row


class DeliveriesPanel:
    """The newest deliveries, and what is out of the ordinary about each."""

    def __init__(self) -> None:
        self._shown: list[DeliveryRecord] | None = None
        self._empty = _text("p", "Nothing was delivered yet.", "lz-empty")
        self._list = ui.element("ol").classes("lz-feed lz-deliveries").props('aria-label="Newest deliveries first"')

    def show(self, deliveries: list[DeliveryRecord], now: datetime) -> None:
        if deliveries != self._shown:
            self._shown = deliveries
            self._list.clear()
            for delivery in deliveries:
                self._row(delivery, now)
            _show(self._empty, not deliveries)

    def _row(self, delivery: DeliveryRecord, now: datetime) -> None:
        with self._list, ui.element("li").props(f'data-delivery="{delivery.id}"'):
            Chip(words.delivery_sign(delivery))
            with ui.element("div").classes("lz-what"):
                what = _text("p", words.delivered(delivery))
                _hint(what, f"delivery {delivery.delivery_id}, for layer {delivery.layer}")
                for note in words.delivery_notes(delivery):
                    _text("p", note, "lz-strong" if delivery.missed else "lz-dim")
            age = elements.age(delivery.received_at, now, "lz-dim")
            _hint(age, f"received {_instant(delivery.received_at)}, settled {_instant(delivery.finished_at)}")


class CoveragePanel:
    """How much was read, and each gap with its remedy."""

    def __init__(self) -> None:
        self._shown: list[CoverageGap] | None = None
        with ui.element("div").classes("lz-line"):
            self._chip = Chip(words.COVERAGE_SIGNS[CoverageStatus.UNKNOWN])
            self._share = _text("span", "nothing read yet")
            elements.link("part by part", COVERAGE_PAGE)
        self._provenance = Provenance()
        self._gaps = ui.element("ul").classes("lz-gaps").props('tabindex="0" aria-label="Gaps"')

    def show(self, coverage: Coverage, inventory: SyncStatus, now: datetime) -> None:
        self._provenance.show(inventory.as_of, inventory.source, now)
        self._chip.show(words.COVERAGE_SIGNS[coverage.status])
        _set(self._share, words.share_read(coverage))
        if coverage.gaps == self._shown:
            return
        self._shown = coverage.gaps
        self._gaps.clear()
        with self._gaps:
            for gap in coverage.gaps[:GAPS_SHOWN]:
                with ui.element("li"):
                    part = (gap.scope, gap.asset_type, gap.content_type)
                    said = f"{gap.asset_type} ({gap.content_type}) in {gap.scope}"
                    elements.link(said, coverage_address(part=part), "lz-strong")
                    reason = gap.reason.value.replace("_", " ")
                    _text("p", f"{gap.status}, {reason} since {_instant(gap.since)}: {gap.detail}")
                    _text("p", f"Remedy: {gap.remedy}", "lz-remedy")
            if len(coverage.gaps) > GAPS_SHOWN:
                _text("li", f"and {len(coverage.gaps) - GAPS_SHOWN:,} more: see them part by part")


class CostChart:
    """Total cost per day, one line per currency: currencies are never added."""

    def __init__(self) -> None:
        self._shown: object = None
        self._note = _text("p", "Not computed yet.", "lz-empty")
        self._box = ui.element("div").classes("lz-chart").props('role="img"')
        with self._box:
            self._chart = ui.echart({})
        self._box.visible = False

    def show(self, figures: Figures) -> None:
        if figures.daily is self._shown:
            return
        self._shown = figures.daily
        costs: dict[str, dict[str, float]] = {}
        for row in figures.daily:
            if row.total_cost is not None:
                by_day = costs.setdefault(row.currency, {})
                by_day[row.date.isoformat()] = by_day.get(row.date.isoformat(), 0.0) + row.total_cost
        _show(self._box, bool(costs))
        if not costs:
            _set(self._note, "Cost is not known." if figures.daily else "Not computed yet.")
            return
        newest = max((row for row in figures.daily if row.total_cost is not None), key=lambda row: row.date)
        day = newest.date.isoformat()
        sums = ", ".join(f"{days[day]:,.2f} {currency}" for currency, days in sorted(costs.items()) if day in days)
        note = (
            f"{day}: {sums} · as of {_instant(newest.as_of)} · from {newest.source} · coverage {newest.cost_coverage}"
        )
        _set(self._note, note)
        self._box.props["aria-label"] = f"Total cost per day. {note}"
        self._box.update()
        self._chart.options.clear()
        self._chart.options.update(_chart(costs))
        self._chart.update()


_ENDS_INSIDE = {"alignMinLabel": "left", "alignMaxLabel": "right", "hideOverlap": True}


def _chart(costs: dict[str, dict[str, float]]) -> dict[str, Any]:
    days = sorted({day for by_day in costs.values() for day in by_day})
    return {
        "animation": False,
        "color": ["#1f6feb", "#b35900", "#6f42c1", "#0a7d4f"],
        "grid": {"left": 8, "right": 44, "top": 28, "bottom": 4, "containLabel": True},
        "legend": {"top": 0, "left": 0, "icon": "roundRect"},
        "tooltip": {"trigger": "axis"},
        "xAxis": {"type": "category", "data": days, "boundaryGap": False, "axisLabel": _ENDS_INSIDE},
        "yAxis": {"type": "value"},
        "series": [
            {
                "name": currency,
                "type": "line",
                "showSymbol": len(days) == 1,
                "areaStyle": {"opacity": 0.08},
                "data": [None if day not in by_day else round(by_day[day], 2) for day in days],
            }
            for currency, by_day in sorted(costs.items())
        ],
    }


class StatusPage:
    """The whole page. `refresh` reads the board in a worker thread and changes what differs."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._failing_since: datetime | None = None
        self._shown_at: datetime | None = None
        elements.dress(portal)
        with ui.element("div").classes("lz-page"):
            with ui.element("header").classes("lz-header"), ui.element("div").classes("lz-wide"):
                _text("h1", "LZ Sync")
                _text("p", portal.settings.landing_zone.name or "landing zone", "lz-subtitle")
                self._updated = _text("p", "reading …", "lz-updated")
            elements.navigation(PATHS[-1])
            self._banner = _text("p", "", "lz-banner").props('role="alert"')
            self._banner.visible = False
            _text("p", "", "lz-banner lz-not-live").props('role="alert" data-lost')
            with ui.element("main").classes("lz-wide lz-main"):
                with self._section("State of the landing zone"):
                    self._figures = FiguresPanel()
                with self._section("Sync status"), ui.element("ul").classes("lz-layers"):
                    self._layers = {layer.id: LayerCard(layer) for layer in LAYERS}
                with ui.element("div").classes("lz-columns"):
                    with self._section("Live activity"):
                        self._feed = ActivityFeed()
                    with ui.element("div").classes("lz-stack"):
                        with self._section("Deliveries"):
                            self._deliveries = DeliveriesPanel()
                        with self._section("Coverage"):
                            self._coverage = CoveragePanel()
                        with self._section("Daily cost"):
                            self._cost = CostChart()

    @staticmethod
    def _section(title: str) -> ui.element:
        section = ui.element("section").classes("lz-section").props(f'aria-label="{title}"')
        with section:
            _text("h2", title)
        return section

    async def refresh(self) -> None:
        """Show the present board; if it cannot be read, say since when what is shown is old."""
        now = self._portal.clock()
        try:
            async with asyncio.timeout(READ_SECONDS):
                board = await anyio.to_thread.run_sync(self._portal.board.read, abandon_on_cancel=True)
        except Exception as error:
            if self._failing_since is None:
                log.warning("page_not_refreshed", error=repr(error))
                self._failing_since = now
            self._show_failure()
            return
        self._failing_since = None
        _show(self._banner, False)
        self._show_board(board)

    def _show_failure(self) -> None:
        last = self._portal.board.last
        if last is not None and self._shown_at is None:
            self._show_board(last)
        data = f"Data from {_instant(self._shown_at)}" if self._shown_at else "Data"
        _set(
            self._banner,
            f"{data} could not be refreshed since {_instant(self._failing_since)}: the store cannot be read. "
            "Check that the database runs.",
        )
        _show(self._banner, True)

    def _show_board(self, board: Board) -> None:
        now = self._shown_at = board.read_at
        _set(self._updated, f"Updated {_instant(now)}")
        for status in board.layers:
            self._layers[status.layer].show(status, now)
            if status.layer == LayerId.API:
                self._coverage.show(board.coverage, status, now)
        self._feed.show(board.events[:EVENTS], now)
        self._deliveries.show(board.deliveries, now)
        self._figures.show(board.figures, now)
        self._cost.show(board.figures)
