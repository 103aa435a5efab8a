"""What the Markdown readers share: parsing to tokens, and the plain text of an inline token."""

from __future__ import annotations

from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.token import Token

_PARSER = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading. ``line`` counts from 1; ``position`` is its index among the tokens."""

    level: int
    text: str
    line: int
    position: int


def parse(text: str) -> list[Token]:
    """The block tokens of a Markdown text (CommonMark and tables)."""
    return _PARSER.parse(text)


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
    """The text of an inline token, without its markup."""
    parts = []
    for child in token.children or []:
        if child.type in ("text", "code_inline"):
            parts.append(child.content)
        elif child.type == "image":
            parts.append(plain(child))
        elif child.type in ("softbreak", "hardbreak"):
            parts.append(" ")
    return "".join(parts).strip()
