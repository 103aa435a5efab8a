"""The documentation names what there is, and nothing else: settings, routes, metrics, controls, commands, links."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.routing import WebSocketRoute

from demo.__main__ import app as demo
from lz_sync_dagster.cli import app as lz_sync
from lz_sync_dagster.config import ENV_PREFIX, SECRETS, Settings, load_settings
from lz_sync_dagster.portal import api, feed, health, webhooks
from lz_sync_dagster.portal.app import create_app
from lz_sync_dagster.sync.compliance.controls import Control, load_controls
from lz_sync_dagster.sync.models import EventType, Status
from lz_sync_dagster.sync.store import Store

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


#: What ``lz-sync --help`` must not wait for.
HEAVY = ("dagster", "dagster_dbt", "dbt", "nicegui", "fastapi", "sqlalchemy", "pandas", "pyarrow", "grpc")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def code_in(text: str) -> list[str]:
    """Every piece of code: the lines of fenced blocks, and what stands between backticks."""
    fenced = re.compile(r"^```.*?^```", re.M | re.S)
    lines = [line for block in fenced.findall(text) for line in block.splitlines()[1:-1]]
    return lines + re.findall(r"`([^`\n]+)`", fenced.sub("", text))


def first_cells(text: str) -> list[list[str]]:
    """The code in the first cell of every table row."""
    return [re.findall(r"`([^`]+)`", line.split("|")[1]) for line in text.splitlines() if line.startswith("| `")]


# --- settings


def keys_of(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        below = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if below and below[0] is field.annotation:
            yield from (f"{name}.{key}" for key in keys_of(below[0]))
        else:
            yield name


def documented_keys() -> set[str]:
    """A row names keys; after the first one, those of the same section without its path."""
    section = read("docs/operations.md").split("\n## Settings\n")[1].split("\n## ")[0]
    found = set()
    for first, *others in first_cells(section):
        path = first.rpartition(".")[0]
        found |= {first, *(f"{path}.{key}" for key in others)}
    return found


def test_every_setting_is_documented_and_every_documented_setting_exists() -> None:
    assert documented_keys() == set(keys_of(Settings)).difference(SECRETS)


def test_every_environment_variable_in_the_documentation_is_read() -> None:
    known = {f"{ENV_PREFIX}{key.upper().replace('.', '__')}" for key in keys_of(Settings)} | {f"{ENV_PREFIX}CONFIG"}
    named = {name for page in PAGES for name in re.findall(rf"{ENV_PREFIX}[A-Z_]*[A-Z]", page.read_text("utf-8"))}
    assert named <= known
    assert {f"{ENV_PREFIX}{secret.upper()}" for secret in SECRETS} <= named


# --- the portal


@pytest.fixture
def portal(sqlite_store: Store, tmp_path: Path) -> FastAPI:
    return create_app(load_settings(environ={"LZ_SYNC_DATA_DIR": str(tmp_path)}), sqlite_store, pages=False)


def test_every_route_is_documented_and_every_documented_route_exists(portal: FastAPI) -> None:
    served = {(method.upper(), path) for path, methods in portal.openapi()["paths"].items() for method in methods}
    served |= {
        ("WebSocket", route.path)
        for part in (api, feed, health, webhooks)
        for route in part.router.routes
        if isinstance(route, WebSocketRoute)
    }
    assert portal.openapi_url is not None
    served.add(("GET", portal.openapi_url))
    documented = set(re.findall(r"`(GET|POST|PUT|PATCH|DELETE|WebSocket) (/[^\s`?]*)", read("docs/api.md")))
    assert documented == served


def test_every_parameter_is_documented_with_its_route(portal: FastAPI) -> None:
    sections = {
        heading.split("`")[1]: body
        for heading, body in itertools.pairwise(re.split(r"(?m)^(### .*)$", read("docs/api.md")))
        if heading.startswith("### ")
    }
    for path, methods in portal.openapi()["paths"].items():
        for method, operation in methods.items():
            section = sections[f"{method.upper()} {path}"]
            for parameter in operation.get("parameters", []):
                assert f"`{parameter['name']}`" in section, f"{path}: {parameter['name']}"


def test_every_status_and_every_event_type_is_documented() -> None:
    statuses = read("docs/operations.md").split("\n## What a status means\n")[1].split("\n## ")[0]
    assert {cell[0] for cell in first_cells(statuses)} == {status.value for status in Status}
    for event_type in EventType:
        assert f"`{event_type.value}`" in read("docs/api.md")


def test_every_metric_is_documented_and_every_documented_metric_exists(portal: FastAPI) -> None:
    answer = bytes(health.metrics(portal.state.portal).body).decode()
    served = set(re.findall(r"(?m)^# TYPE (\S+)", answer))
    assert {cell[0] for cell in first_cells(read("docs/metrics.md"))} == served
    assert set(re.findall(r"lz_sync_[a-z_]*[a-z]", read("docs/metrics.md"))) == served


# --- controls


def row_of(control: Control) -> str:
    types = ", ".join(f"`{name}`" for name in control.asset_types)
    return f"| {control.id} | {control.title} | {control.severity} | {types} | {control.content_type} |"


def test_the_table_of_controls_is_that_of_the_shipped_ones() -> None:
    ordered = sorted(load_controls().all, key=lambda control: [int(part) for part in control.id.split(".")])
    table = re.findall(r"(?m)^\| \d+(?:\.\d+)+ \|.*\| (?:RESOURCE|IAM_POLICY|ORG_POLICY) \|$", read("docs/controls.md"))
    assert table == [row_of(control) for control in ordered]
    assert {control.framework for control in ordered} == {"cis-v1.2"}


# --- commands


def commands_of(app: typer.Typer) -> dict[str, Any]:
    """The leaf commands by their words, e.g. ``db migrate``."""
    found: dict[str, Any] = {}

    def walk(command: Any, words: tuple[str, ...]) -> None:
        for name, below in getattr(command, "commands", {}).items():
            walk(below, (*words, name))
        if not hasattr(command, "commands"):
            found[" ".join(words)] = command

    walk(typer.main.get_command(app), ())
    return found


def expanded(line: str) -> list[str]:
    """``a {b,c}`` → ``a b``, ``a c``."""
    parts = re.split(r"\{([^}]*)\}", line)
    return [
        "".join(words)
        for words in itertools.product(*([p] if i % 2 == 0 else p.split(",") for i, p in enumerate(parts)))
    ]


def check_command(line: str) -> str:
    """Raises if ``lz-sync`` would not take a documented line; returns the command's words. ``[--option]`` names an
    option, without its value."""
    optional = set(re.findall(r"\[(-[^\]]*)\]", line))
    _, *words = shlex.split(re.sub(r"\[[^\]]*\]", "", line))
    commands = commands_of(lz_sync)
    name = next((key for key in (" ".join(words[:2]), words[0]) if key in commands), "")
    command = commands[name] if name else typer.main.get_command(lz_sync)
    assert optional <= {option for parameter in command.params for option in parameter.opts}, line
    command.make_context(name, words[len(name.split()) :], resilient_parsing=not name)
    return name


def test_every_lz_sync_command_in_the_documentation_exists_and_all_are_in_the_readme() -> None:
    lines = {page: [line for line in code_in(page.read_text("utf-8")) if line.startswith("lz-sync ")] for page in PAGES}
    named = {page: {check_command(one) for line in found for one in expanded(line)} for page, found in lines.items()}
    assert set(commands_of(lz_sync)) <= named[ROOT / "README.md"]


def targets() -> set[str]:
    return set(re.findall(r"(?m)^([a-z0-9-]+):", read("Makefile")))


def test_every_make_target_in_the_documentation_exists() -> None:
    lines = [line for page in PAGES for line in code_in(page.read_text("utf-8")) if line.startswith("make ")]
    assert len(lines) > 5
    demo_commands = {"demo": "up", "demo-once": "once"}
    for line in lines:
        _, target, *variables = shlex.split(line)
        assert target in targets(), line
        given = [word for variable in variables for word in shlex.split(variable.removeprefix("ARGS="))]
        if target in demo_commands:
            command = commands_of(demo)[demo_commands[target]]
            command.make_context(target, given)
        else:
            assert not given, line


def test_a_shell_block_of_the_readme_holds_make_and_lz_sync_commands_only() -> None:
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```", read("README.md"))
    assert blocks
    assert all(line.startswith(("make ", "lz-sync ")) for block in blocks for line in block.splitlines())


def test_help_starts_without_what_a_sync_needs() -> None:
    script = f"""
import sys
from lz_sync_dagster.cli import app
for words in ([], {", ".join(repr(name.split()) for name in commands_of(lz_sync))}):
    try:
        app([*words, "--help"], standalone_mode=False)
    except SystemExit as end:
        assert not end.code
print("loaded:", *(name for name in {HEAVY!r} if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded:"


# --- links


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text("utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
