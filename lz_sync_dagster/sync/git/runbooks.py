"""Reads a runbook: its sections and the commands in their fenced code."""

from __future__ import annotations

from typing import Any

from lz_sync_dagster.sync.git import markdown
from lz_sync_dagster.sync.store.repository import RunbookSection

_SHELLS = frozenset({"", "bash", "sh", "shell", "console", "zsh", "shell-session"})


def is_runbook(path: str) -> bool:
    """``RUNBOOKS.md`` anywhere, and Markdown files in a folder ``runbooks``."""
    *folders, name = path.lower().split("/")
    return name == "runbooks.md" or ("runbooks" in folders and name.endswith(".md"))


def read_runbook(path: str, text: str, *, commit: str) -> list[RunbookSection]:
    """One record per heading. A fence in a shell language, or in none, is a command; prompts (``$ ``) are dropped."""
    tokens = markdown.parse(text)
    found = markdown.headings(tokens)
    sections = []
    for number, heading in enumerate(found):
        end = found[number + 1].position if number + 1 < len(found) else len(tokens)
        commands: list[dict[str, Any]] = []
        for token in tokens[heading.position : end]:
            language = (token.info.split() or [""])[0].lower()
            if token.type == "fence" and language in _SHELLS:
                lines = [line.removeprefix("$ ") for line in token.content.rstrip().splitlines()]
                commands.append(
                    {"language": language or "sh", "command": "\n".join(lines), "line": markdown.line_of(token) + 1}
                )
        sections.append(RunbookSection(path, heading.line, heading.text, commands, commit))
    return sections
