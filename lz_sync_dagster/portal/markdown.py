"""Markdown of the landing zone as HTML that is safe to show. Pure text: no store, no request.

Three steps: Markdown to HTML with the raw HTML in it; sanitize by allow-list (nh3); then point the links of what
is left to where they lead here. Ids carry a prefix, so that a document cannot take the place of the page's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from html import escape
from html.parser import HTMLParser
from posixpath import normpath
from urllib.parse import quote, unquote, urlsplit

import nh3
import structlog
from markdown_it import MarkdownIt
from markdown_it.token import Token

from lz_sync_dagster.sync.git.governance import GOVERNANCE_PATH

KNOWLEDGE_PATH = "/lz-sync/knowledge"
GOVERNANCE_PAGE = "/lz-sync/governance"
#: Characters of a document that are rendered; the rest is said to be missing.
MAX_RENDERED = 250_000
#: Elements within elements. The time that sanitizing takes grows with the square of it.
MAX_NESTING = 500
ANCHOR_PREFIX = "doc-"

_TAGS = {
    *("a", "abbr", "b", "blockquote", "br", "caption", "code", "col", "colgroup", "dd", "del", "details", "dfn", "div"),
    *("dl", "dt", "em", "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "ins", "kbd"),
    *("li", "mark", "ol", "p", "pre", "q", "s", "samp", "small", "span", "strong", "sub", "summary", "sup", "table"),
    *("tbody", "td", "tfoot", "th", "thead", "tr", "u", "ul", "var"),
}
_ATTRIBUTES = {
    "*": {"id", "title"},
    "a": {"href"},
    "abbr": {"title"},
    "col": {"span"},
    "details": {"open"},
    "img": {"src", "alt"},
    "ol": {"start"},
    "td": {"align", "colspan", "rowspan"},
    "th": {"align", "colspan", "rowspan"},
}
#: What goes with all that is in it. Of other tags that are not allowed, the text stays.
_REMOVED = {
    "iframe",
    "math",
    "noembed",
    "noframes",
    "noscript",
    "object",
    "script",
    "style",
    "svg",
    "template",
    "title",
}
_SCHEMES = {"http", "https", "mailto"}
_ALIGN = {"text-align:left": "left", "text-align:center": "center", "text-align:right": "right"}
_OPEN_OR_CLOSE = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
#: Elements that have no end, or that end by themselves where another one begins.
_NOT_NESTED = {
    *("area", "base", "br", "col", "dd", "dt", "embed", "hr", "img", "input", "li", "link", "meta", "option", "p"),
    *("source", "td", "th", "tr", "wbr"),
}
_TASK = re.compile(r"\[([ xX])\](?=\s)")

_PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a document is, and what its links can lead to.

    Attributes:
        path: the document's, in the landing zone.
        documents: the paths that have a page here.
        page: the web page of the landing zone's repository, if it has one.
        branch: the branch that its links show.
    """

    path: str
    documents: frozenset[str] = field(repr=False)
    page: str | None = None
    branch: str = "main"


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of a rendered document; ``anchor`` is its element's id."""

    level: int
    text: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """A document as safe HTML. ``cut``: it is too long to be shown whole."""

    html: str
    headings: tuple[Heading, ...]
    cut: bool


def render(text: str, place: Place) -> Rendered:
    """Render a document. Never raises: what cannot be rendered is shown as it is written."""
    shown = text[:MAX_RENDERED]
    cut = len(shown) < len(text)
    try:
        return replace(_rendered(shown, place), cut=cut)
    except Exception as error:
        log.warning("document_not_rendered", path=place.path, error=repr(error))
        return Rendered(f"<pre>{escape(_clean(shown))}</pre>", (), cut)


@lru_cache(maxsize=32)
def _rendered(text: str, place: Place) -> Rendered:
    tokens = _PARSER.parse(text)
    headings = _give_ids(tokens)
    _adapt(tokens)
    html = _PARSER.renderer.render(tokens, _PARSER.options, {})
    if _nesting(html) > MAX_NESTING:
        raise ValueError(f"elements are nested more than {MAX_NESTING} deep")
    pointed = _Pointed(place)
    pointed.feed(_sanitize(html))
    pointed.close()
    return Rendered("".join(pointed.parts), headings, cut=False)


def _nesting(html: str) -> int:
    """How deep elements are nested at most, or more than that."""
    depth = deepest = 0
    for end, name in _OPEN_OR_CLOSE.findall(html):
        if name.lower() not in _NOT_NESTED:
            depth = max(0, depth - 1) if end else depth + 1
            deepest = max(deepest, depth)
    return deepest


def anchors(headings: Iterable[str]) -> list[str]:
    """The ids of a document's headings, as GitHub makes them from their texts, with our prefix."""
    seen: dict[str, int] = {}
    found = []
    for text in headings:
        slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        number = seen.get(slug, 0)
        while number and f"{slug}-{number}" in seen:
            number += 1
        unique = f"{slug}-{number}" if slug in seen else slug
        seen[slug] = number + 1
        seen.setdefault(unique, 1)
        found.append(ANCHOR_PREFIX + unique)
    return found


def page_of(path: str, anchor: str | None = None) -> str:
    """The address of a document's page."""
    return f"{KNOWLEDGE_PATH}/{quote(path, safe='/')}" + (f"#{quote(anchor, safe='')}" if anchor else "")


def blob_of(page: str, branch: str, path: str, line: int | None = None) -> str:
    """The address of a file on the web page of its repository."""
    return f"{page.rstrip('/')}/blob/{quote(branch, safe='/')}/{quote(path, safe='/')}" + (f"#L{line}" if line else "")


def commit_of(page: str, sha: str) -> str:
    """The address of a commit on the web page of its repository."""
    return f"{page.rstrip('/')}/commit/{quote(sha, safe='')}"


# --- tokens


def _give_ids(tokens: list[Token]) -> tuple[Heading, ...]:
    places = [number for number, token in enumerate(tokens) if token.type == "heading_open"]
    texts = [_plain(tokens[number + 1]) for number in places]
    found = []
    for number, text, anchor in zip(places, texts, anchors(texts), strict=True):
        tokens[number].attrSet("id", anchor)
        found.append(Heading(int(tokens[number].tag[1:]), text, anchor))
    return tuple(found)


def _adapt(tokens: list[Token]) -> None:
    """What the sanitizer would drop although it means something: alignment, and the boxes of a task list."""
    for number, token in enumerate(tokens):
        if token.type in ("td_open", "th_open"):
            align = _ALIGN.get(str(token.attrs.pop("style", "")))
            if align:
                token.attrSet("align", align)
        elif token.type == "inline" and token.children and number > 1 and tokens[number - 2].type == "list_item_open":
            first = token.children[0]
            task = _TASK.match(first.content) if first.type == "text" else None
            if task:
                box = "\N{BALLOT BOX}" if task[1] == " " else "\N{BALLOT BOX WITH CHECK}"
                first.content = box + first.content[task.end() :]


def _plain(token: Token) -> str:
    parts = []
    for child in token.children or []:
        if child.type in ("text", "code_inline"):
            parts.append(child.content)
        elif child.type == "image":
            parts.append(_plain(child))
        elif child.type in ("softbreak", "hardbreak"):
            parts.append(" ")
    return "".join(parts).strip()


# --- sanitized HTML


def _sanitize(html: str) -> str:
    return nh3.clean(
        _clean(html),
        tags=_TAGS,
        clean_content_tags=_REMOVED,
        attributes=_ATTRIBUTES,
        attribute_filter=_own_id,
        url_schemes=_SCHEMES,
        link_rel=None,
        strip_comments=True,
    )


def _own_id(_tag: str, name: str, value: str) -> str:
    return ANCHOR_PREFIX + value if name == "id" and not value.startswith(ANCHOR_PREFIX) else value


def _clean(text: str) -> str:
    """Text that can be encoded, without control characters."""
    text = text.encode("utf-8", "replace").decode()
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "\N{REPLACEMENT CHARACTER}", text)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a link leads: ``href``, or why nowhere (``note``)."""

    href: str | None = None
    note: str = ""
    external: bool = False


def target(href: str, place: Place) -> Target:
    """Where a link of a document leads."""
    try:
        parts = urlsplit(href.strip())
    except ValueError:
        return Target(note="this is no address")
    if parts.scheme or parts.netloc:
        return Target(href.strip(), external=True) if parts.scheme in {*_SCHEMES, ""} else Target(note="not a web link")
    fragment = unquote(parts.fragment, errors="replace")
    if not parts.path:
        return Target(f"#{quote(_anchor(fragment), safe='')}" if fragment else "#")
    written = unquote(parts.path, errors="replace")
    folder = place.path.rpartition("/")[0]
    path = normpath(written.lstrip("/") if written.startswith("/") else f"{folder}/{written}").lstrip("/")
    if path == ".." or path.startswith("../"):
        return Target(note="this leads out of the repository")
    if path == GOVERNANCE_PATH:
        return Target(GOVERNANCE_PAGE)
    for name in (path, *(f"{path}/{index}".removeprefix("./") for index in ("README.md", "index.md"))):
        if name in place.documents:
            return Target(page_of(name, _anchor(fragment) if fragment else None))
    if place.page:
        suffix = f"#{quote(fragment, safe='')}" if fragment else ""
        where = "" if path == "." else path
        return Target(blob_of(place.page, place.branch, where).rstrip("/") + suffix, external=True)
    return Target(note=f"{path} is not synced")


def _anchor(fragment: str) -> str:
    return fragment if fragment.startswith(ANCHOR_PREFIX) else ANCHOR_PREFIX + fragment.removeprefix("user-content-")


class _Pointed(HTMLParser):
    """Writes sanitized HTML again, with links that lead somewhere, and links in the place of images."""

    def __init__(self, place: Place) -> None:
        super().__init__(convert_charrefs=False)
        self.parts: list[str] = []
        self._place = place
        self._links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "a":
            name, given = self._link(values)
            self._links.append(name)
            self._open(name, given)
        elif tag == "img":
            self._image(values)
        else:
            self._open(tag, values)

    def handle_endtag(self, tag: str) -> None:
        name = self._links.pop() if tag == "a" and self._links else tag
        self.parts.append(f"</{name}>")

    def handle_data(self, data: str) -> None:
        self.parts.append(escape(data, quote=False))

    def handle_entityref(self, name: str) -> None:
        self.parts.append(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.parts.append(f"&#{name};")

    def _open(self, tag: str, values: Mapping[str, str | None]) -> None:
        given = "".join(f' {name}="{escape(value or "")}"' for name, value in values.items())
        self.parts.append(f"<{tag}{given}>")

    def _link(self, values: dict[str, str | None]) -> tuple[str, dict[str, str | None]]:
        href = values.pop("href", None)
        if href is None:
            return "span", values
        leads = target(href, self._place)
        if leads.href is None:
            return "span", values | {"title": leads.note}
        rel = {"rel": "noopener noreferrer"} if leads.external else {}
        return "a", {**values, "href": leads.href, **rel}

    def _image(self, values: dict[str, str | None]) -> None:
        """An image is not shown: it is neither ours nor synced. Within a link, its text stands for it."""
        alt = values.get("alt") or "image"
        leads = target(values["src"] or "", self._place) if values.get("src") else Target(note="not a web link")
        if self._links or leads.href is None:
            note = values.get("title") or leads.note or "an image, which is not shown"
            self._open("span", {"title": note})
            self.parts.append(f"{escape(alt, quote=False)}</span>")
            return
        given = {"href": leads.href, "title": "an image, which is not shown here"}
        self._open("a", given | ({"rel": "noopener noreferrer"} if leads.external else {}))
        self.parts.append(f"{escape(alt, quote=False)}</a>")
