"""Reads a runbook: its sections and the commands in their code."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from markdown_it.token import Token

from lz_sync_dagster.sync.git import markdown
from lz_sync_dagster.sync.store.repository import RunbookSection

_SHELLS = frozenset({"", "bash", "sh", "shell", "console", "zsh", "shell-session"})
#: Languages of a session: what has a prompt is typed, the rest is what the machine answered.
_SESSIONS = frozenset({"console", "shell-session"})
_PROMPT = "$ "


def is_runbook(path: str) -> bool:
    """``RUNBOOKS.md`` anywhere, and Markdown files in a folder ``runbooks``."""
    *folders, name = path.lower().split("/")
    return name == "runbooks.md" or ("runbooks" in folders and name.endswith(".md"))


def read_runbook(path: str, text: str, *, commit: str) -> list[RunbookSection]:
    """One record per heading; commands above the first heading belong to a section with the file's name.

    A fence in a shell language, or in none, is a command. Prompts (``$ ``) are dropped, and in a session with prompts
    the answers too.
    """
    tokens = markdown.parse(text)
    starts = _starts(path, tokens)
    sections = []
    for number, (position, line, title) in enumerate(starts):
        end = starts[number + 1][0] if number + 1 < len(starts) else len(tokens)
        commands = [command for token in tokens[position:end] if (command := _command(token)) is not None]
        sections.append(RunbookSection(path, line, title, commands, commit))
    return sections


def section_texts(path: str, text: str) -> dict[str, str]:
    """The text of each section, by heading. The second section with a heading has `` (2)`` after it, and so on."""
    tokens = markdown.parse(text)
    starts = _starts(path, tokens)
    lines = markdown.lines_of(text)
    found: dict[str, str] = {}
    ends = [*(line - 1 for _, line, _ in starts[1:]), len(lines)]
    for (_, line, title), end in zip(starts, ends, strict=True):
        name, number = title, 2
        while name in found:
            name, number = f"{title} ({number})", number + 1
        found[name] = "\n".join(one.rstrip() for one in lines[line - 1 : end]).strip()
    return found


def _starts(path: str, tokens: list[Token]) -> list[tuple[int, int, str]]:
    """Position, line and title of each section."""
    starts = [(heading.position, heading.line, heading.text) for heading in markdown.headings(tokens)]
    if any(token.type == "fence" for token in tokens[: starts[0][0] if starts else len(tokens)]):
        starts.insert(0, (0, 1, PurePosixPath(path).stem))
    return starts


def _command(token: Token) -> dict[str, Any] | None:
    if token.type != "fence":
        return None
    language = (token.info.split() or [""])[0].lower()
    if language not in _SHELLS:
        return None
    lines = token.content.rstrip().splitlines()
    if language in _SESSIONS and any(line.startswith(_PROMPT) for line in lines):
        lines = _typed(lines)
    typed = [line.removeprefix(_PROMPT) for line in lines]
    return {"language": language or "sh", "command": "\n".join(typed), "line": markdown.line_of(token) + 1}


def _typed(lines: list[str]) -> list[str]:
    found: list[str] = []
    continued = False
    for line in lines:
        if line.startswith(_PROMPT) or continued:
            found.append(line)
            continued = line.endswith("\\")
    return found
