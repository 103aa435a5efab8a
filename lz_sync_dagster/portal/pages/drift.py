"""The Drift page: what became of each terraform block in the inventory, and resources that no block stands for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import orjson
import sqlalchemy as sa
from fastapi import Request
from nicegui import ui

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.portal.answers import layer_status
from lz_sync_dagster.portal.context import Portal, portal_of
from lz_sync_dagster.portal.drift_api import both_sides, counts_of, types_of
from lz_sync_dagster.portal.pages import asked, elements, git_layer, inventory_layer, inventory_words, reading, words
from lz_sync_dagster.portal.pages.asked import DRIFT_PAGE
from lz_sync_dagster.portal.pages.elements import Chip, Frame, link, section, text
from lz_sync_dagster.portal.pages.inventory_layer import Known
from lz_sync_dagster.portal.pages.resource import differences
from lz_sync_dagster.sync.drift.origin import created_by, note_of
from lz_sync_dagster.sync.models import Coverage, CoverageStatus, Status, SyncStatus
from lz_sync_dagster.sync.store import terraform_drift
from lz_sync_dagster.sync.store.coverage_views import Parts
from lz_sync_dagster.sync.store.terraform_drift import DriftStatus, ListedRow, Unmanaged

#: Rows of a page.
ROWS = 50
UNMANAGED = "unmanaged"

T = TypeVar("T")

_MEANINGS = {
    DriftStatus.CHANGED.value: "A block's resource exists, and differs from it.",
    DriftStatus.MISSING.value: "A block's resource does not exist, and its part was read completely.",
    DriftStatus.UNRESOLVED.value: "The files do not tell which resource a block is, or whether it is there.",
    DriftStatus.MATCHED.value: "A block's resource exists as the block says, as far as it is compared.",
    UNMANAGED: "An existing resource that no block was found to stand for.",
}


def register() -> None:
    """Register the page at its path."""
    ui.page(DRIFT_PAGE, title="LZ Sync · Drift", response_timeout=15.0)(_page)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked for. ``status``: one of `_MEANINGS`, ``None`` for all blocks; ``after``: where the list goes on,
    ``before``: where it ends."""

    status: str | None
    kind: str | None
    q: str | None
    after: tuple[Any, ...] | None
    before: tuple[Any, ...] | None = None

    def address(self, **other: str | None) -> str:
        """The address of this question with other parameters, from the beginning."""
        return asked.drift_address(**{"status": self.status, "type": self.kind, "q": self.q, **other})


@dataclass(frozen=True, slots=True)
class Found:
    """What the store says.

    Attributes:
        git: the state of the layer that reads the files.
        known: the inventory of the types that are asked for.
        counts: by status, ``None`` if terraform was never compared; of a status, ``None`` if it is not known.
    """

    now: datetime
    git: SyncStatus
    known: Known
    as_of: datetime | None
    source: str
    coverage: Coverage
    counts: dict[str, int | None] | None
    rows: list[ListedRow]
    unmanaged: list[Unmanaged]
    unresolved: dict[str, int]

    def said(self, status: str) -> str:
        """How many have a status."""
        number = None if self.counts is None else self.counts[status]
        return inventory_words.block_count(
            status, number, files_whole=self.files_whole, resources_whole=not self.known.gaps
        )

    @property
    def said_of_all(self) -> str:
        """How many blocks there are."""
        blocks = sum(number or 0 for status, number in (self.counts or {}).items() if status != UNMANAGED)
        return inventory_words.counted(blocks, whole=self.files_whole)

    @property
    def files_whole(self) -> bool:
        """Whether all files were read."""
        return self.git.as_of is not None and self.git.coverage.status is CoverageStatus.COMPLETE


def question_of(values: dict[str, str]) -> tuple[Question, list[str]]:
    """What the parameters of an address ask for, and what of them is not understood, a sentence each."""
    notes = [f"The value of “{name[:40]}” is no text to look for, and is left out." for name in _unfit(values)]
    values = {name: value[:1_024] for name, value in values.items() if value and "\0" not in value}
    said, status = values.get("status"), None
    if said in _MEANINGS:
        status = said
    elif said is not None:
        notes.append(f"“status” is one of {', '.join(_MEANINGS)}; all blocks are shown.")
    kinds = (str, str) if status == UNMANAGED else (str, int, str, int)
    after = _place(values.get("after"), kinds)
    before = None if after else _place(values.get("before"), kinds)
    if after is None and before is None and values.keys() & {"after", "before"}:
        notes.append("The address names no place in this list; it is shown from its beginning.")
    return Question(status, values.get("type"), values.get("q"), after, before), notes


def _unfit(values: dict[str, str]) -> list[str]:
    return [name for name, value in values.items() if "\0" in value]


def _place(said: str | None, kinds: tuple[type, ...]) -> tuple[Any, ...] | None:
    try:
        found = orjson.loads(said or "")
    except ValueError:
        return None
    fits = isinstance(found, list) and len(found) == len(kinds)
    if not fits or not all(type(part) is kind for part, kind in zip(found, kinds, strict=True)):
        return None
    return None if any(isinstance(part, str) and "\0" in part for part in found) else tuple(found)


def read(connection: sa.Connection, now: datetime, *, portal: Portal, question: Question) -> Found:
    """A page of blocks, or of resources without one, and the counts of all."""
    base, is_compared, sides = both_sides(connection, portal)
    types = types_of(question.kind)
    parts = Parts(asset_types=tuple(sorted(types)) or (question.kind or "",), content_types=("RESOURCE",))
    known = inventory_layer.known(connection, portal, now, parts)
    git = layer_status(connection, portal, LayerId.GIT, now)
    shared = (now, git, known, base["as_of"], base["source"], base["coverage"])
    if not is_compared:
        return Found(*shared, None, [], [], {})
    counts = counts_of(connection, sides, kind=question.kind, words=question.q)
    limit: int = ROWS + 1
    place: dict[str, Any] = {"after": question.after, "before": question.before}
    if question.status == UNMANAGED:
        unmanaged = terraform_drift.unmanaged(connection, types, limit=limit, words=question.q, **place)
        return Found(*shared, counts, [], unmanaged, terraform_drift.unresolved_by_type(connection))
    statuses = () if question.status is None else (DriftStatus(question.status),)
    rows = terraform_drift.listed(
        connection, limit=limit, statuses=statuses, kind=question.kind, words=question.q, **place
    )
    return Found(*shared, counts, rows, [], {})


async def _page(request: Request) -> None:
    portal = portal_of(request)
    question, notes = question_of(dict(request.query_params.items()))
    with elements.frame(portal, DRIFT_PAGE) as frame:
        box = ui.element("div").classes("lz-stack")
    found = await reading.for_page(portal, frame, partial(read, portal=portal, question=question))
    if found is not None:
        _announce(frame, found)
        with box:
            DriftView(portal, question, found, notes)


def _announce(frame: Frame, found: Found) -> None:
    """Say in the banner what is wrong with either layer."""
    git = words.git_notice(found.git, found.now)
    inventory = inventory_words.inventory_notice(found.known.status, found.now)
    said = " ".join(notice for notice in (git, inventory) if notice)
    frame.warn(said or None, mild=inventory is None and found.git.status is Status.PARTIAL)


class DriftView:
    """The whole page, of one reading."""

    def __init__(self, portal: Portal, question: Question, found: Found, notes: list[str]) -> None:
        self._portal = portal
        self._question = question
        self._found = found
        with section("Terraform and the inventory"):
            inventory_layer.notes(notes)
            self._search()
            self._provenance()
            if found.counts is None:
                text("p", "Not known: terraform was not compared with the inventory yet.", "lz-empty")
                return
            self._tally()
            if types_of(question.kind):
                inventory_layer.missing(found.known)
        title = inventory_words.terraform_sign(question.status).word if question.status else "All blocks"
        with section(title, headed=False):
            text("h2", title).props('tabindex="-1" data-key=results')
            if question.status:
                text("p", _MEANINGS[question.status], "lz-dim")
            if question.status == UNMANAGED:
                self._unmanaged()
            else:
                self._blocks()

    def _search(self) -> None:
        box = ui.input(value=self._question.q or "", placeholder="Search addresses, files, resources")
        box.props('outlined dense clearable type=search maxlength=1024 aria-label="Search terraform blocks"').classes(
            "lz-search"
        )
        box.on("keydown.enter", lambda: self._look_for(str(box.value or "").strip() or None))
        box.on("clear", lambda: self._look_for(None))
        text("p", "Press Enter to search.", "lz-dim lz-below-search")

    def _look_for(self, words_said: str | None) -> None:
        """Go to what has these words, and with the keyboard to its heading."""
        ui.navigate.to(f"{self._question.address(q=words_said)}#results")

    def _provenance(self) -> None:
        found = self._found
        with ui.element("div").classes("lz-line lz-provenance"):
            elements.layer_state("Git sync", words.STATUS_SIGNS[found.git.status])
            elements.layer_state("API sync", words.STATUS_SIGNS[found.known.status.status])
            elements.as_of(found.as_of, found.now)
            text("span", f"from {found.source.replace('_', ' ')}")
            said = f"coverage {words.COVERAGE_SIGNS[found.coverage.status].word.lower()}"
            link(f"{said}: {words.share_read(found.coverage)}", asked.COVERAGE_PAGE)

    def _tally(self) -> None:
        question, found = self._question, self._found
        with ui.element("ul").classes("lz-line lz-tally").props('aria-label="Blocks by what became of them"'):
            with ui.element("li"):
                said = f"All blocks: {found.said_of_all}"
                self._chosen(link(said, question.address(status=None)), question.status is None)
            for status in _MEANINGS:
                with ui.element("li").classes("lz-line"):
                    Chip(inventory_words.terraform_sign(status))
                    said = found.said(status)
                    element = link(said, question.address(status=status))
                    element.props["aria-label"] = f"{said} {status}"
                    self._chosen(element, question.status == status)
        self._active()

    def _active(self) -> None:
        """The filters that hold, each with a way to be without it."""
        question = self._question
        active = []
        if question.kind:
            active.append((f"Type: {question.kind}", "type", question.address(type=None)))
        if question.q:
            active.append((f"Has “{question.q}”", "text", question.address(q=None)))
        if not active:
            return
        with ui.element("ul").classes("lz-active").props('aria-label="Filters that hold"'):
            for said, what, without in active:
                with ui.element("li"):
                    text("span", said)
                    link("×", without).props["aria-label"] = f"Without the filter by {what}"

    @staticmethod
    def _chosen(element: ui.element, is_chosen: bool) -> None:
        if is_chosen:
            element.classes("lz-chosen").props["aria-current"] = "true"

    def _nothing(self) -> None:
        status = self._question.status
        said = self._found.said(status) if status else self._found.said_of_all
        if said == words.UNKNOWN:
            text("p", "Not known: not everything that this is about was read, so there may be some.", "lz-empty")
        elif self._question.q or self._question.kind or self._question.after or self._question.before:
            text("p", "Nothing fits what is asked for.", "lz-empty")
        else:
            text("p", "There is none.", "lz-empty")

    def _blocks(self) -> None:
        rows = self._found.rows
        if not rows:
            self._nothing()
            return
        with elements.table("Terraform blocks", ("Block", "State", "Where", "Resource", "Note")):
            for listed in self._shown(rows):
                row = listed.row
                with ui.element("tr") as line:
                    line.props["data-address"] = row.address
                    with ui.element("th").props('scope="row"'):
                        text("span", row.address, "lz-strong lz-path")
                        with ui.element("div").classes("lz-dim"):
                            link(row.resource_type, self._question.address(type=row.resource_type))
                    with ui.element("td"):
                        Chip(inventory_words.terraform_sign(row.status.value))
                    with ui.element("td"):
                        git_layer.place(self._portal, row.path, row.line, row.commit_sha)
                        with ui.element("div").classes("lz-dim"):
                            text("span", "commit ")
                            git_layer.commit(self._portal, row.commit_sha)
                    with ui.element("td"):
                        if row.resource is None:
                            text("span", words.UNKNOWN if row.status is DriftStatus.UNRESOLVED else "none", "lz-dim")
                        else:
                            name = link(words.short(row.resource), asked.resource_address(row.resource), "lz-path")
                            elements.hint(name, row.resource)
                    with ui.element("td"):
                        if row.reason:
                            text("p", row.reason)
                        differences(row.differences)
        shown = self._shown(rows)
        self._pager(shown[0].place, shown[-1].place, has_more=len(rows) > ROWS)

    def _unmanaged(self) -> None:
        rows = self._found.unmanaged
        if not rows:
            self._nothing()
            return
        modules = self._found.unresolved.get("", 0)
        with elements.table("Resources without a block", ("Resource", "Type", "Project", "Location", "What is known")):
            for row in self._shown(rows):
                with ui.element("tr") as line:
                    line.props["data-name"] = row.name
                    with ui.element("th").props('scope="row"'):
                        title = row.display_name or words.short(row.name)
                        elements.hint(link(title, asked.resource_address(row.name), "lz-path"), row.name)
                        text("div", row.name.removeprefix("//"), "lz-dim lz-path")
                    with ui.element("td"):
                        kind = link(
                            inventory_words.type_name(row.asset_type), self._question.address(type=row.asset_type)
                        )
                        elements.hint(kind, row.asset_type)
                    text("td", row.project or inventory_words.NONE)
                    text("td", row.location or inventory_words.NONE)
                    made = created_by(row.asset_type, row.name, row.data)
                    note = note_of(self._found.unresolved.get(row.asset_type, 0), modules)
                    with ui.element("td"):
                        text("span", f"made by {made}" if made else note or "no block stands for it")
        first, last = self._shown(rows)[0], self._shown(rows)[-1]
        self._pager((first.asset_type, first.name), (last.asset_type, last.name), has_more=len(rows) > ROWS)

    def _shown(self, rows: list[T]) -> list[T]:
        """The rows of the page: one more was looked for, on the side to which the list was read."""
        return rows[-ROWS:] if self._question.before else rows[:ROWS]

    def _pager(self, first: tuple[Any, ...], last: tuple[Any, ...], *, has_more: bool) -> None:
        question = self._question
        has_previous = question.after is not None or (question.before is not None and has_more)
        has_next = question.before is not None or has_more
        if not has_previous and not has_next:
            return
        with ui.element("nav").classes("lz-line lz-pager").props('aria-label="Pages of the list"'):
            if has_previous:
                link("First page", question.address())
                link("Previous page", question.address(before=orjson.dumps(first).decode()))
            if has_next:
                link("Next page", question.address(after=orjson.dumps(last).decode()))
