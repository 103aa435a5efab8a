"""What an address asks of the inventory's pages, and the addresses of what may be asked. Pure.

An address is written by anybody: what is no valid question is left out, and said.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from urllib.parse import urlencode

import orjson

from lz_sync_dagster.sync.store.resource_views import Dimension, Place, ResourceFilter, Sort
from lz_sync_dagster.sync.timing import format_ns, from_ns, parse_ns, to_ns

INFRASTRUCTURE_PAGE = "/lz-sync/infrastructure"
RESOURCE_PAGE = f"{INFRASTRUCTURE_PAGE}/resource"
COVERAGE_PAGE = "/lz-sync/coverage"
DRIFT_PAGE = "/lz-sync/drift"
EXPORT = "/api/v1/resources/export"

#: Values that a filter by one dimension may have, and characters of a text.
MANY, LONG = 100, 1_024
_CONTENT = re.compile(r"[A-Z_]{1,16}")
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)(:\d\d(?:\.\d{1,9})?)?(?: ?UTC|Z)?", re.ASCII | re.IGNORECASE)
_NUMBERS = frozenset({Sort.UPDATED, Sort.VIOLATIONS})
_FLAGS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class ListQuestion:
    """Which resources, in which order, of which instant, from which place on. ``as_of_ns`` is ``None`` for now."""

    where: ResourceFilter = field(default_factory=ResourceFilter)
    sort: Sort = Sort.NAME
    descending: bool = False
    as_of_ns: int | None = None
    after: Place | None = None
    before: Place | None = None

    def but(self, where: ResourceFilter) -> ListQuestion:
        """The same of other resources, from the beginning."""
        return replace(self, where=where, after=None, before=None)

    def by(self, sort: Sort) -> ListQuestion:
        """Sorted by something else; by the same, the other way round. Numbers and times begin with the largest."""
        descending = not self.descending if sort is self.sort else sort in _NUMBERS
        return replace(self, sort=sort, descending=descending, after=None, before=None)

    def at(self, as_of_ns: int | None) -> ListQuestion:
        """The same at another instant."""
        return replace(self, as_of_ns=as_of_ns, after=None, before=None)

    def toggled(self, by: Dimension, value: str) -> ListQuestion:
        """With a value more of a dimension, or without it."""
        values = chosen(self.where, by)
        others = tuple(item for item in values if item != value)
        wanted = others if value in values else tuple(sorted((*values, value)))
        if by is Dimension.ASSET_TYPE:
            return self.but(replace(self.where, asset_types=wanted))
        if by is Dimension.PROJECT:
            return self.but(replace(self.where, projects=wanted))
        return self.but(replace(self.where, locations=wanted))


def chosen(where: ResourceFilter, by: Dimension) -> tuple[str, ...]:
    """The values that a filter has of a dimension."""
    if by is Dimension.ASSET_TYPE:
        return where.asset_types
    return where.projects if by is Dimension.PROJECT else where.locations


# --- reading addresses ------------------------------------------------------------------------------------------------


def list_question(asked: Iterable[tuple[str, str]], now: datetime) -> tuple[ListQuestion, list[str]]:
    """What the parameters of an address ask for, and what of them is not understood, a sentence each."""
    values: dict[str, list[str]] = {}
    notes: list[str] = []
    for name, value in asked:
        if len(value) > LONG * 4 or "\0" in value:
            notes.append(f"The value of “{name[:40]}” is no text to look for, and is left out.")
        else:
            values.setdefault(name, []).append(value)

    def one(name: str) -> str | None:
        return values.get(name, [None])[-1] or None

    def several(name: str) -> tuple[str, ...]:
        found = sorted({value for value in values.get(name, []) if 0 < len(value) <= LONG})
        if len(found) > MANY:
            notes.append(f"Of “{name}”, only the first {MANY} values are heeded.")
        return tuple(found[:MANY])

    content = one("content_type") or "RESOURCE"
    if not _CONTENT.fullmatch(content):
        notes.append("There is no such content type; resources are shown.")
        content = "RESOURCE"
    violations = one("violations")
    if violations is not None and violations not in _FLAGS:
        notes.append("“violations” is true or false, and is left out.")
    where = ResourceFilter(
        content_type=content,
        asset_types=several("type"),
        projects=several("project"),
        scopes=several("scope"),
        locations=several("location"),
        q=(one("q") or "")[:LONG] or None,
        has_findings=_FLAGS.get(violations or ""),
        deleted=one("deleted") == "true",
        changed_since_ns=instant(one("since"), now, "since", notes),
    )
    sort, descending = _sort(one("sort"), notes)
    question = ListQuestion(where, sort, descending, instant(one("as_of"), now, "as_of", notes))
    after, before = _place(one("after"), sort, notes), _place(one("before"), sort, notes)
    return replace(question, after=after, before=None if after else before), notes


def instant(text: str | None, now: datetime, name: str, notes: list[str]) -> int | None:
    """An instant of the past in nanoseconds; if it is none, ``None`` and a note."""
    if text is None:
        return None
    try:
        number = parse_ns(_rfc3339(text))
    except (ValueError, OverflowError):
        notes.append(f"“{name}” is no instant such as 2026-01-31T12:00:00Z, and is left out.")
        return None
    if not 0 <= number <= to_ns(now):
        notes.append(f"“{name}” is not in the past, and is left out.")
        return None
    return number


def _rfc3339(text: str) -> str:
    """An instant as the pages write it, maybe without its seconds. A plus sign of an address arrives as a space."""
    said = _INSTANT.fullmatch(text.strip())
    if said is None:
        return text.replace(" ", "+")
    day, time, seconds = said.groups()
    return f"{day}T{time}{seconds or ':00'}Z"


def _sort(text: str | None, notes: list[str]) -> tuple[Sort, bool]:
    try:
        return Sort((text or Sort.NAME).removeprefix("-")), (text or "").startswith("-")
    except ValueError:
        notes.append("The list cannot be sorted by that; it is sorted by name.")
        return Sort.NAME, False


def write_place(place: Place) -> str:
    """A place in a list, for an address."""
    return base64.urlsafe_b64encode(orjson.dumps(place)).decode().rstrip("=")


def _place(text: str | None, sort: Sort, notes: list[str]) -> Place | None:
    if text is None:
        return None
    try:
        found = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        part, key, name = found
        kind = int if sort in _NUMBERS else str
        bare = key is None and (part == 1 or sort is Sort.NAME)
        valid = part in (0, 1) and isinstance(name, str) and (bare or (isinstance(key, kind) and part == 0))
        texts = [value for value in (key, name) if isinstance(value, str)]
        large = isinstance(key, int) and abs(key) >= 2**63
    except (binascii.Error, ValueError, TypeError):
        valid = False
    if not valid or large or isinstance(key, bool) or isinstance(part, bool) or any("\0" in value for value in texts):
        notes.append("The address names no place in this list; it is shown from its beginning.")
        return None
    return (part, key, name)


# --- writing addresses ------------------------------------------------------------------------------------------------


def list_address(question: ListQuestion) -> str:
    """The address of a list."""
    places = (("after", question.after), ("before", question.before))
    pairs = [
        *_filter(question.where),
        *_given("sort", _sort_text(question)),
        *_given("as_of", None if question.as_of_ns is None else format_ns(question.as_of_ns)),
        *((name, write_place(place)) for name, place in places if place is not None),
    ]
    return _address(INFRASTRUCTURE_PAGE, pairs)


def export_address(question: ListQuestion, file_format: str) -> str:
    """The address of everything that a list has, as a file."""
    as_of = None if question.as_of_ns is None else format_ns(question.as_of_ns)
    return _address(EXPORT, [("format", file_format), *_filter(question.where), *_given("as_of", as_of)])


def resource_address(name: str, as_of_ns: int | None = None) -> str:
    """The address of one resource's page."""
    return _address(
        RESOURCE_PAGE, [("name", name), *_given("as_of", None if as_of_ns is None else format_ns(as_of_ns))]
    )


def coverage_address(
    *,
    part: tuple[str, str, str] | None = None,
    as_of_ns: int | None = None,
    before: int | None = None,
    problems: bool = False,
) -> str:
    """The address of the coverage matrix, or of one part of it.

    Args:
        before: where the part's history goes on.
        problems: of the parts that were not read completely only.
    """
    pairs = [] if part is None else list(zip(("scope", "type", "content_type"), part, strict=True))
    as_of = None if as_of_ns is None else format_ns(as_of_ns)
    more = (("as_of", as_of), ("before", None if before is None else str(before)))
    status = "problems" if problems else None
    return _address(
        COVERAGE_PAGE, [*pairs, *_given("status", status), *(pair for each in more for pair in _given(*each))]
    )


def drift_address(**asked: str | None) -> str:
    """The address of terraform's list with these parameters."""
    return _address(DRIFT_PAGE, [pair for name, value in asked.items() for pair in _given(name, value)])


def _filter(where: ResourceFilter) -> list[tuple[str, str]]:
    flag = None if where.has_findings is None else str(where.has_findings).lower()
    return [
        *_given("q", where.q),
        *(("type", value) for value in where.asset_types),
        *(("project", value) for value in where.projects),
        *(("scope", value) for value in where.scopes),
        *(("location", value) for value in where.locations),
        *_given("violations", flag),
        *_given("deleted", "true" if where.deleted else None),
        *_given("since", None if where.changed_since_ns is None else format_ns(where.changed_since_ns)),
        *_given("content_type", None if where.content_type == "RESOURCE" else where.content_type),
    ]


def _sort_text(question: ListQuestion) -> str | None:
    text = ("-" if question.descending else "") + question.sort.value
    return None if text == Sort.NAME else text


def _given(name: str, value: str | None) -> list[tuple[str, str]]:
    return [] if value is None else [(name, value)]


def _address(path: str, pairs: Sequence[tuple[str, str]]) -> str:
    return f"{path}?{urlencode(pairs)}" if pairs else path


# --- the slider -------------------------------------------------------------------------------------------------------

#: Steps of the slider: the finest one is taken with which it has at most `STEPS`.
_STEPS_OF = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 30, 60, 180, 360, 720, 1440))
STEPS = 500


@dataclass(frozen=True, slots=True)
class Timeline:
    """Instants to choose from: ``first``, then each whole ``step``; the last position, ``count``, is now."""

    first: datetime
    step: timedelta
    count: int

    @classmethod
    def over(cls, first: datetime, now: datetime) -> Timeline:
        """From an instant until now."""
        length = max(now - first, timedelta(0))
        step = next((step for step in _STEPS_OF if length / step <= STEPS), _STEPS_OF[-1])
        begun = from_ns(to_ns(first) // _ns(step) * _ns(step))
        return cls(first, step, max(1, -(-(now - begun) // step)))

    def at(self, position: int) -> int | None:
        """The instant of a position, in nanoseconds; ``None`` for now."""
        if position >= self.count:
            return None
        return max(to_ns(self.first), (to_ns(self.first) // _ns(self.step) + max(0, position)) * _ns(self.step))

    def position(self, as_of_ns: int | None) -> int:
        """The position that is next to an instant."""
        if as_of_ns is None:
            return self.count
        return min(self.count, max(0, as_of_ns // _ns(self.step) - to_ns(self.first) // _ns(self.step)))


def _ns(length: timedelta) -> int:
    return length // timedelta(microseconds=1) * 1_000
