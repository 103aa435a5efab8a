"""Reads ``ENFORCEMENT_GATES.md``: gates from its tables and from its sections.

A table counts if its header names a gate and at least one of phase, severity, blocks, validation and status. A
section counts if its heading begins with an id (``GATE-01: Title``, ``Gate 3 - Title``, ``[GATE-01] Title``); its list
items and lines ``Severity: high``, lists below ``Validation:``, and headings ``Validation`` below it fill what a table
left open.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from markdown_it.token import Token

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.git import markdown
from lz_sync_dagster.sync.store.repository import Gate

GATES_PATH = "ENFORCEMENT_GATES.md"
#: Characters of a gate's id that are kept.
MAX_ID = 128

_COLUMNS = {
    "gate_id": ("id", "gate", "gate id", "#", "no", "no."),
    "title": ("title", "name", "description", "gate name", "rule", "requirement"),
    "phase": ("phase", "stage"),
    "severity": ("severity", "level", "priority"),
    "blocks": ("blocks", "blocking", "blocked action", "blocks what"),
    "validation": ("validation", "check", "validated by", "how it is checked"),
    "status": ("status", "state"),
}
_NAMES = {name: field for field, names in _COLUMNS.items() for name in names}
_DETAILS = ("phase", "severity", "blocks", "validation", "status")
_ID = r"gate[ \-_]?\d+[a-z]?|[A-Z]{1,8}-\d+"
_SECTION = re.compile(rf"^(?:({_ID})\s*[:\-–—.]|\[({_ID})\])\s*(\S.*)$", re.IGNORECASE)
_PROPERTY = re.compile(r"^([A-Za-z ]{2,24}):\s*(.*)$")


@dataclass(frozen=True, slots=True)
class _Found:
    gate_id: str
    title: str
    line: int
    details: dict[str, str]


def read_gates(path: str, text: str, commit: str) -> list[Gate]:
    """The gates in the order of their first mention; a gate in a table and in a section is one gate.

    Raises:
        SyncError: the text is not empty and no gate is found in it.
    """
    tokens = markdown.parse(text)
    gates: dict[str, _Found] = {}
    for found in sorted((*_from_tables(tokens), *_from_sections(tokens)), key=lambda found: found.line):
        key = _key(found.gate_id[:MAX_ID])
        known = gates.get(key)
        if known is None:
            gates[key] = found
        else:
            title = known.title if known.title != known.gate_id else found.title
            gates[key] = replace(known, title=title, details={**found.details, **known.details})
    if not gates and text.strip():
        raise SyncError(
            "has no gate that can be read",
            where=path,
            remedy="give it a table with the columns Gate, Phase, Severity, Blocks, Validation and Status; "
            "until then the gates of before are shown",
            reason=Reason.INVALID,
        )
    return [
        Gate(
            gate_id=found.gate_id[:MAX_ID],
            title=found.title,
            phase=found.details.get("phase"),
            severity=found.details.get("severity"),
            blocks=found.details.get("blocks"),
            validation=found.details.get("validation"),
            status=found.details.get("status"),
            path=path,
            line=found.line,
            commit_sha=commit,
        )
        for found in gates.values()
    ]


def _from_tables(tokens: list[Token]) -> list[_Found]:
    gates: list[_Found] = []
    columns: list[str | None] = []
    cells: list[str] = []
    line, in_head = 1, False
    for position, token in enumerate(tokens):
        if token.type == "thead_open":
            in_head, columns = True, []
        elif token.type == "tr_open":
            cells, line = [], markdown.line_of(token)
        elif token.type in ("th_open", "td_open"):
            cells.append(markdown.plain(tokens[position + 1]))
        elif token.type == "tr_close" and in_head:
            columns, in_head = _columns(cells), False
        elif token.type == "tr_close" and "gate_id" in columns:
            row = {name: cell for name, cell in zip(columns, cells, strict=False) if name and cell}
            gate_id = row.get("gate_id")
            if gate_id:
                details = {name: row[name] for name in _DETAILS if name in row}
                gates.append(_Found(gate_id, row.get("title", gate_id), line, details))
    return gates


def _columns(cells: list[str]) -> list[str | None]:
    """The field of each column. Each is taken once: of ``ID | Gate`` the first is the id, the second the title."""
    names: list[str | None] = []
    for cell in cells:
        name = _NAMES.get(cell.lower().strip(" :"))
        if name == "gate_id" and name in names:
            name = "title"
        names.append(name if name not in names else None)
    if "gate_id" not in names and "title" in names:
        names[names.index("title")] = "gate_id"
    return names if "gate_id" in names and any(name in names for name in _DETAILS) else []


def _from_sections(tokens: list[Token]) -> list[_Found]:
    gates: list[_Found] = []
    sections = markdown.headings(tokens)
    for number, heading in enumerate(sections):
        match = _SECTION.match(heading.text)
        if match is None:
            continue
        below = sections[number + 1 :]
        ends = (other for other in below if other.level <= heading.level or _SECTION.match(other.text))
        end = next(ends, None)
        details = _details(tokens, heading.position + 3, end.position if end is not None else len(tokens))
        gates.append(_Found(match.group(1) or match.group(2), match.group(3), heading.line, details))
    return gates


def _details(tokens: list[Token], start: int, end: int) -> dict[str, str]:
    """What the lines of a section say. A name without a value takes the list items below it; a heading that is a name
    takes the text below it."""
    stated: dict[str, str] = {}
    collected: dict[str, list[str]] = {}
    open_name: str | None = None
    open_level = 0
    is_heading = False
    for position in range(start, end):
        token = tokens[position]
        if token.type == "heading_open":
            title = markdown.plain(tokens[position + 1]).lower().strip(" :")
            name = _NAMES.get(title)
            open_name, is_heading = (name if name in _DETAILS else None), True
        elif token.type != "inline" or tokens[position - 1].type in ("heading_open", "th_open", "td_open"):
            continue
        else:
            if not is_heading and token.level <= open_level:
                open_name = None
            for text in markdown.lines(token):
                fact = _PROPERTY.match(text)
                name = _NAMES.get(fact.group(1).lower().strip()) if fact else None
                if fact and name in _DETAILS:
                    if fact.group(2):
                        stated.setdefault(name, fact.group(2).strip())
                        open_name = open_name if is_heading else None
                    else:
                        open_name, open_level, is_heading = name, token.level, False
                elif open_name is not None and text:
                    collected.setdefault(open_name, []).append(text)
    return {**{name: "; ".join(texts) for name, texts in collected.items()}, **stated}


def _key(gate_id: str) -> str:
    return re.sub(r"[\s_]+", "-", gate_id.strip().casefold())
