"""The Knowledge pages: search of the documents, their list, and a document as it reads, with its history."""

from __future__ import annotations

from functools import partial
from pathlib import PurePosixPath
from urllib.parse import quote

import anyio.to_thread
import sqlalchemy as sa
from fastapi import Request
from nicegui import ui

from lz_sync_dagster.portal import markdown
from lz_sync_dagster.portal.context import Portal, portal_of
from lz_sync_dagster.portal.markdown import KNOWLEDGE_PATH, Place, Rendered, page_of
from lz_sync_dagster.portal.pages import elements, git_layer, words
from lz_sync_dagster.portal.pages.elements import Frame, link, section, text
from lz_sync_dagster.portal.pages.git_layer import GitLayer
from lz_sync_dagster.portal.repository_api import HISTORY, anchor_of, place_of
from lz_sync_dagster.sync.store import documents, repository_views
from lz_sync_dagster.sync.store.documents import Entry, Hit
from lz_sync_dagster.sync.store.file_history import FileVersion, file_history
from lz_sync_dagster.sync.store.repository import Document, SyncedFile

HITS = 20
LISTED = 1000
#: Milliseconds without a key before a search starts.
_PAUSE = 250


def register() -> None:
    """Register the pages at their paths."""
    ui.page(KNOWLEDGE_PATH, title="LZ Sync · Knowledge", response_timeout=15.0)(_search)
    ui.page(f"{KNOWLEDGE_PATH}/{{path:path}}", title="LZ Sync · Knowledge", response_timeout=15.0)(_document)


async def _search(request: Request, q: str = "") -> None:
    portal = portal_of(request)
    with elements.frame(portal, KNOWLEDGE_PATH) as frame:
        page = SearchPage(portal, frame, q)
    await page.refresh()


async def _document(request: Request, path: str) -> None:
    portal = portal_of(request)
    with elements.frame(portal, KNOWLEDGE_PATH) as frame:
        box = ui.element("div").classes("lz-stack")
    found = await git_layer.read(portal, frame, partial(_read_document, portal, path))
    with box:
        if found is not None:
            layer, parts = found
            if parts is None:
                _no_document(path)
            else:
                document, place, copies, history = parts
                rendered = await anyio.to_thread.run_sync(markdown.render, document.body, place)
                ui.page_title(f"{document.title} · LZ Sync")
                DocumentView(portal, layer, document, rendered, copies, history)
                ui.run_javascript(_SCROLL)


#: The page is made after the browser looked for the place that the address names.
_SCROLL = "document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView()"


class SearchPage:
    """A box to search in; below it the hits, or all documents while it is empty."""

    def __init__(self, portal: Portal, frame: Frame, query: str) -> None:
        self._portal = portal
        self._frame = frame
        self._shown = HITS
        with section("Knowledge"):
            self._box = ui.input(value=query[: documents.MAX_QUERY], placeholder="Search the documents")
            self._box.props(
                f'outlined dense clearable debounce={_PAUSE} type=search aria-label="Search the documents" autofocus'
            ).classes("lz-search")
            self._box.on_value_change(self._typed)
            self._provenance = ui.element("div")
        self._results = ui.element("div").props('aria-live="polite"').classes("lz-stack")

    async def _typed(self) -> None:
        self._shown = HITS
        query = self._query
        address = f"{KNOWLEDGE_PATH}?q={quote(query)}" if query else KNOWLEDGE_PATH
        ui.navigate.history.replace(address)
        await self.refresh()

    async def _more(self) -> None:
        self._shown += HITS
        await self.refresh()

    @property
    def _query(self) -> str:
        return str(self._box.value or "").strip()

    async def refresh(self) -> None:
        """Read what the box asks for, and show it, unless the box asks for something else by then."""
        query, shown = self._query, self._shown
        found = await git_layer.read(
            self._portal,
            self._frame,
            lambda connection: (
                documents.search(connection, query, limit=shown + 1) if query else [],
                [] if query else documents.listed(connection, limit=LISTED + 1),
            ),
        )
        if found is None or query != self._query:
            return
        layer, (hits, entries) = found
        self._provenance.clear()
        with self._provenance:
            git_layer.provenance(self._portal, layer)
        self._results.clear()
        with self._results:
            if query:
                self._hits(layer, query, hits, shown)
            else:
                _listing(layer, entries)

    def _hits(self, layer: GitLayer, query: str, hits: list[Hit], shown: int) -> None:
        more = len(hits) > shown
        count = f"more than {shown}" if more else str(len(hits))
        with section(f"{count} document{'' if count == '1' else 's'} found"):
            if not hits:
                text("p", _nothing(layer, query), "lz-empty")
                return
            with ui.element("ol").classes("lz-hits"):
                for hit in hits[:shown]:
                    with ui.element("li"):
                        link(hit.title, page_of(hit.path, anchor_of(hit)), "lz-hit")
                        text("p", hit.path, "lz-dim lz-path")
                        with ui.element("p"):
                            for piece in hit.snippet:
                                text("mark" if piece.match else "span", piece.text)
            if more:
                ui.button("Show more", on_click=self._more).props("flat no-caps color=primary")


def _nothing(layer: GitLayer, query: str) -> str:
    if not documents.terms(query):
        return "There is no word to search for. Type letters or digits."
    if not layer.documents:
        return "No document is known yet: nothing was synced."
    return f"None of the {len(layer.documents):,} documents has every one of these words."


def _listing(layer: GitLayer, entries: list[Entry]) -> None:
    with section("All documents"):
        if not entries:
            text("p", "No document is known yet: nothing was synced.", "lz-empty")
            return
        folders: dict[str, list[Entry]] = {}
        for entry in entries[:LISTED]:
            folders.setdefault(str(PurePosixPath(entry.path).parent), []).append(entry)
        for folder in sorted(folders, key=lambda name: "" if name == "." else name):
            with ui.element("div").classes("lz-folder"):
                text("h3", "Top of the repository" if folder == "." else f"{folder}/")
                with ui.element("ul"):
                    for entry in folders[folder]:
                        with ui.element("li"):
                            link(entry.title, page_of(entry.path))
                            text("span", PurePosixPath(entry.path).name, "lz-dim lz-path")
        if len(entries) > LISTED:
            text("p", f"and {len(layer.documents) - LISTED:,} more: search for them", "lz-dim")


_Parts = tuple[Document, Place, list[SyncedFile], list[FileVersion]]


def _read_document(portal: Portal, path: str, connection: sa.Connection) -> _Parts | None:
    found = None if "\0" in path else documents.read(connection, path)
    if found is None:
        return None
    return (
        found,
        place_of(connection, portal, path),
        repository_views.copies(connection, path),
        file_history(connection, path, HISTORY),
    )


def _no_document(path: str) -> None:
    with section("There is no such document"):
        text("p", f"No document is kept under {path}. It may be withheld, excluded, renamed or deleted.")
        with ui.element("p").classes("lz-line"):
            link("All documents", KNOWLEDGE_PATH)
            link("What is not synced, and why", f"{markdown.GOVERNANCE_PAGE}#not-synced")


class DocumentView:
    """One document: where it is from, its contents, its text, its history."""

    def __init__(
        self,
        portal: Portal,
        layer: GitLayer,
        document: Document,
        rendered: Rendered,
        copies: list[SyncedFile],
        history: list[FileVersion],
    ) -> None:
        titled = any(heading.text == document.title for heading in rendered.headings)
        with section(document.title, headed=not titled):
            with ui.element("p").classes("lz-line"):
                link("Knowledge", KNOWLEDGE_PATH)
                text("span", "/").props('aria-hidden="true"')
                text("span", document.path, "lz-path")
            git_layer.provenance(portal, layer)
            self._facts(portal, layer, document, copies, history)
        with ui.element("div").classes("lz-reading" if rendered.headings else ""):
            if rendered.headings:
                self._contents(rendered)
            with ui.element("article").classes("lz-section lz-article"):
                if rendered.cut:
                    text("p", f"Only the first {markdown.MAX_RENDERED:,} characters are shown.", "lz-note")
                ui.html(rendered.html or "<p><em>The document is empty.</em></p>", sanitize=False)
        self._history(portal, layer, history)

    @staticmethod
    def _facts(
        portal: Portal, layer: GitLayer, document: Document, copies: list[SyncedFile], history: list[FileVersion]
    ) -> None:
        with ui.element("dl").classes("lz-pairs"):
            with ui.element("div"):
                text("dt", "Last change")
                with ui.element("dd"):
                    git_layer.when(history[0].file.committed_at if history else None, layer.now)
                    git_layer.commit(portal, history[0].file.sha if history else None)
            with ui.element("div"):
                text("dt", "In the portal repository")
                with ui.element("dd"):
                    if not copies:
                        text("span", words.UNKNOWN)
                    for copy in copies:
                        reason = f" (not synced: {copy.reason})" if copy.status != "synced" else ""
                        text("div", f"{copy.destination}{reason}", "lz-path")
            page = portal.settings.landing_zone.page
            if page:
                with ui.element("div"):
                    text("dt", "Source")
                    with ui.element("dd"):
                        address = markdown.blob_of(page, portal.settings.landing_zone.branch, document.path)
                        link("in the landing zone", address, external=True)

    @staticmethod
    def _contents(rendered: Rendered) -> None:
        with ui.element("nav").classes("lz-section lz-contents").props('aria-label="On this page"'):
            text("h2", "On this page")
            top = min(heading.level for heading in rendered.headings)
            with ui.element("ul"):
                for heading in rendered.headings:
                    with ui.element("li").classes(f"lz-depth-{min(heading.level - top, 3)}"):
                        link(heading.text or "untitled", f"#{quote(heading.anchor)}")

    @staticmethod
    def _history(portal: Portal, layer: GitLayer, history: list[FileVersion]) -> None:
        with section("History"):
            if not history:
                text("p", "The commits that touched this document are not known.", "lz-empty")
                return
            with ui.element("ol").classes("lz-history"):
                for version in history:
                    file = version.file
                    renamed = f" · was {file.old_path}" if file.old_path else ""
                    git_layer.change(
                        portal,
                        layer,
                        file.change,
                        file.sha,
                        file.committed_at,
                        (version.subject or "the commit is not kept",),
                        f"{version.author_name or words.UNKNOWN} · {words.lines(file)}{renamed}",
                    )
            if len(history) == HISTORY:
                text("p", f"The {HISTORY} newest changes are shown.", "lz-dim")
