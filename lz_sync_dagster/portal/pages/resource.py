"""The page of one resource: what it says, its past with differences, findings, place, relations, terraform, cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import sqlalchemy as sa
from fastapi import Request
from nicegui import ui

from lz_sync_dagster.portal.context import Portal, portal_of
from lz_sync_dagster.portal.pages import asked, elements, git_layer, inventory_layer, inventory_words, reading, words
from lz_sync_dagster.portal.pages.asked import INFRASTRUCTURE_PAGE, ListQuestion
from lz_sync_dagster.portal.pages.elements import Chip, instant, link, section, text
from lz_sync_dagster.portal.pages.inventory_layer import Known
from lz_sync_dagster.sync.drift.mapping import ASSET_TYPES
from lz_sync_dagster.sync.drift.origin import note_of
from lz_sync_dagster.sync.inventory.typed_views import iam_bindings, typed_view
from lz_sync_dagster.sync.state.json_diff import FieldChange
from lz_sync_dagster.sync.state.redaction import REDACTED
from lz_sync_dagster.sync.store import repository_views, resource_history, terraform_drift
from lz_sync_dagster.sync.store.coverage_views import Parts
from lz_sync_dagster.sync.store.resource_details import (
    NO_COST,
    SHOWN,
    FindingEntry,
    HeldContent,
    ResourceDetails,
    TerraformAddress,
    evaluated,
    known_parts,
    resource_details,
)
from lz_sync_dagster.sync.store.resource_history import Version
from lz_sync_dagster.sync.store.resource_views import ResourceFilter, ResourceRow
from lz_sync_dagster.sync.timing import from_ns

#: Versions, fields of a version, nodes of a tree and characters of a value that are shown at first.
VERSIONS, FIELDS, NODES, CHARACTERS = 10, 12, 1_500, 400
#: Rows of IAM bindings that are shown.
BINDINGS = 200

#: Fields of a typed view that the head of the page has already.
_IN_THE_HEAD = frozenset({"name", "display_name", "project", "kind"})


def register() -> None:
    """Register the page at its path."""
    ui.page(asked.RESOURCE_PAGE, title="LZ Sync · Resource", response_timeout=15.0)(_page)


@dataclass(frozen=True, slots=True)
class Compared:
    """How far terraform was compared. ``at``: when, ``None`` for never; ``head``: the landing zone's commit now;
    ``unresolved``: blocks that may stand for one of the type; ``modules``: calls of which it is not known what they
    make."""

    at: datetime | None
    head: str | None
    unresolved: int
    modules: int


@dataclass(frozen=True, slots=True)
class Found:
    """One resource, and what was known when it was read. ``details`` is ``None`` if it is not known at the instant;
    ``elsewhen``: it is at another one; ``evaluated``: the version that the controls judged, and when."""

    known: Known
    details: ResourceDetails | None
    elsewhen: bool
    versions: dict[str, list[Version]]
    compared: Compared
    evaluated: tuple[int, datetime] | None


def read(connection: sa.Connection, now: datetime, *, portal: Portal, name: str, as_of_ns: int | None) -> Found:
    """A resource as it is, or was."""
    details = resource_details(connection, name, as_of_ns=as_of_ns)
    if details is None:
        parts = known_parts(connection, name)
        own = Parts(*(tuple(sorted(set(values))) for values in zip(*parts, strict=True)))
        state = inventory_layer.known(connection, portal, now, own, as_of_ns)
        return Found(state, None, bool(parts), {}, Compared(None, None, 0, 0), None)
    contents = tuple(item.row.content_type for item in details.contents)
    only = Parts((details.row.scope,), (details.row.asset_type,), contents)
    unresolved = terraform_drift.unresolved_by_type(connection)
    compare = terraform_drift.compared(connection)
    return Found(
        inventory_layer.known(connection, portal, now, only, as_of_ns),
        details,
        True,
        {
            item.row.content_type: resource_history.versions(
                connection,
                name,
                item.row.content_type,
                limit=resource_history.VERSIONS + 1,
                before=None if as_of_ns is None else item.row.version + 1,
            )
            for item in details.contents
        },
        Compared(
            None if compare is None else compare.compared_at,
            repository_views.head(connection),
            unresolved.get(details.row.asset_type, 0),
            unresolved.get("", 0),
        ),
        evaluated(connection, name),
    )


async def _page(request: Request, name: str = "", as_of: str | None = None) -> None:
    portal = portal_of(request)
    notes: list[str] = []
    as_of_ns = asked.instant(as_of, portal.clock(), "as_of", notes)
    name = "" if "\0" in name else name
    with elements.frame(portal, INFRASTRUCTURE_PAGE) as frame:
        box = ui.element("div").classes("lz-stack")
    found = await reading.for_page(portal, frame, partial(read, portal=portal, name=name, as_of_ns=as_of_ns))
    if found is None:
        return
    inventory_layer.announce(frame, found.known)
    with box:
        if found.details is None:
            _nothing(name, found, notes)
        else:
            ui.page_title(f"{_title(found.details.row)} · LZ Sync")
            ResourceView(portal, found, found.details, notes)


def _nothing(name: str, found: Found, notes: list[str]) -> None:
    with section("The resource is not known" if not found.elsewhen else "The resource was not known then"):
        inventory_layer.notes(notes)
        text("p", name or "No name is given.", "lz-path")
        inventory_layer.provenance(found.known)
        if found.elsewhen:
            text("p", "It was not known to be there at this instant.")
            link("As it is now, or was last", asked.resource_address(name))
        else:
            text("p", "No resource of this name was ever read, or it is past its retention.")
        inventory_layer.missing(found.known)
        with ui.element("p"):
            link("All resources", INFRASTRUCTURE_PAGE)


def _title(row: ResourceRow) -> str:
    return row.display_name or words.short(row.name)


class ResourceView:
    """The whole page, of one reading."""

    def __init__(self, portal: Portal, found: Found, details: ResourceDetails, notes: list[str]) -> None:
        self._portal = portal
        self._known = found.known
        self._now = found.known.now
        self._details = details
        self._row = details.row
        self._as_of_ns = found.known.as_of_ns
        self._then = self._now if self._as_of_ns is None else from_ns(self._as_of_ns)
        self._head(notes)
        with ui.element("div").classes("lz-columns"):
            with ui.element("div").classes("lz-stack"):
                self._view()
                for item in details.contents:
                    self._content(item)
                for content_type, versions in found.versions.items():
                    self._history(content_type, versions)
            with ui.element("div").classes("lz-stack"):
                self._findings(details.findings, found.evaluated)
                self._terraform(found.compared)
                self._outgoing()
                self._incoming()
                self._children()
                self._cost()

    # --- head ---

    def _head(self, notes: list[str]) -> None:
        row = self._row
        with section(_title(row)):
            inventory_layer.notes(notes)
            self._where()
            with ui.element("p").classes("lz-line"):
                Chip(inventory_words.DELETED if row.deleted else inventory_words.EXISTS)
                text("span", row.name, "lz-path")
            if self._as_of_ns is not None:
                with ui.element("p").classes("lz-note"):
                    text("span", f"As it was at {instant(from_ns(self._as_of_ns))}. ")
                    link("As it is now", asked.resource_address(row.name))
                    text("span", ". Findings, relations, children and terraform are those of now.")
            inventory_layer.provenance(self._known)
            inventory_layer.missing(self._known)
            with ui.element("dl").classes("lz-pairs"):
                self._pair("Type", row.asset_type, ResourceFilter(asset_types=(row.asset_type,)))
                self._pair("Project", row.project, ResourceFilter(projects=(row.project or "",)))
                self._pair("Location", row.location, ResourceFilter(locations=(row.location or "",)))
                self._pair("Scope", row.scope, ResourceFilter(scopes=(row.scope,)))
                self._pair("Id", row.resource_id)
                since = from_ns(row.valid_from_ns)
                before = "" if self._as_of_ns is None else " then"
                self._pair("As it is since", f"{instant(since)} ({words.ago(since, self._then)}{before})")
                if row.valid_to_ns is not None:
                    self._pair("Until", instant(from_ns(row.valid_to_ns)))
                self._pair("Version", f"{row.version:,}")
                self._pair("Told by", row.source)
                self._pair("Told at", instant(from_ns(row.observed_ns)))

    def _pair(self, name: str, content: str | None, where: ResourceFilter | None = None) -> None:
        with ui.element("div"):
            text("dt", name)
            with ui.element("dd"):
                if content is None:
                    text("span", inventory_words.NONE, "lz-dim")
                elif where is None:
                    text("span", content, "lz-path")
                else:
                    link(content, asked.list_address(ListQuestion(where, as_of_ns=self._as_of_ns)), "lz-path")

    def _where(self) -> None:
        """The way down to it, as far as the hierarchy is known."""
        above = [item for item in self._details.ancestors if item.name != self._row.name]
        with ui.element("nav").props('aria-label="Where it is"'), ui.element("ol").classes("lz-line lz-crumbs"):
            with ui.element("li"):
                link("Infrastructure", asked.list_address(ListQuestion(as_of_ns=self._as_of_ns)))
            for item in reversed(above):
                with ui.element("li"):
                    if item.name is None:
                        text("span", item.ancestor)
                    else:
                        address = asked.resource_address(item.name, self._as_of_ns)
                        elements.hint(link(item.display_name or item.ancestor, address), item.ancestor)

    # --- what it says ---

    def _main(self) -> HeldContent | None:
        return next((item for item in self._details.contents if item.row.content_type == "RESOURCE"), None)

    def _view(self) -> None:
        main = self._main()
        if main is None or main.content is None:
            return
        _, view = typed_view(main.row, main.content.data)
        if view is None:
            return
        with section("At a glance"), ui.element("dl").classes("lz-glance"):
            for key, value in view.items():
                if key in _IN_THE_HEAD:
                    continue
                with ui.element("div"):
                    text("dt", inventory_words.field_name(key))
                    said = inventory_words.cell(value)
                    text("dd", said, "lz-path" if said != inventory_words.ABSENT else "lz-dim")

    def _content(self, item: HeldContent) -> None:
        name = inventory_words.CONTENTS.get(item.row.content_type, item.row.content_type)
        title = "Data" if item.row.content_type == "RESOURCE" else name
        with section(title):
            if item.content is None:
                self._no_content(item.row)
                return
            if item.row.content_type == "IAM_POLICY":
                self._bindings(item.row, item.content.data)
            count = len(item.content.redacted)
            if count:
                text("p", inventory_words.removed(count), "lz-dim")
            DataTree(item.content.data, frozenset(item.content.redacted))

    @staticmethod
    def _no_content(row: ResourceRow) -> None:
        if not row.deleted:
            text("p", "Its content is not known.", "lz-empty")
            return
        with ui.element("p").classes("lz-empty"):
            text("span", "It is gone; what it said last is in the history. ")
            if row.version > 1:
                link("As it was last", asked.resource_address(row.name, row.valid_from_ns - 1))

    @staticmethod
    def _bindings(row: ResourceRow, data: Mapping[str, Any]) -> None:
        bindings = list(iam_bindings(row, data))
        if not bindings:
            text("p", "The policy has no binding.", "lz-empty")
            return
        with elements.table("IAM bindings", ("Role", "Member", "Condition")):
            for item in bindings[:BINDINGS]:
                with ui.element("tr"):
                    text("th", item.role or words.UNKNOWN, "lz-path").props('scope="row"')
                    text("td", item.member, "lz-path")
                    text("td", item.condition or "always", "lz-path")
        if len(bindings) > BINDINGS:
            text("p", f"and {len(bindings) - BINDINGS:,} more, below", "lz-dim")

    # --- its past ---

    def _history(self, content_type: str, versions: list[Version]) -> None:
        title = "History" if content_type == "RESOURCE" else f"History of the {content_type.replace('_', ' ').lower()}"
        with section(title):
            if not versions:
                text("p", "No version is kept.", "lz-empty")
                return
            shown = versions[: resource_history.VERSIONS]
            with ui.element("ol").classes("lz-history"):
                for version in shown[:VERSIONS]:
                    self._version(version)
            if len(shown) > VERSIONS:
                with ui.element("details"):
                    text("summary", f"{len(shown) - VERSIONS:,} older")
                    with ui.element("ol").classes("lz-history"):
                        for version in shown[VERSIONS:]:
                            self._version(version)
            if len(versions) > len(shown):
                text("p", f"The {len(shown)} newest versions are shown; all: /api/v1/resource/history", "lz-dim")

    def _version(self, version: Version) -> None:
        row = version.row
        begun = from_ns(row.valid_from_ns)
        with ui.element("li"):
            Chip(inventory_words.CHANGE_SIGNS[version.change])
            with ui.element("div").classes("lz-what"):
                with ui.element("p"):
                    link(f"version {row.version:,}", asked.resource_address(row.name, row.valid_from_ns), "lz-strong")
                    text("span", f" since {instant(begun)}")
                    if version.who:
                        text("span", f" by {version.who}")
                self._fields(version)
                late = f"written {instant(version.recorded_at)}, told by {row.source}"
                text("p", late, "lz-dim")
            git_layer.when(begun, self._now)

    @staticmethod
    def _fields(version: Version) -> None:
        if version.row.deleted:
            return
        if version.diff is None:
            text("p", "What it was before is not kept.", "lz-dim")
            return
        changes = version.diff.changes
        if not changes:
            text("p", "No field that is kept differs.", "lz-dim")
            return

        def listed(some: Any) -> None:
            with ui.element("ul").classes("lz-fields"):
                for change in some:
                    _field(change)

        listed(changes[:FIELDS])
        if len(changes) > FIELDS:
            with ui.element("details"):
                text("summary", f"{len(changes) - FIELDS:,} more fields")
                listed(changes[FIELDS:])
        if version.diff.truncated:
            text("p", "More fields differ than are told.", "lz-dim")

    # --- what is said of it ---

    def _findings(self, findings: list[FindingEntry], judged: tuple[int, datetime] | None) -> None:
        with section("Findings"):
            said = "It is not known when the controls judged it."
            if judged is not None:
                said = f"Evaluated with version {judged[0]:,} at {instant(judged[1])}."
            text("p", said, "lz-dim")
            opened = [item for item in findings if item.resolved_at is None]
            resolved = [item for item in findings if item.resolved_at is not None]
            if not opened:
                text("p", "No open finding is known.", "lz-empty")
            self._finding_list("Open findings", opened)
            if resolved:
                with ui.element("details").classes("lz-more"):
                    text("summary", f"{len(resolved):,} resolved")
                    self._finding_list("Resolved findings", resolved)
            if len(findings) == SHOWN:
                text("p", f"The first {SHOWN} are shown.", "lz-dim")

    def _finding_list(self, label: str, findings: list[FindingEntry]) -> None:
        with ui.element("ul").classes("lz-gaps lz-plain") as box:
            box.props["aria-label"] = label
            for item in findings:
                with ui.element("li"):
                    with ui.element("p").classes("lz-line"):
                        Chip(words.severity(item.severity))
                        text("span", f"{item.control} {item.title}", "lz-strong")
                    text("p", item.message)
                    gone = ""
                    if item.resolved_at is not None:
                        why = f" ({item.resolution})" if item.resolution else ""
                        gone = f", resolved {instant(item.resolved_at)}{why}"
                    said = f"{item.framework}, {item.source}, open since {instant(item.opened_at)}{gone}"
                    text("p", said, "lz-dim")

    def _terraform(self, compared: Compared) -> None:
        with section("Terraform"):
            for item in self._details.terraform:
                self._address(item)
            if not self._details.terraform:
                text("p", self._no_address(compared), "lz-empty")
                self._compared(compared)
            link("Terraform and the inventory", asked.DRIFT_PAGE)

    def _no_address(self, compared: Compared) -> str:
        if compared.at is None:
            return "Not known: terraform was not compared with the inventory yet."
        if self._row.asset_type not in ASSET_TYPES:
            return "Not known: resources of this type are not compared with terraform."
        note = note_of(compared.unresolved, compared.modules)
        return f"No block was found to stand for it, but {note}." if note else "No block stands for it."

    def _compared(self, compared: Compared) -> None:
        """When terraform was compared, and the commit that the landing zone is at."""
        if compared.at is None:
            return
        with ui.element("p").classes("lz-dim"):
            elements.hint(text("span", f"compared {words.ago(compared.at, self._now)}"), instant(compared.at))
            text("span", ", landing zone at commit ")
            git_layer.commit(self._portal, compared.head)

    def _address(self, item: TerraformAddress) -> None:
        with ui.element("div").classes("lz-block"):
            with ui.element("p").classes("lz-line"):
                Chip(inventory_words.terraform_sign(item.status))
                text("span", item.address, "lz-strong lz-path")
            with ui.element("p"):
                git_layer.place(self._portal, item.path, item.line, item.commit_sha)
            if item.reason:
                text("p", item.reason)
            differences(item.differences)
            with ui.element("p").classes("lz-dim"):
                text("span", "commit ")
                git_layer.commit(self._portal, item.commit_sha)
                text("span", f", compared {words.ago(item.checked_at, self._now)}")

    # --- what it has to do with ---

    def _relation_list(self, relations: list[Any], label: str) -> None:
        with ui.element("ul").classes("lz-relations") as box:
            box.props["aria-label"] = label
            for item in relations:
                with ui.element("li"):
                    _resource_link(item.resource)
                    text("span", item.path, "lz-dim lz-path")

    def _outgoing(self) -> None:
        details = self._details
        with section("Refers to"):
            if not details.outgoing and not details.unresolved:
                text("p", "Its data names no other resource, as far as is known.", "lz-empty")
            self._relation_list(details.outgoing, "Refers to")
            if details.unresolved:
                with ui.element("details").classes("lz-more"):
                    text("summary", f"{len(details.unresolved):,} not in the inventory")
                    with ui.element("ul").classes("lz-relations"):
                        for item in details.unresolved:
                            with ui.element("li"):
                                text("span", item.text, "lz-path")
                                text("span", item.path, "lz-dim lz-path")

    def _incoming(self) -> None:
        incoming = self._details.incoming
        with section("Referred to by"):
            self._relation_list(incoming.relations, "Referred to by")
            if not incoming.asset_types:
                text("p", "Not known: no type is known to name a resource like this.", "lz-empty")
                return
            if incoming.project is None:
                text("p", "Not known: it is in no project.", "lz-empty")
                return
            kinds = inventory_words.many(len(incoming.asset_types), "type")
            looked = f"Looked for in {incoming.looked_through:,} resources of {kinds} in {incoming.project}"
            found = "" if incoming.relations else "; none was found"
            rest = "." if incoming.complete else "; there are more that were not looked at."
            text("p", f"{looked}{found}{rest}", "lz-dim")

    def _children(self) -> None:
        children = self._details.children
        if not children.items:
            return
        with section("Below it"):
            with ui.element("ul").classes("lz-relations lz-feed").props('tabindex="0" aria-label="Below it"'):
                for row in children.items:
                    with ui.element("li"):
                        _resource_link(row)
            if children.truncated:
                text("p", f"The first {len(children.items)} are shown.", "lz-dim")
                if self._row.project:
                    where = ResourceFilter(projects=(self._row.project,))
                    link("All of the project", asked.list_address(ListQuestion(where)))

    @staticmethod
    def _cost() -> None:
        with section("Cost"):
            text("p", f"Not known: {NO_COST}.", "lz-empty")


def _resource_link(row: ResourceRow) -> None:
    with ui.element("span").classes("lz-line"):
        elements.hint(link(_title(row), asked.resource_address(row.name), "lz-path"), row.name)
        elements.hint(text("span", inventory_words.type_name(row.asset_type), "lz-dim"), row.asset_type)
        if row.deleted:
            Chip(inventory_words.DELETED)


def differences(items: list[dict[str, Any]]) -> None:
    """What terraform says of a resource, and what it is instead."""
    if not items:
        return
    with ui.element("ul").classes("lz-fields"):
        for item in items:
            with ui.element("li"):
                text("code", str(item.get("field", "")))
                text("span", f" in terraform {words.value(item.get('terraform'))}", "lz-was")
                text("span", f" is {words.value(item.get('actual'))}", "lz-is")


def _field(change: FieldChange) -> None:
    before, after = inventory_words.field_sides(change)
    with ui.element("li"):
        text("code", change.path or "everything")
        if before is not None:
            text("del", _short(before), "lz-was")
        if before is not None and after is not None:
            text("span", "→").props('aria-hidden="true"')
        if after is not None:
            text("ins", _short(after), "lz-is")
        text("span", inventory_words.FIELD_SIGNS[change.kind].word, "lz-dim")


def _short(said: str) -> str:
    return said if len(said) <= CHARACTERS else f"{said[:CHARACTERS]} …"


class DataTree:
    """JSON as a tree that opens and closes; what was removed from it is marked."""

    def __init__(self, data: Mapping[str, Any], redacted: frozenset[str]) -> None:
        self._redacted = redacted
        self._left = NODES
        with ui.element("div").classes("lz-tree"):
            self._items(data.items(), "", 0)
            if self._left < 0:
                text("p", f"The first {NODES:,} values are shown; all: /api/v1/resource", "lz-note")

    def _items(self, items: Any, path: str, depth: int) -> None:
        with ui.element("ul"):
            for key, value in items:
                self._left -= 1
                if self._left < 0:
                    return
                self._node(str(key), value, f"{path}.{key}" if path else str(key), depth)

    def _node(self, key: str, value: Any, path: str, depth: int) -> None:
        with ui.element("li"):
            if not isinstance(value, dict | list) or not value:
                text("span", f"{key}: ", "lz-key")
                if path in self._redacted and value == REDACTED:
                    Chip(inventory_words.REDACTED)
                else:
                    text("span", words.value(value), "lz-leaf")
                    if path in self._redacted:
                        Chip(inventory_words.REDACTED)
                return
            with ui.element("details") as branch:
                if depth == 0 and len(value) <= 12:
                    branch.props("open")
                with ui.element("summary"):
                    text("span", f"{key}: ", "lz-key")
                    one = "item" if isinstance(value, list) else "field"
                    text("span", inventory_words.many(len(value), one), "lz-dim")
                self._items(value.items() if isinstance(value, dict) else enumerate(value), path, depth + 1)
