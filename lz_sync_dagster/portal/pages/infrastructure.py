"""The Infrastructure page: resources, now or as of an instant, to filter, search, sort, page through, and take away.

The address says what is asked, so a view can be linked and reloaded. One page of rows is read at a time, by key.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import orjson
import sqlalchemy as sa
from fastapi import Request
from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement
from nicegui.events import GenericEventArguments

from lz_sync_dagster.portal.context import Portal, portal_of
from lz_sync_dagster.portal.pages import asked, elements, inventory_layer, inventory_words, reading, words
from lz_sync_dagster.portal.pages.asked import INFRASTRUCTURE_PAGE, ListQuestion, Timeline
from lz_sync_dagster.portal.pages.elements import Chip, Frame, instant, link, section, text
from lz_sync_dagster.portal.pages.inventory_layer import Known
from lz_sync_dagster.sync.inventory.exports import ExportFormat
from lz_sync_dagster.sync.inventory.types import plan_parts
from lz_sync_dagster.sync.models import CoverageStatus
from lz_sync_dagster.sync.state.reducer import Part
from lz_sync_dagster.sync.store import coverage_views
from lz_sync_dagster.sync.store.coverage_views import Parts
from lz_sync_dagster.sync.store.resource_history import Content, contents
from lz_sync_dagster.sync.store.resource_views import (
    Dimension,
    Facet,
    ResourceFilter,
    ResourcePage,
    ResourceRow,
    Sort,
    count,
    facet,
    list_resources,
    violations,
)
from lz_sync_dagster.sync.timing import Clock, format_ns, from_ns, to_ns

#: Rows of a page, and values of a facet that are shown before the others are asked for.
ROWS, VALUES = 50, 8
#: Milliseconds without a key, or a move of the slider, before a question is asked.
_PAUSE = 300
#: The key of the slider.
SLIDER = "slider"

_DIMENSIONS = {Dimension.ASSET_TYPE: "Type", Dimension.PROJECT: "Project", Dimension.LOCATION: "Location"}
_SORTS = {
    Sort.NAME: "Name",
    Sort.ASSET_TYPE: "Type",
    Sort.PROJECT: "Project",
    Sort.LOCATION: "Location",
    Sort.UPDATED: "Since",
    Sort.VIOLATIONS: "Violations",
}
_FORMATS = {ExportFormat.CSV: "CSV", ExportFormat.JSONL: "JSON Lines", ExportFormat.PARQUET: "Parquet"}
_EVERYTHING = ResourceFilter()
#: A click that opens a link elsewhere is the browser's.
_PLAIN_CLICK = "(e) => { if (e.ctrlKey || e.metaKey || e.shiftKey || e.altKey) return; e.preventDefault(); emit(); }"
#: The browser's back and forward load what the address asks for; filters begin closed where there is little room.
_ONCE = """
window.addEventListener('popstate', () => location.reload());
if (innerWidth <= 1000) document.querySelector('.lz-filters')?.removeAttribute('open');
"""


def register() -> None:
    """Register the page at its path."""
    ui.page(INFRASTRUCTURE_PAGE, title="LZ Sync · Infrastructure", response_timeout=15.0)(_page)


async def _page(request: Request) -> None:
    portal = portal_of(request)
    question, notes = asked.list_question(request.query_params.multi_items(), portal.clock())
    with elements.frame(portal, INFRASTRUCTURE_PAGE) as frame:
        page = InfrastructurePage(portal, frame, question, notes)
    await page.show_list()
    ui.timer(0, page.show_counts, once=True)
    ui.run_javascript(_ONCE)


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of a list. ``contents``: by id, where the list has columns of its type. ``restarted``: the place that
    the question names has no rows any more, and this is the list's beginning."""

    known: Known
    page: ResourcePage
    contents: dict[int, Content]
    first: datetime | None
    restarted: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """How many resources a list has, and of which values. ``violations``: open on them, if it is of those with some."""

    total: int
    violations: int | None
    facets: dict[Dimension, Facet]


def read_list(connection: sa.Connection, now: datetime, *, portal: Portal, question: ListQuestion) -> Listing:
    """The rows that a question asks for."""
    where = question.where

    def page(after: Any, before: Any) -> ResourcePage:
        return list_resources(
            connection,
            where,
            sort=question.sort,
            descending=question.descending,
            after=after,
            before=before,
            limit=ROWS,
            as_of_ns=question.as_of_ns,
        )

    found = page(question.after, question.before)
    restarted = not found.items and (question.after or question.before) is not None
    if restarted:
        found = page(None, None)
    typed = bool(inventory_words.typed_columns(where))
    only = Parts(where.scopes, where.asset_types, (where.content_type,))
    return Listing(
        inventory_layer.known(connection, portal, now, only, question.as_of_ns),
        found,
        contents(connection, {row.content_id for row in found.items}) if typed else {},
        coverage_views.known_since(connection),
        restarted,
    )


def read_counts(connection: sa.Connection, _now: datetime, *, question: ListQuestion) -> Counts:
    """The figures of a list."""
    where, at = question.where, question.as_of_ns
    return Counts(
        count(connection, where, as_of_ns=at),
        violations(connection, where, as_of_ns=at) if where.has_findings else None,
        {by: facet(connection, where, by, as_of_ns=at) for by in _DIMENSIONS},
    )


def filters_that_hold(question: ListQuestion) -> list[tuple[str, ResourceFilter]]:
    """What narrows a list, each with the filter that is without it."""
    where = question.where
    found: list[tuple[str, ResourceFilter]] = []
    if where.content_type != _EVERYTHING.content_type:
        title = inventory_words.CONTENTS.get(where.content_type, where.content_type)
        found.append((f"Content: {title}", replace(where, content_type=_EVERYTHING.content_type)))
    for by, title in _DIMENSIONS.items():
        for value in asked.chosen(where, by):
            found.append((f"{title}: {value}", question.toggled(by, value).where))
    for scope in where.scopes:
        others = tuple(item for item in where.scopes if item != scope)
        found.append((f"Scope: {scope}", replace(where, scopes=others)))
    if where.has_findings is not None:
        title = "With open violations" if where.has_findings else "Without open violations"
        found.append((title, replace(where, has_findings=None)))
    if where.deleted:
        found.append(("Deleted", replace(where, deleted=False)))
    if where.q:
        found.append((f"Name has “{where.q}”", replace(where, q=None)))
    if where.changed_since_ns is not None:
        since = instant(from_ns(where.changed_since_ns))
        found.append((f"Changed since {since}", replace(where, changed_since_ns=None)))
    return found


class InfrastructurePage:
    """The whole page. A change of the question changes the address, and reads anew."""

    def __init__(self, portal: Portal, frame: Frame, question: ListQuestion, notes: list[str]) -> None:
        self._portal = portal
        self._frame = frame
        self._client = ui.context.client
        self._question = question
        self._instant: InstantControls | None = None
        self._moved_to: ListQuestion | None = None
        self._starts: dict[ListQuestion, int] = {}
        self._listed: ResourcePage | None = None
        self._opened: set[Dimension] = set()
        self._counts: Counts | None = None
        with section("Infrastructure"):
            self._notes = ui.element("div").classes("lz-notes")
            self._note(notes)
            self._box = ui.input(value=question.where.q or "", placeholder="Search names")
            self._box.props(
                f"outlined dense clearable debounce={_PAUSE} type=search maxlength={asked.LONG} "
                'aria-label="Search resources by name"'
            ).classes("lz-search")
            self._box.on_value_change(self._typed)
            self._time = ui.element("div").classes("lz-time").props('role="group" aria-label="Instant"')
            self._provenance = ui.element("div")
        with ui.element("div").classes("lz-browse"):
            with ui.element("details").classes("lz-section lz-filters").props("open"):
                self._filters = text("summary", "Filters", "lz-strong")
                self._facets = ui.element("div")
            self._results = ui.element("section").classes("lz-section").props('aria-label="Resources"')
        self._said = text("p", "", "lz-heard").props('role="status"')

    # --- what is asked ---

    async def _typed(self) -> None:
        q = str(self._box.value or "").strip()[: asked.LONG] or None
        if q != self._question.where.q and "\0" not in (q or ""):
            await self._go(self._question.but(replace(self._question.where, q=q)), replace_address=True)

    async def _go(self, question: ListQuestion, key: str | None = None, *, replace_address: bool = False) -> None:
        if question == self._question:
            return
        self._question = question
        if question.where.q is None:
            self._box.set_value("")
        address = asked.list_address(question)
        (ui.navigate.history.replace if replace_address else ui.navigate.history.push)(address)
        self._note([])
        await self.show_list()
        await self.show_counts()
        if key is not None:
            # What was clicked may be gone by now, and its place in the page with it: the client is not.
            self._client.run_javascript(_focus(key))

    def _link(self, said: str, question: ListQuestion, key: str, classes: str = "", *, focus: str = "") -> TextElement:
        """A link to another question, which is answered without loading the page anew. ``focus``: the key of what has
        the focus then, unless it is the link itself."""
        element = link(said, asked.list_address(question), classes)
        element.props["data-key"] = key
        element.on("click", partial(self._go, question, focus or key), js_handler=_PLAIN_CLICK)
        return element

    # --- what is answered ---

    async def show_list(self) -> None:
        """Read the rows that the question asks for, and show them, unless it asks for something else by then."""
        question = self._question
        self._results.props("aria-busy=true")
        found = await reading.for_page(
            self._portal, self._frame, partial(read_list, portal=self._portal, question=question)
        )
        if question is not self._question:
            return
        self._results.props(remove="aria-busy")
        if found is None:
            return
        if found.restarted:
            self._note(["The place in the list that the address names is gone; the list is shown from its beginning."])
        inventory_layer.announce(self._frame, found.known)
        self._show_time(found)
        self._provenance.clear()
        with self._provenance:
            inventory_layer.provenance(found.known)
        self._results.clear()
        with self._results:
            self._show_results(question, found)

    async def show_counts(self) -> None:
        """Read the figures of the list, which take longer than its rows, and show them."""
        question = self._question
        found = await reading.from_store(self._portal, partial(read_counts, question=question))
        if question is not self._question:
            return
        self._counts = found
        elements.put(self._total, self._heading(found))
        elements.put(self._said, self._total.text)
        if found is not None and self._listed is not None:
            elements.put(self._position, self._place_of(question, self._listed, found.total))
        self._facets.clear()
        with self._facets:
            self._show_flags(question)
            if found is None:
                text("p", "The counts could not be read in time. Narrow the search, or load the page again.", "lz-note")
                return
            for by, title in _DIMENSIONS.items():
                self._show_facet(question, by, title, found.facets[by])

    def _note(self, said: list[str]) -> None:
        self._notes.clear()
        with self._notes:
            inventory_layer.notes(said)

    def _heading(self, counts: Counts | None) -> str:
        if counts is None:
            return "Resources"
        where = self._question.where
        return inventory_words.heading(
            where.content_type,
            counts.total,
            counts.violations,
            whole=self._whole,
            deleted_since=self._begun if where.deleted else None,
        )

    # --- the instant ---

    def _show_time(self, found: Listing) -> None:
        if self._instant is None:
            self._time.clear()
            with self._time:
                if found.first is None:
                    text("p", "No instant of the past is known yet.", "lz-dim")
                    return
                self._instant = InstantControls(found.first, self._portal.clock, self._chose)
        self._instant.show(self._question)

    async def _chose(self, as_of_ns: int | None, key: str) -> None:
        """Ask for another instant. All moves of the slider, one after the other, are one step back in the browser."""
        question = self._question.at(as_of_ns)
        if key != SLIDER:
            await self._go(question, key)
        elif as_of_ns != self._question.as_of_ns:
            moved, self._moved_to = self._moved_to, question
            await self._go(question, replace_address=moved is self._question)

    # --- filters ---

    def _show_flags(self, question: ListQuestion) -> None:
        where = question.where
        with self._group("Content"):
            for content, title in inventory_words.CONTENTS.items():
                self._choice(
                    title, where.content_type == content, question.but(replace(where, content_type=content)), content
                )
        with self._group("Violations"):
            for flag, title in ((None, "All"), (True, "With open violations"), (False, "Without")):
                self._choice(
                    title,
                    where.has_findings is flag,
                    question.but(replace(where, has_findings=flag)),
                    f"violations:{flag}",
                )
        with self._group("State"):
            for deleted, title in ((False, "Exists"), (True, "Deleted")):
                self._choice(
                    title, where.deleted is deleted, question.but(replace(where, deleted=deleted)), f"deleted:{deleted}"
                )

    @staticmethod
    @contextmanager
    def _group(title: str) -> Iterator[None]:
        with ui.element("div").classes("lz-facet").props('role="group"') as group:
            group.props["aria-label"] = title
            text("h3", title)
            with ui.element("ul"):
                yield

    def _choice(self, title: str, chosen: bool, question: ListQuestion, key: str, number: int | None = None) -> None:
        with ui.element("li"):
            icon = "check" if chosen else ""
            ui.icon(icon).props('aria-hidden="true"').classes("lz-check")
            element = self._link(title, question, key, "lz-chosen" if chosen else "")
            if chosen:
                element.props["aria-current"] = "true"
            if number is not None:
                text("span", f"{number:,}", "lz-count")

    def _show_facet(self, question: ListQuestion, by: Dimension, title: str, found: Facet) -> None:
        chosen = asked.chosen(question.where, by)
        counts = dict(found.values)
        listed: list[tuple[str, int | None]] = [(value, counts.get(value)) for value in chosen]
        listed += [(value, number) for value, number in found.values if value is not None and value not in chosen]
        shown = max(VALUES, len(chosen))
        with self._group(title):
            for value, number in listed[:shown]:
                self._value(question, by, value, number)
            if not listed:
                text("li", "none", "lz-dim")
        rest = listed[shown:]
        without = counts.get(None, 0)
        if rest:
            more = ui.element("details").classes("lz-more")
            if by in self._opened:
                more.props("open")
            more.on("toggle", partial(self._toggled, by), js_handler="(e) => emit(e.target.open)")
            with more:
                text("summary", f"{len(rest):,} more")
                with ui.element("ul"):
                    for value, number in rest:
                        self._value(question, by, value, number)
        if without:
            text("p", f"{without:,} without a {title.lower()}", "lz-dim")
        if found.others:
            text("p", f"{found.others:,} have other values: search for them", "lz-dim")

    def _toggled(self, by: Dimension, event: GenericEventArguments) -> None:
        (self._opened.add if event.args else self._opened.discard)(by)

    def _value(self, question: ListQuestion, by: Dimension, value: str, number: int | None) -> None:
        said = inventory_words.type_name(value) if by is Dimension.ASSET_TYPE else value
        self._choice(
            said, value in asked.chosen(question.where, by), question.toggled(by, value), f"{by}:{value}", number
        )

    # --- rows ---

    def _show_results(self, question: ListQuestion, found: Listing) -> None:
        where, page = question.where, found.page
        self._begun = found.first
        self._listed = page if page.items else None
        rows = found.known.rows
        unlisted = inventory_words.not_listed(where, rows, self._planned())
        self._whole = not unlisted and bool(rows) and all(row.status is CoverageStatus.COMPLETE for row in rows)
        with ui.element("div").classes("lz-line lz-top"):
            self._total = text("h2", "Resources").props('tabindex="-1" data-key=results')
            self._exports(question)
        self._active(question)
        if unlisted:
            text("p", unlisted, "lz-note lz-missing").props('role="note"')
        if rows or not unlisted:
            inventory_layer.missing(found.known)
        if not page.items:
            if rows or not unlisted:
                self._empty(where, found.known)
            return
        self._sorts(question)
        typed = inventory_words.typed_columns(where)
        columns = self._columns(where, typed)

        def heading(cell: ui.element, number: int) -> None:
            title, sort = columns[number]
            if sort is None:
                text("span", title)
            else:
                cell.props["aria-sort"] = self._order(question, sort)
                self._sort_link(question, sort, title, "head")

        box = ui.element("div").classes("lz-typed" if typed else "")
        with box, elements.table("Resources", tuple(title for title, _ in columns), heading):
            for row in page.items:
                content = found.contents.get(row.content_id or 0)
                cells = inventory_words.typed_cells(where, row, content.data if content else None)
                self._row(
                    question,
                    row,
                    cells,
                    found.known.now if question.as_of_ns is None else from_ns(question.as_of_ns),
                    with_type=(_SORTS[Sort.ASSET_TYPE], Sort.ASSET_TYPE) in columns,
                )
        self._pager(question, page)

    @staticmethod
    def _empty(where: ResourceFilter, known: Known) -> None:
        filtered = where != ResourceFilter(content_type=where.content_type)
        said = inventory_words.nothing_found(known.rows, known.status, filtered=filtered, deleted=where.deleted)
        text("p", said, "lz-empty")

    def _planned(self) -> tuple[Part, ...]:
        config = self._portal.settings.sync_layers.api_sync
        return plan_parts(config.scopes, config.endpoints, config.content_types).parts

    def _exports(self, question: ListQuestion) -> None:
        with ui.element("p").classes("lz-line lz-exports"):
            text("span", "Export", "lz-dim")
            for file_format, title in _FORMATS.items():
                element = link(title, asked.export_address(question, file_format))
                element.props["download"] = f"resources.{file_format}"

    def _active(self, question: ListQuestion) -> None:
        """The filters that hold, each with a way to be without it."""
        active = filters_that_hold(question)
        elements.put(self._filters, f"Filters ({len(active):,})" if active else "Filters")
        if not active:
            return
        with ui.element("ul").classes("lz-active").props('aria-label="Filters that hold"'):
            for said, without in active:
                with ui.element("li"):
                    text("span", said)
                    element = self._link("×", question.but(without), f"without:{said}", focus="results")
                    element.props["aria-label"] = f"Without the filter {said}"
            with ui.element("li").classes("lz-bare"):
                self._link("Clear all", question.but(ResourceFilter()), "without:all", focus="results")

    @staticmethod
    def _columns(where: ResourceFilter, typed: tuple[str, ...]) -> list[tuple[str, Sort | None]]:
        names = [Sort.NAME] if typed and where.asset_types else [Sort.NAME, Sort.ASSET_TYPE]
        own: list[tuple[str, Sort | None]] = [(title, None) for title in typed]
        known: list[tuple[str, Sort | None]] = [(_SORTS[sort], sort) for sort in names]
        rest = [(_SORTS[sort], sort) for sort in (Sort.PROJECT, Sort.LOCATION)]
        since = ("Deleted" if where.deleted else _SORTS[Sort.UPDATED], Sort.UPDATED)
        return [*known, (_SORTS[Sort.VIOLATIONS], Sort.VIOLATIONS), *own, *rest, since]

    @staticmethod
    def _order(question: ListQuestion, sort: Sort) -> str:
        if sort is not question.sort:
            return "none"
        return "descending" if question.descending else "ascending"

    def _sort_link(self, question: ListQuestion, sort: Sort, title: str, where: str) -> None:
        element = self._link(title, question.by(sort), f"{where}:{sort}", "lz-sort")
        if sort is question.sort:
            with element:
                arrow = "arrow_downward" if question.descending else "arrow_upward"
                ui.icon(arrow).props('aria-hidden="true"')

    def _sorts(self, question: ListQuestion) -> None:
        """The sorts in a line, where the table has no head."""
        with ui.element("p").classes("lz-line lz-sorts"):
            text("span", "Sort by", "lz-dim")
            for sort, title in _SORTS.items():
                self._sort_link(question, sort, title, "line")

    def _row(
        self, question: ListQuestion, row: ResourceRow, cells: list[str], now: datetime, *, with_type: bool
    ) -> None:
        with ui.element("tr") as line:
            line.props["data-name"] = row.name
            with ui.element("th").props('scope="row"'):
                name = link(
                    row.display_name or words.short(row.name), asked.resource_address(row.name, question.as_of_ns)
                )
                elements.hint(name, row.name)
                elements.hint(text("div", row.name.removeprefix("//"), "lz-dim lz-full"), row.name)
                if row.deleted:
                    Chip(inventory_words.DELETED)
            if with_type:
                elements.hint(text("td", inventory_words.type_name(row.asset_type)), row.asset_type)
            with ui.element("td"):
                if row.violations:
                    Chip(inventory_words.violations_sign(row.violations))
                else:
                    text("span", "none known", "lz-dim lz-nowrap")
            for cell in cells:
                self._cell(cell)
            text("td", row.project or inventory_words.NONE, "" if row.project else "lz-dim")
            text("td", row.location or inventory_words.NONE, "" if row.location else "lz-dim")
            since = from_ns(row.valid_from_ns)
            elements.hint(text("td", words.ago(since, now), "lz-nowrap lz-dim"), f"as it is since {instant(since)}")

    @staticmethod
    def _cell(said: str) -> None:
        """A value; a field that the data does not have is a dash that says so."""
        if said != inventory_words.ABSENT:
            text("td", said, "lz-dim" if said in (words.UNKNOWN, inventory_words.NONE) else "")
            return
        with ui.element("td").classes("lz-dim") as cell:
            elements.hint(cell, said)
            text("span", "—").props('aria-hidden="true"')
            text("span", said, "lz-heard")

    def _pager(self, question: ListQuestion, page: ResourcePage) -> None:
        begin = replace(question, after=None, before=None)
        first = self._start(question, page)
        with ui.element("nav").classes("lz-line lz-pager").props('aria-label="Pages of the list"'):
            if page.preceding is not None:
                self._link("First page", begin, "first", focus="results")
                previous = replace(begin, before=page.preceding)
                self._link("Previous page", previous, "previous", focus="results")
                if first is not None:
                    self._starts[previous] = max(0, first - ROWS)
            if page.following is not None:
                following = replace(begin, after=page.following)
                self._link("Next page", following, "next", focus="results")
                if first is not None:
                    self._starts[following] = first + len(page.items)
            self._position = text("span", inventory_words.position(first, len(page.items), None), "lz-dim")

    def _start(self, question: ListQuestion, page: ResourcePage) -> int | None:
        """How many rows are before a page: known of the first one, and of those that one walks to from it."""
        return 0 if page.preceding is None else self._starts.get(question)

    def _place_of(self, question: ListQuestion, page: ResourcePage, total: int) -> str:
        first = self._start(question, page)
        if page.following is None and total >= len(page.items):
            first = total - len(page.items)
        return inventory_words.position(first, len(page.items), total)


class InstantControls:
    """A slider over what is known of the past, and a box for an exact instant. They stay while the list changes, so
    that the keyboard stays on them.

    Args:
        chose: is called with an instant, or ``None`` for now, and the key of what it was chosen with.
    """

    def __init__(
        self, first: datetime, clock: Clock, chose: Callable[[int | None, str], Coroutine[Any, Any, None]]
    ) -> None:
        self._first = first
        self._clock = clock
        self._chose = chose
        self._timeline = timeline = Timeline.over(first, clock())
        self._position: int | None = None
        with ui.element("div").classes("lz-instant"):
            text("span", "As of", "lz-dim")
            self._shown = text("span", "now", "lz-strong")
            self._slider = ui.element("input").classes("lz-slider")
            self._exact = ui.input().classes("lz-exact")
            self._exact.props('outlined dense maxlength=40 placeholder="2026-01-31 12:00:00 UTC" data-key=exact')
            self._exact.props('aria-label="Exact instant, in UTC"')
            self._exact.on("keydown.enter", self._entered)
            self._to_now = ui.button("Now", on_click=self._reset, color=None).props("flat dense no-caps")
        self._note = text("p", "", "lz-dim").props('role="status"')
        self._exact.props["aria-describedby"] = self._note.html_id
        self._slider.props(f"type=range min=0 max={timeline.count} step=1 data-key={SLIDER}")
        self._slider.props["aria-label"] = (
            f"Instant: from {_moment(timeline.at(0))} until now, in steps of {words.span(timeline.step)}"
        )
        self._slider.on("input", self._slid, js_handler=_slides(timeline, self._shown.html_id))

    def show(self, question: ListQuestion) -> None:
        """Show the instant of a question."""
        as_of_ns = question.as_of_ns
        self._place(self._timeline.position(as_of_ns), _moment(as_of_ns))
        elements.put(self._shown, _moment(as_of_ns))
        self._exact.set_value("" if as_of_ns is None else format_ns(as_of_ns))
        self._exact.props(remove="aria-invalid")
        self._to_now.classes(**{"add" if as_of_ns is None else "remove": "lz-away"})
        known = f"Known since {instant(self._first)}; a step is {words.span(self._timeline.step)}."
        elements.put(self._note, known if as_of_ns is None else f"The state at {_moment(as_of_ns)}. {known}")

    def _place(self, position: int, said: str) -> None:
        """Put the slider where it is not yet. Where it was moved to, it may have been moved on from by now."""
        if self._position is None:
            # The browser takes the attributes when it makes the slider; what is set later would undo moving it.
            self._slider.props["^value"] = str(position)
            self._slider.props["^aria-valuetext"] = said
        elif position != self._position:
            self._slider.client.run_javascript(_placed(self._slider.html_id, position, said))
        self._position = position

    async def _slid(self, event: GenericEventArguments) -> None:
        """The slider was moved, and rests."""
        if isinstance(event.args, int | float):
            self._position = int(event.args)
            await self._chose(self._timeline.at(self._position), SLIDER)

    async def _entered(self) -> None:
        said = str(self._exact.value or "").strip()
        notes: list[str] = []
        as_of_ns = asked.instant(said or None, self._clock(), "as of", notes)
        if notes:
            elements.put(self._note, notes[0])
            self._exact.props("aria-invalid=true")
        else:
            await self._chose(as_of_ns, "exact")

    async def _reset(self) -> None:
        await self._chose(None, "results")


def _slides(timeline: Timeline, shown: str) -> str:
    """The script for a move of the slider: it says the instant at once, and tells the position when it rests."""
    first, step = to_ns(timeline.first) // 1_000_000, timeline.step // timedelta(milliseconds=1)
    return f"""(e) => {{
        const at = Number(e.target.value);
        const moment = Math.max({first}, (Math.floor({first} / {step}) + at) * {step});
        const text = new Date(moment).toISOString().slice(0, 19).replace("T", " ") + " UTC";
        const said = at >= {timeline.count} ? "now" : text;
        e.target.setAttribute("aria-valuetext", said);
        document.getElementById("{shown}").textContent = said;
        clearTimeout(e.target.resting);
        e.target.resting = setTimeout(() => emit(at), {_PAUSE});
    }}"""


def _placed(slider: str, position: int, said: str) -> str:
    """The script that puts the slider somewhere."""
    text_said = orjson.dumps(said).decode()
    return (
        f"{{const e = document.getElementById('{slider}'); clearTimeout(e.resting); e.value = {position};"
        f" e.setAttribute('aria-valuetext', {text_said})}}"
    )


def _moment(as_of_ns: int | None) -> str:
    return "now" if as_of_ns is None else instant(from_ns(as_of_ns))


def _focus(key: str) -> str:
    """The script that gives the focus to what has a key."""
    wanted = orjson.dumps(key).decode()
    found = f"[...document.querySelectorAll('[data-key]')].find(e => e.dataset.key === {wanted})"
    return f"{{const e = {found}; (e?.matches('a, input, [tabindex]') ? e : e?.querySelector('[tabindex]'))?.focus()}}"
