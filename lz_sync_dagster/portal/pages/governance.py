"""The Governance page: pmo.yaml, the enforcement gates, what is wrong with the sources, and what is not synced."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import sqlalchemy as sa
from fastapi import Request
from nicegui import ui

from lz_sync_dagster.portal.context import Portal, portal_of
from lz_sync_dagster.portal.markdown import GOVERNANCE_PAGE
from lz_sync_dagster.portal.pages import elements, git_layer, words
from lz_sync_dagster.portal.pages.elements import Chip, section, table, text
from lz_sync_dagster.portal.pages.git_layer import GitLayer
from lz_sync_dagster.sync.store import repository_views, source_findings
from lz_sync_dagster.sync.store.file_history import ItemDelta, ItemKind, ItemVersion, item_history
from lz_sync_dagster.sync.store.repository import Gate, SyncedFile
from lz_sync_dagster.sync.store.repository_views import GovernanceEntry
from lz_sync_dagster.sync.store.source_findings import FindingKind, OpenFinding

#: Changes that are read, commits that are shown, and changes of one of them.
CHANGES, COMMITS, OF_A_COMMIT = 500, 20, 4
#: Edits in the portal repository that are shown.
RESTORED = 10
#: Rows of a table before the rest is left to the API.
ROWS = 500

_OF_GOVERNANCE = (FindingKind.GOVERNANCE_SCHEMA, FindingKind.GOVERNANCE_YAML)


def register() -> None:
    """Register the page at its path."""
    ui.page(GOVERNANCE_PAGE, title="LZ Sync · Governance", response_timeout=15.0)(_page)


@dataclass(frozen=True, slots=True)
class Governance:
    """What the page shows."""

    entries: list[GovernanceEntry]
    gates: list[Gate]
    findings: list[OpenFinding]
    not_synced: list[SyncedFile]
    changes: list[ItemVersion]
    restored: list[OpenFinding]


def _read(connection: sa.Connection) -> Governance:
    return Governance(
        repository_views.governance_entries(connection),
        repository_views.gates(connection),
        source_findings.open_findings(connection),
        repository_views.not_synced(connection),
        item_history(connection, ItemKind.GOVERNANCE, ItemKind.GATE, limit=CHANGES),
        source_findings.restored(connection, limit=RESTORED),
    )


async def _page(request: Request) -> None:
    portal = portal_of(request)
    with elements.frame(portal, GOVERNANCE_PAGE) as frame:
        box = ui.element("div").classes("lz-stack")
    found = await git_layer.read(portal, frame, _read)
    if found is not None:
        with box:
            GovernanceView(portal, *found)
            ui.run_javascript("document.getElementById(location.hash.slice(1))?.scrollIntoView()")


class GovernanceView:
    """The whole page, of one reading."""

    def __init__(self, portal: Portal, layer: GitLayer, data: Governance) -> None:
        self._portal = portal
        self._layer = layer
        with section("Governance"):
            git_layer.provenance(portal, layer)
        issues = [item for item in data.findings if item.finding.kind in _OF_GOVERNANCE]
        self._values(data.entries, issues)
        self._gates(data.gates, [item for item in data.findings if item.finding.kind is FindingKind.GATES])
        self._sources(data.findings, data.not_synced, data.restored)
        self._changes(data.changes)

    @property
    def _known(self) -> bool:
        return self._layer.status.as_of is not None

    def _nothing(self, known: str) -> None:
        text("p", known if self._known else "Not known yet: nothing was synced.", "lz-empty")

    def _values(self, entries: list[GovernanceEntry], issues: list[OpenFinding]) -> None:
        with section("pmo.yaml"):
            if issues:
                with ui.element("ul").classes("lz-errors").props('aria-label="Issues of pmo.yaml"'):
                    for issue in issues:
                        with ui.element("li"):
                            git_layer.source(self._portal, self._layer, issue.finding.path, issue.finding.line)
                            text("span", f": {issue.finding.message}")
            if not entries:
                self._nothing("The landing zone has no pmo.yaml, or it is empty.")
                return
            wrong = {issue.finding.subject for issue in issues}
            groups: dict[str, list[GovernanceEntry]] = {}
            for entry in entries[:ROWS]:
                groups.setdefault(entry.value.key.split(".")[0], []).append(entry)
            for name, group in groups.items():
                with ui.element("details").classes("lz-group").props("open"):
                    with ui.element("summary"):
                        text("span", name, "lz-strong")
                        text("span", f" {len(group)} value{'' if len(group) == 1 else 's'}", "lz-dim")
                    with table(f"Values of {name}", ("Key", "Value", "Last change", "Line")):
                        for entry in group:
                            self._value(name, entry, entry.value.key in wrong)
            if len(entries) > ROWS:
                text("p", f"and {len(entries) - ROWS:,} more: see /api/v1/governance", "lz-dim")

    def _value(self, group: str, entry: GovernanceEntry, wrong: bool) -> None:
        with ui.element("tr"):
            with ui.element("th").props('scope="row"'):
                elements.hint(text("span", entry.value.key.removeprefix(f"{group}."), "lz-path"), entry.value.key)
                if wrong:
                    Chip(words.NOT_ALLOWED)
            text("td", words.value(entry.value.value), "lz-path")
            with ui.element("td").classes("lz-nowrap"):
                git_layer.when(entry.changed_at, self._layer.now)
                git_layer.commit(self._portal, entry.changed_by)
            with ui.element("td"):
                git_layer.line(self._portal, entry.value.path, entry.value.line)

    def _gates(self, gates: list[Gate], issues: list[OpenFinding]) -> None:
        with section("Enforcement gates"):
            if issues:
                with ui.element("ul").classes("lz-errors").props('aria-label="Issues of the gates"'):
                    for issue in issues:
                        text("li", f"{issue.finding.path}: {issue.finding.message}")
            if not gates:
                self._nothing("The landing zone has no gate.")
                return
            columns = ("Gate", "Phase", "Severity", "Blocks", "Validation", "Status")
            with table("Enforcement gates", columns):
                for gate in gates[:ROWS]:
                    with ui.element("tr").props(f'data-gate="{_attribute(gate.gate_id)}"'):
                        with ui.element("th").props('scope="row"'):
                            text("span", gate.gate_id, "lz-strong")
                            text("div", gate.title)
                            with ui.element("div").classes("lz-dim"):
                                git_layer.source(self._portal, self._layer, gate.path, gate.line)
                        text("td", gate.phase or words.UNKNOWN)
                        with ui.element("td"):
                            Chip(words.severity(gate.severity))
                        for cell in (gate.blocks, gate.validation, gate.status):
                            text("td", cell or words.UNKNOWN)
            if len(gates) > ROWS:
                text("p", f"and {len(gates) - ROWS:,} more: see /api/v1/gates", "lz-dim")

    def _sources(self, findings: list[OpenFinding], not_synced: list[SyncedFile], restored: list[OpenFinding]) -> None:
        with section("Sources"):
            text("h3", "Findings")
            if not findings:
                self._nothing("Nothing is wrong with the files that were read.")
            else:
                with table("Findings", ("Kind", "Severity", "Where", "What to do", "Open since")):
                    for item in findings[:ROWS]:
                        with ui.element("tr"):
                            text("td", words.FINDINGS[item.finding.kind])
                            with ui.element("td"):
                                Chip(words.severity(item.finding.severity))
                            with ui.element("td"):
                                git_layer.source(self._portal, self._layer, item.finding.path, item.finding.line)
                                if item.finding.subject:
                                    text("div", item.finding.subject, "lz-dim lz-path")
                            text("td", item.finding.message)
                            with ui.element("td").classes("lz-nowrap"):
                                git_layer.when(item.opened_at, self._layer.now)
                if len(findings) > ROWS:
                    text("p", f"and {len(findings) - ROWS:,} more: see /api/v1/source-findings", "lz-dim")
            if restored:
                text("h3", "Restored", "lz-below")
                with table("Copies that were restored", ("File", "What happened", "When")):
                    for item in restored:
                        with ui.element("tr"):
                            with ui.element("th").props('scope="row"'):
                                text("span", item.finding.path, "lz-path")
                            text("td", item.finding.message)
                            with ui.element("td").classes("lz-nowrap"):
                                git_layer.when(item.opened_at, self._layer.now)
            text("h3", "Not synced", "lz-below").props('id="not-synced"')
            if not not_synced:
                self._nothing("Every selected file is copied.")
                return
            with table("Files that are not synced", ("File", "Why", "Would be at")):
                for file in not_synced[:ROWS]:
                    with ui.element("tr"):
                        with ui.element("th").props('scope="row"'):
                            text("span", file.path, "lz-path")
                        text("td", file.reason or words.UNKNOWN)
                        text("td", file.destination, "lz-path")
            if len(not_synced) > ROWS:
                text("p", f"and {len(not_synced) - ROWS:,} more", "lz-dim")

    def _changes(self, changes: list[ItemVersion]) -> None:
        with section("Recent changes"):
            if not changes:
                text("p", "No change of a value or a gate is known.", "lz-empty")
                return
            with ui.element("ol").classes("lz-history"):
                for group in _by_commit(changes)[:COMMITS]:
                    first = group[0].item
                    signs = {version.item.change for version in group}
                    said = [f"{version.item.key}: {words.difference(version.item)}" for version in group[:OF_A_COMMIT]]
                    if len(group) > OF_A_COMMIT:
                        said.append(f"and {len(group) - OF_A_COMMIT:,} more")
                    git_layer.change(
                        self._portal,
                        self._layer,
                        signs.pop() if len(signs) == 1 else ItemDelta.MODIFIED,
                        first.sha,
                        first.committed_at,
                        (group[0].subject or "the commit is not kept", *said),
                        f"{group[0].author_name or words.UNKNOWN} · {first.path}",
                        headed=True,
                    )


def _by_commit(changes: list[ItemVersion]) -> list[list[ItemVersion]]:
    """Changes that follow each other and are of one file and commit, in one list, the first one first."""
    groups = groupby(changes, key=lambda version: (version.item.sha, version.item.path))
    return [sorted(group, key=lambda version: version.id) for _, group in groups]


def _attribute(value: str) -> str:
    return "".join(letter for letter in value if letter.isalnum() or letter in "-_ .")
