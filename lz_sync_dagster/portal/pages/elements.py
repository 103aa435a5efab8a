"""What pages are made of: texts, chips, links, and the frame that they share (header, navigation, banner)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from lz_sync_dagster.portal.context import Portal
from lz_sync_dagster.portal.markdown import GOVERNANCE_PAGE, KNOWLEDGE_PATH
from lz_sync_dagster.portal.pages.asked import COVERAGE_PAGE, DRIFT_PAGE, INFRASTRUCTURE_PAGE
from lz_sync_dagster.portal.pages.words import UNKNOWN, Sign, ago, span

STYLE = (Path(__file__).parent / "lz_sync.css").read_text(encoding="utf-8")
_SCRIPT = (Path(__file__).parent / "lz_sync.js").read_text(encoding="utf-8")
_INSTANT = "%Y-%m-%d %H:%M:%S UTC"

#: The pages in the navigation: address, and name.
PAGES = (
    ("/lz-sync", "Status"),
    (INFRASTRUCTURE_PAGE, "Infrastructure"),
    (COVERAGE_PAGE, "Coverage"),
    (DRIFT_PAGE, "Drift"),
    (KNOWLEDGE_PATH, "Knowledge"),
    (GOVERNANCE_PAGE, "Governance"),
)


def text(tag: str, content: str = "", classes: str = "") -> TextElement:
    """An element with a text. The text is shown as it is, never as HTML."""
    return TextElement(tag=tag, text=content).classes(classes)


def put(element: TextElement, content: str) -> None:
    """Change a text, if it differs."""
    if element.text != content:
        element.text = content


def show(element: ui.element, visible: bool) -> None:
    """Show or hide an element."""
    if element.visible != visible:
        element.visible = visible


def instant(moment: datetime | None) -> str:
    """A moment to the second, in UTC; ``never`` for none."""
    return "never" if moment is None else moment.strftime(_INSTANT)


def hint(element: ui.element, content: str) -> None:
    """Give an element a title, if it has another one."""
    if element.props.get("title") != content:
        element.props["title"] = content
        element.update()


def put_age(
    element: TextElement, moment: datetime | None, now: datetime, *, never: str = UNKNOWN, length: bool = False
) -> None:
    """Make a ``time`` element say how long ago a moment was; a script of the page keeps it up to date.

    Args:
        never: what it says of no moment.
        length: without the word "ago".
    """
    said = None if moment is None else moment.isoformat()
    if moment is None:
        element.props.pop("datetime", None)
        put(element, never)
    elif element.props.get("datetime") != said:
        put(element, span(now - moment) if length else ago(moment, now))
        element.props["datetime"] = said
        element.props["data-age"] = "length" if length else "ago"
        element.props["title"] = instant(moment)
        element.update()


def age(moment: datetime | None, now: datetime, classes: str = "") -> TextElement:
    """How long ago a moment was, as an element of its own: see `put_age`."""
    made = text("span" if moment is None else "time", "", classes)
    put_age(made, moment, now)
    return made


def as_of(moment: datetime | None, now: datetime) -> None:
    """How old data is."""
    with text("span", "as of "):
        age(moment, now)


def link(content: str, href: str, classes: str = "", *, external: bool = False) -> TextElement:
    """A link. ``external``: to another site."""
    element = text("a", content, classes)
    element.props["href"] = href
    if external:
        element.props["rel"] = "noopener noreferrer"
    return element


class Chip:
    """A state as icon and word, so that it does not depend on colour."""

    def __init__(self, sign: Sign) -> None:
        self._sign = sign
        with ui.element("span").classes(f"lz-chip lz-{sign.tone}") as self._root:
            self._icon = ui.icon(sign.icon).props('aria-hidden="true"')
            self._word = text("span", sign.word)

    def show(self, sign: Sign) -> None:
        """Show another state."""
        if sign != self._sign:
            self._root.classes(remove=f"lz-{self._sign.tone}", add=f"lz-{sign.tone}")
            self._icon.name = sign.icon
            put(self._word, sign.word)
            self._sign = sign


def layer_state(name: str, sign: Sign) -> None:
    """A layer, and how its sync stands."""
    with ui.element("span").classes("lz-line"):
        text("span", name)
        Chip(sign)


@dataclass(frozen=True, slots=True)
class Frame:
    """The parts of a page that its content changes. ``banner`` is hidden at first."""

    updated: TextElement
    banner: TextElement

    def warn(self, message: str | None, *, mild: bool = False) -> None:
        """Show a message above everything, or none. ``mild``: most of what is below is as it should be."""
        put(self.banner, message or "")
        self.banner.classes(**{"add" if mild else "remove": "lz-mild"})
        show(self.banner, message is not None)


def navigation(here: str) -> None:
    """The links to all pages; ``here`` is the address of this one."""
    with (
        ui.element("nav").classes("lz-nav").props('aria-label="Pages"'),
        ui.element("div").classes("lz-wide"),
        ui.element("ul"),
    ):
        for address, name in PAGES:
            with ui.element("li"):
                entry = link(name, address)
                if address == here:
                    entry.props["aria-current"] = "page"


def dress(portal: Portal) -> None:
    """Give a page its style and its script."""
    ui.add_css(STYLE)
    ui.add_body_html(f"<script>{_SCRIPT.replace('SERVER_NOW', str(int(portal.clock().timestamp() * 1000)))}</script>")


@contextmanager
def frame(portal: Portal, here: str) -> Iterator[Frame]:
    """A page's frame; what is made in the block becomes its content."""
    dress(portal)
    with ui.element("div").classes("lz-page"):
        link("Skip to the content", "#content", "lz-skip")
        with ui.element("header").classes("lz-header"), ui.element("div").classes("lz-wide"):
            text("h1", "LZ Sync")
            text("p", portal.settings.landing_zone.name or "landing zone", "lz-subtitle")
            updated = text("p", "reading …", "lz-updated")
        navigation(here)
        banner = text("p", "", "lz-banner").props('role="alert"')
        banner.visible = False
        ui.link_target("content")
        with ui.element("main").classes("lz-wide lz-main"):
            yield Frame(updated, banner)


def section(title: str, *, headed: bool = True) -> ui.element:
    """A section, with its title as a heading unless its content has one."""
    made = ui.element("section").classes("lz-section")
    made.props["aria-label"] = title
    if headed:
        with made:
            text("h2", title)
    return made


@contextmanager
def table(
    label: str, columns: tuple[str, ...], heading: Callable[[ui.element, int], None] | None = None
) -> Iterator[None]:
    """A table with a head; rows are made in the block. On a narrow screen each row becomes a list with the columns as
    labels, so every cell carries its own.

    Args:
        heading: fills the head of the column with a number; by default it is the column's name.
    """
    box = ui.element("div").classes("lz-scroll").props('tabindex="0" role="region"')
    box.props["aria-label"] = label
    with box, ui.element("table").classes("lz-table"):
        with ui.element("thead"), ui.element("tr"):
            for number, column in enumerate(columns):
                if heading is None:
                    text("th", column).props('scope="col"')
                    continue
                with ui.element("th").props('scope="col"') as cell:
                    heading(cell, number)
        with ui.element("tbody") as body:
            yield
        for row in body.default_slot.children:
            for cell, column in zip(row.default_slot.children, columns, strict=True):
                cell.props["data-label"] = column
