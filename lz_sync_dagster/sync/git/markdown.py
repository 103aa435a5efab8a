"""What the Markdown readers share: front matter, parsing to tokens, and the plain text of an inline token."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

_PARSER = MarkdownIt("commonmark").enable("table")
_FRONT_MATTER = re.compile(
    r"\A\ufeff?---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\r|\Z)", re.DOTALL | re.MULTILINE
)
#: Front matter is short; a longer text between two rules is none.
_MAX_FRONT_MATTER = 20_000
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading. ``line`` counts from 1; ``position`` is its index among the tokens."""

    level: int
    text: str
    line: int
    position: int


def split(text: str) -> tuple[Mapping[str, Any], str]:
    """The YAML front matter of a text, and the text without it: as many lines as before, so that line numbers hold.

    What stands between rules at the top and is no mapping in YAML is text.
    """
    text = text.removeprefix("\ufeff")
    match = _FRONT_MATTER.match(text)
    if match is None or len(match[1]) > _MAX_FRONT_MATTER:
        return {}, text
    try:
        data = yaml.safe_load(match[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}, text
    if not isinstance(data, dict) and (data is not None or match[1].strip()):
        return {}, text
    return data or {}, "\n" * len(re.findall(r"\r\n?|\n", match[0])) + text[match.end() :]


def parse(text: str) -> list[Token]:
    """The block tokens of a Markdown text (CommonMark and tables), front matter left out."""
    return _PARSER.parse(split(text)[1])


def lines_of(text: str) -> list[str]:
    """The lines that line numbers of tokens count, front matter empty."""
    return re.split(r"\r\n?|\n", split(text)[1])


def headings(tokens: list[Token]) -> list[Heading]:
    """The headings, in order."""
    return [
        Heading(int(token.tag[1:]), plain(tokens[position + 1]), line_of(token), position)
        for position, token in enumerate(tokens)
        if token.type == "heading_open"
    ]


def line_of(token: Token) -> int:
    """The line at which a block token begins, from 1."""
    return token.map[0] + 1 if token.map else 1


def plain(token: Token) -> str:
    """The text of an inline token, without its markup; a line break is a space."""
    return " ".join(line for line in lines(token) if line)


def lines(token: Token) -> list[str]:
    """The lines of an inline token, without their markup."""
    found = [""]
    for child in token.children or []:
        if child.type in ("text", "code_inline"):
            found[-1] += child.content
        elif child.type == "image":
            found[-1] += plain(child)
        elif child.type in ("softbreak", "hardbreak") or (child.type == "html_inline" and _BREAK.match(child.content)):
            found.append("")
    return [line.strip() for line in found]
