"""What the pages on the landing-zone repository share: reading in time, how old it is, from which commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import sqlalchemy as sa
from nicegui import ui

from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.portal.answers import layer_status
from lz_sync_dagster.portal.context import Portal
from lz_sync_dagster.portal.markdown import blob_of, commit_of, page_of
from lz_sync_dagster.portal.pages import elements, reading, words
from lz_sync_dagster.portal.pages.elements import Chip, Frame, link, text
from lz_sync_dagster.sync.models import Status, SyncStatus
from lz_sync_dagster.sync.store import documents, repository_views

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GitLayer:
    """The state of the git layer when a page was read. ``head``: the commit that the tables show, if it is known."""

    now: datetime
    status: SyncStatus
    head: str | None
    documents: frozenset[str]


async def read(portal: Portal, frame: Frame, what: Callable[[sa.Connection], T]) -> tuple[GitLayer, T] | None:
    """Read the store, and say in the frame how old the data is. ``None``: it cannot be read, and the banner says so."""

    def ask(connection: sa.Connection, now: datetime) -> tuple[GitLayer, T]:
        layer = GitLayer(
            now,
            layer_status(connection, portal, LayerId.GIT, now),
            repository_views.head(connection),
            documents.paths(connection),
        )
        return layer, what(connection)

    found = await reading.for_page(portal, frame, ask)
    if found is not None:
        layer, _ = found
        frame.warn(words.git_notice(layer.status, layer.now), mild=layer.status.status is Status.PARTIAL)
    return found


def provenance(portal: Portal, layer: GitLayer) -> None:
    """One line: the layer's state, how old the data is, and from which commit."""
    with ui.element("div").classes("lz-line lz-provenance"):
        elements.layer_state("Git sync", words.STATUS_SIGNS[layer.status.status])
        elements.as_of(layer.status.as_of, layer.now)
        with ui.element("span"):
            text("span", "commit ")
            commit(portal, layer.head)
        text("span", f"coverage {words.COVERAGE_SIGNS[layer.status.coverage.status].word.lower()}")


def commit(portal: Portal, sha: str | None) -> None:
    """A commit's short id, as a link if the landing zone has a web page."""
    if sha is None:
        text("span", words.UNKNOWN)
        return
    page = portal.settings.landing_zone.page
    shown = link(sha[:10], commit_of(page, sha), "lz-sha", external=True) if page else text("span", sha[:10], "lz-sha")
    elements.hint(shown, sha)


def source(portal: Portal, layer: GitLayer, path: str, line: int | None = None) -> None:
    """A file of the landing zone: a link to its page here, else to the repository's web page, else its name."""
    if path in layer.documents:
        link(f"{path}:{line}" if line else path, page_of(path), "lz-path")
    else:
        place(portal, path, line)


def place(portal: Portal, path: str, line: int | None = None, sha: str | None = None) -> None:
    """A place in a file of the landing zone: a link to the repository's web page, or its name if it has none.

    Args:
        sha: the commit at which it is the place; without one, the page shows the newest.
    """
    name = f"{path}:{line}" if line else path
    home = portal.settings.landing_zone
    if home.page:
        link(name, blob_of(home.page, sha or home.branch, path, line), "lz-path", external=True)
    else:
        text("span", name, "lz-path")


def change(
    portal: Portal,
    layer: GitLayer,
    sign: str,
    sha: str,
    committed_at: datetime,
    said: Iterable[str],
    by: str,
    *,
    headed: bool = False,
) -> None:
    """An entry of a history: the sign of what happened, lines on it, and whose commit it was, when.

    Args:
        sign: a key of `words.CHANGE_SIGNS`.
        headed: the first line is a heading.
    """
    with ui.element("li"):
        Chip(words.CHANGE_SIGNS.get(sign, words.OTHER_CHANGE))
        with ui.element("div").classes("lz-what"):
            for number, line_said in enumerate(said):
                text("p", line_said, "lz-strong" if headed and number == 0 else "")
            with ui.element("p").classes("lz-dim"):
                commit(portal, sha)
                text("span", f" by {by}")
        when(committed_at, layer.now)


def line(portal: Portal, path: str, number: int | None) -> None:
    """The line of a file, as a link if the landing zone has a web page."""
    home = portal.settings.landing_zone
    if number is None:
        text("span", words.UNKNOWN, "lz-dim")
    elif home.page:
        link(str(number), blob_of(home.page, home.branch, path, number), external=True)
    else:
        text("span", str(number), "lz-dim")


def when(moment: datetime | None, now: datetime) -> None:
    """A moment as an age."""
    elements.age(moment, now, "lz-dim")
