"""The Coverage page: what is known of each scope × type × content, what is missing and why, and how it is read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import sqlalchemy as sa
from fastapi import Request
from nicegui import ui

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.portal.answers import layer_status
from lz_sync_dagster.portal.context import Portal, portal_of
from lz_sync_dagster.portal.drift_api import both_sides, counts_of, types_of
from lz_sync_dagster.portal.pages import asked, elements, inventory_layer, inventory_words, reading, words
from lz_sync_dagster.portal.pages.asked import COVERAGE_PAGE, ListQuestion
from lz_sync_dagster.portal.pages.elements import Chip, instant, link, section, text
from lz_sync_dagster.portal.pages.inventory_layer import Known
from lz_sync_dagster.portal.pages.inventory_words import MatrixRow
from lz_sync_dagster.sync.inventory.forecast import Forecast, forecast
from lz_sync_dagster.sync.models import CoverageStatus, SyncStatus
from lz_sync_dagster.sync.store import breakers, coverage_views, feed_freshness
from lz_sync_dagster.sync.store.breakers import OpenBreaker
from lz_sync_dagster.sync.store.coverage_views import LedgerRow, Parts, Span
from lz_sync_dagster.sync.store.feed_freshness import TypeFreshness
from lz_sync_dagster.sync.store.layer_runs import CACHE_TTL
from lz_sync_dagster.sync.store.resource_views import ResourceFilter
from lz_sync_dagster.sync.timing import from_ns

Part = tuple[str, str, str]

#: Rows of a scope, spans of a history, types of the feed, names of what vanished that are shown.
ROWS, SPANS, TYPES, LOST = 400, 50, 12, 10
#: The window of the feed's freshness.
WINDOW = timedelta(hours=24)


def register() -> None:
    """Register the page at its path."""
    ui.page(COVERAGE_PAGE, title="LZ Sync · Coverage", response_timeout=15.0)(_page)


@dataclass(frozen=True, slots=True)
class Panels:
    """How the inventory is read, and what waits. ``drift``: how many blocks have each status; ``None`` if terraform
    was never compared."""

    forecast: Forecast
    breakers: list[tuple[OpenBreaker, list[str]]]
    feed: SyncStatus
    freshness: list[TypeFreshness]
    drift: dict[str, str] | None


@dataclass(frozen=True, slots=True)
class Found:
    """``assets``: how many of each part are kept now; ``None`` if the question is about the past."""

    known: Known
    assets: dict[Part, int] | None
    panels: Panels | None
    spans: list[Span]


def read(
    connection: sa.Connection,
    now: datetime,
    *,
    portal: Portal,
    part: Part | None,
    as_of_ns: int | None,
    before: int | None,
) -> Found:
    """The ledger, and with it the panels, or the history of a part."""
    only = Parts() if part is None else Parts((part[0],), (part[1],), (part[2],))
    return Found(
        inventory_layer.known(connection, portal, now, only, as_of_ns),
        None if as_of_ns is not None else coverage_views.known_assets(connection, only),
        _panels(connection, portal, now) if part is None and as_of_ns is None else None,
        []
        if part is None
        else coverage_views.history(connection, now=now, ttl=CACHE_TTL, limit=SPANS + 1, before=before, only=only),
    )


def _panels(connection: sa.Connection, portal: Portal, now: datetime) -> Panels:
    opened = breakers.open_breakers(connection)
    return Panels(
        forecast(connection, portal.settings.sync_layers.api_sync, now=now),
        [(item, breakers.losses(connection, item.part, limit=LOST)) for item in opened],
        layer_status(connection, portal, LayerId.PUBSUB, now),
        feed_freshness.over(connection, since=now - WINDOW),
        _blocks(connection, portal, now),
    )


def _blocks(connection: sa.Connection, portal: Portal, now: datetime) -> dict[str, str] | None:
    _, compared, sides = both_sides(connection, portal)
    if not compared:
        return None
    whole = sides.has(types_of(None))
    counts = counts_of(connection, sides)
    git = layer_status(connection, portal, LayerId.GIT, now)
    files_whole = git.as_of is not None and git.coverage.status is CoverageStatus.COMPLETE
    return {
        status: inventory_words.block_count(status, number, files_whole=files_whole, resources_whole=whole)
        for status, number in counts.items()
    }


async def _page(request: Request) -> None:
    portal = portal_of(request)
    values = {name: value for name, value in request.query_params.items() if "\0" not in value}
    notes: list[str] = []
    as_of_ns = asked.instant(values.get("as_of"), portal.clock(), "as_of", notes)
    names = tuple(values.get(name) or "" for name in ("scope", "type", "content_type"))
    part = (names[0], names[1], names[2]) if all(names) else None
    with elements.frame(portal, COVERAGE_PAGE) as frame:
        box = ui.element("div").classes("lz-stack")
    what = partial(read, portal=portal, part=part, as_of_ns=as_of_ns, before=_number(values.get("before")))
    found = await reading.for_page(portal, frame, what)
    if found is None:
        return
    inventory_layer.announce(frame, found.known)
    with box:
        if part is None:
            CoverageView(found, notes, problems=values.get("status") == "problems")
        else:
            PartView(part, found, notes)


def _number(said: str | None) -> int | None:
    return int(said) if said is not None and said.isascii() and said.isdigit() and len(said) < 19 else None


class CoverageView:
    """The matrix, and the panels."""

    def __init__(self, found: Found, notes: list[str], *, problems: bool) -> None:
        self._found = found
        self._known = found.known
        self._problems = problems
        with section("Coverage"):
            inventory_layer.notes(notes)
            inventory_layer.provenance(found.known)
            at = found.known.as_of_ns
            if at is not None:
                with ui.element("p").classes("lz-note"):
                    text("span", f"What was known at {instant(from_ns(at))}. ")
                    link("What is known now", asked.coverage_address())
            self._figures()
        if found.panels is not None:
            self._breakers(found.panels.breakers)
        self._matrix()
        if found.panels is not None:
            with ui.element("div").classes("lz-halves"):
                self._quota(found.panels.forecast)
                self._drift(found.panels.drift)
            self._feed(found.panels)

    def _figures(self) -> None:
        rows = self._known.rows
        if not rows:
            text("p", "Nothing was read yet: what exists is not known.", "lz-empty")
            return
        with ui.element("ul").classes("lz-line lz-tally").props('aria-label="Parts by what is known of them"'):
            for status in CoverageStatus:
                with ui.element("li").classes("lz-line"):
                    Chip(words.COVERAGE_SIGNS[status])
                    text("span", f"{sum(row.status is status for row in rows):,}", "lz-strong")
            with ui.element("li"):
                at = self._known.as_of_ns
                if self._problems:
                    link("All parts", asked.coverage_address(as_of_ns=at))
                elif self._known.gaps:
                    link("Problems only", asked.coverage_address(as_of_ns=at, problems=True))

    def _matrix(self) -> None:
        rows = self._known.gaps if self._problems else self._known.rows
        if self._problems and not rows and self._known.rows:
            with section("Problems"):
                text("p", "There is none: every part was read completely.", "lz-empty")
        for scope, contents, kinds in inventory_words.matrix(rows):
            with section(scope):
                where = ListQuestion(ResourceFilter(scopes=(scope,)), as_of_ns=self._known.as_of_ns)
                link("Its resources", asked.list_address(where)).props["aria-label"] = f"Resources of {scope}"
                titles = tuple(inventory_words.CONTENTS.get(content, content) for content in contents)
                with elements.table(f"Coverage of {scope}", ("Type", *titles)):
                    for kind in kinds[:ROWS]:
                        self._row(kind, contents)
                if len(kinds) > ROWS:
                    text("p", f"and {len(kinds) - ROWS:,} more types: see /api/v1/coverage/matrix", "lz-dim")

    def _row(self, kind: MatrixRow, contents: tuple[str, ...]) -> None:
        with ui.element("tr") as line:
            line.props["data-type"] = kind.asset_type
            with ui.element("th").props('scope="row"'):
                text("span", inventory_words.type_name(kind.asset_type), "lz-strong")
                text("div", kind.asset_type, "lz-dim lz-path")
            for content in contents:
                with ui.element("td"):
                    row = kind.cells.get(content)
                    if row is None:
                        text("span", "not configured" if not self._problems else "no problem", "lz-dim")
                    else:
                        self._cell(row)

    def _cell(self, row: LedgerRow) -> None:
        assets = self._found.assets
        with ui.element("div").classes("lz-line"):
            Chip(words.COVERAGE_SIGNS[row.status])
            count = inventory_words.part_count(row, None if assets is None else assets.get(row.part, 0))
            if assets is not None:
                where = ResourceFilter(
                    content_type=row.content_type, asset_types=(row.asset_type,), scopes=(row.scope,)
                )
                link(count, asked.list_address(ListQuestion(where)))
        with ui.element("div").classes("lz-line lz-dim"):
            _age(row, self._known)
            history = link("history", asked.coverage_address(part=row.part, as_of_ns=self._known.as_of_ns))
            history.props["aria-label"] = f"History of {row.asset_type} {row.content_type} in {row.scope}"
        if row.status is not CoverageStatus.COMPLETE:
            with ui.element("details").classes("lz-why").props("open" if self._problems else ""):
                text("summary", "Why, and what to do")
                _explain(row)

    # --- panels ---

    @staticmethod
    def _breakers(opened: list[tuple[OpenBreaker, list[str]]]) -> None:
        with section("Deletions that wait for a person") as box:
            if not opened:
                text("p", "No deletion waits.", "lz-empty")
        with box, ui.element("ul").classes("lz-errors"):
            for item, names in opened:
                with ui.element("li"):
                    scope, asset_type, content_type = item.part
                    said = f"{item.lost:,} of {item.known:,} {asset_type} ({content_type}) in {scope}"
                    text("p", f"{said} vanished at once. Nothing was deleted.", "lz-strong")
                    since = f"since {instant(item.opened_at)}; the read of {instant(from_ns(item.read_ns))} lacks them"
                    text("p", since, "lz-dim")
                    with ui.element("details"):
                        text("summary", "What vanished")
                        with ui.element("ul").classes("lz-relations"):
                            for name in names:
                                with ui.element("li"):
                                    link(name, asked.resource_address(name), "lz-path")
                        if item.lost > len(names):
                            text("p", f"and {item.lost - len(names):,} more: see /api/v1/breakers/losses", "lz-dim")
                    command = breakers.command_of(item.part)
                    text(
                        "p", f"Remedy: check whether the reader lost access; else confirm with {command}.", "lz-remedy"
                    )

    def _quota(self, found: Forecast) -> None:
        with section("Quota"):
            at = instant(self._known.now)
            text("p", f"Counted by this installation at {at}; calls of others are not known.", "lz-dim")
            with elements.table("Quota", ("Quota", "Used", "Left", "Next sync", "Last 24 h")):
                for usage in found.quotas.values():
                    with ui.element("tr"):
                        text("th", usage.quota.value.replace("_", " ")).props('scope="row"')
                        with ui.element("td"):
                            text("span", f"{usage.used:,} of {usage.limit:,} a minute")
                            if usage.limit < usage.configured:
                                text("div", f"lowered from {usage.configured:,}", "lz-dim")
                        with ui.element("td"):
                            text("span", f"{usage.left:,}")
                            if usage.blocked_until is not None:
                                text("div", f"nobody calls before {instant(usage.blocked_until)}", "lz-dim")
                        calls = None if found.plan is None else found.plan.calls.get(usage.quota, 0)
                        text("td", words.UNKNOWN if calls is None else inventory_words.many(calls, "call"))
                        text("td", f"{usage.calls_per_day:,}")
            plan = found.plan
            if plan is None:
                text("p", "No scope is configured, so no sync is planned.", "lz-dim")
                return
            by_delta = sum(len(delta.parts) for delta in plan.deltas)
            said = (
                f"The next sync reads {inventory_words.many(len(plan.full), 'part')} in full and {by_delta:,} by delta"
            )
            text("p", f"{said}; {len(plan.skipped):,} are skipped.")
            if not plan.proof_age_attainable:
                rotation = words.span(timedelta(minutes=plan.rotation_minutes))
                text(
                    "p", f"The quota allows to prove each part once in {rotation}, which is less often than configured."
                )

    @staticmethod
    def _drift(counts: dict[str, str] | None) -> None:
        with section("Terraform"):
            if counts is None:
                text("p", "Terraform was not compared with the inventory yet.", "lz-empty")
            else:
                with ui.element("ul").classes("lz-line lz-tally").props('aria-label="Terraform blocks"'):
                    for status, said in counts.items():
                        with ui.element("li").classes("lz-line"):
                            Chip(inventory_words.terraform_sign(status))
                            element = link(said, asked.drift_address(status=status))
                            element.props["aria-label"] = f"{said} {status}"
            link("Terraform and the inventory", asked.DRIFT_PAGE)

    def _feed(self, panels: Panels) -> None:
        with section("Freshness of the asset feed"):
            feed = panels.feed
            with ui.element("div").classes("lz-line lz-provenance"):
                Chip(words.STATUS_SIGNS[feed.status])
                elements.as_of(feed.as_of, self._known.now)
                text("span", f"from {feed.source.replace('_', ' ')}")
                text("span", "observed through the last 24 hours")
            if not panels.freshness:
                text("p", "Not known: the feed told nothing in this time.", "lz-empty")
                return
            ordered = sorted(panels.freshness, key=lambda kind: (-kind.missed, -kind.delivered, kind.asset_type))
            columns = ("Type", "Told", "Last told", "Missed, at least", "Source's delay", "Our delay")
            with elements.table("Freshness of the asset feed", columns):
                for kind in ordered[:TYPES]:
                    with ui.element("tr"):
                        name = text("th", inventory_words.type_name(kind.asset_type)).props('scope="row"')
                        elements.hint(name, kind.asset_type)
                        text("td", f"{kind.delivered:,}")
                        text("td", inventory_words.hour(kind.last_delivered))
                        text("td", inventory_words.missed(kind))
                        text("td", inventory_words.delay(kind.source_delays))
                        text("td", inventory_words.delay(kind.own_delays))
            if len(ordered) > TYPES:
                text("p", f"and {len(ordered) - TYPES:,} more types: see /api/v1/feed-freshness", "lz-dim")
            text(
                "p",
                "Of a type that is not listed the feed told nothing: it has no feed, or nothing happened.",
                "lz-dim",
            )


def _age(row: LedgerRow, known: Known) -> None:
    """How old the newest complete read of a part is; an age now goes on."""
    if row.complete_read_ns is None or known.as_of_ns is not None:
        elements.hint(text("span", inventory_words.part_age(row, known.instant)), inventory_words.read_at(row))
        return
    with text("span", "complete "):
        elements.age(from_ns(row.complete_read_ns), known.now)


def _explain(row: LedgerRow) -> None:
    text("p", f"{inventory_words.why(row)} Since {instant(row.since)}.")
    text(
        "p", f"Last tried {instant(row.checked_at)}." if row.checked_at else "When it was tried is not known.", "lz-dim"
    )
    inventory_layer.remedy("p", row)


class PartView:
    """One part: what is known of it now, and what was before."""

    def __init__(self, part: Part, found: Found, notes: list[str]) -> None:
        scope, asset_type, content_type = part
        now = found.known.now
        with section(f"{inventory_words.type_name(asset_type)} in {scope}"):
            inventory_layer.notes(notes)
            with ui.element("p").classes("lz-line"):
                link("Coverage", asked.coverage_address(as_of_ns=found.known.as_of_ns))
                text("span", "/").props('aria-hidden="true"')
                text("span", f"{asset_type} ({content_type})", "lz-path")
            inventory_layer.provenance(found.known)
            if not found.known.rows:
                text("p", "Nothing of this part was ever read, or it is not configured.", "lz-empty")
            for row in found.known.rows:
                known = None if found.assets is None else found.assets.get(part, 0)
                with ui.element("p").classes("lz-line"):
                    Chip(words.COVERAGE_SIGNS[row.status])
                    _age(row, found.known)
                    text("span", inventory_words.part_count(row, known))
                    where = ResourceFilter(content_type=content_type, asset_types=(asset_type,), scopes=(scope,))
                    link("Its resources", asked.list_address(ListQuestion(where, as_of_ns=found.known.as_of_ns)))
                if row.status is not CoverageStatus.COMPLETE:
                    _explain(row)
        with section("History of the part"):
            if not found.spans:
                text("p", "No history is kept.", "lz-empty")
            with ui.element("ol").classes("lz-history"):
                for span in found.spans[:SPANS]:
                    self._span(span, now)
            if len(found.spans) > SPANS:
                before = found.spans[SPANS - 1].id
                link("Older", asked.coverage_address(part=part, before=before, as_of_ns=found.known.as_of_ns))

    @staticmethod
    def _span(span: Span, now: datetime) -> None:
        with ui.element("li"):
            Chip(words.COVERAGE_SIGNS[span.status])
            with ui.element("div").classes("lz-what"):
                until = "now" if span.until is None else instant(span.until)
                text("p", f"{instant(span.since)} until {until}")
                said = inventory_words.because(span.reason, span.detail)
                if said:
                    text("p", said)
            text("span", words.span((span.until or now) - span.since), "lz-dim lz-nowrap")
