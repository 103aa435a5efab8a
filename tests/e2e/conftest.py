"""One browser a session; a portal in a process of its own; a page that tells what goes wrong in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from lz_sync_dagster.sync.store import Store

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert chromium, "the browser tests need Chromium: install it, so that 'chromium' is on the PATH"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        yield launched
        launched.close()


_SERVE = """
import sys
from lz_sync_dagster.config import load_settings
from lz_sync_dagster.portal.server import serve
from lz_sync_dagster.sync.store import open_store
settings = load_settings(sys.argv[1])
with open_store(settings.store_url, migrate=False) as store:
    serve(settings, store, "127.0.0.1", 0)
"""


@contextmanager
def portal_over(store: Store, folder: Path, repository: str = "") -> Iterator[str]:
    """A portal over the same store file, in a process of its own; its address.

    Args:
        repository: the web page of the landing zone's repository.
    """
    config = folder / "config.yaml"
    landing_zone = "name: example/landing-zone" + (f", page: '{repository}'" if repository else "")
    config.write_text(f"store: {{url: '{store.engine.url}'}}\nlanding_zone: {{{landing_zone}}}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LZ_SYNC_", "PYTEST_"))}
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(config)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment | {"PYTHONPATH": str(root)},
        cwd=folder,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "http://" in line, "the portal did not start"
    yield "http://" + line.split("http://")[1].strip()
    process.terminate()
    assert process.wait(timeout=10) == 0
    process.stdout.close()


@pytest.fixture
def url(sqlite_store: Store, tmp_path: Path) -> Iterator[str]:
    """The address of a portal over the test's store."""
    with portal_over(sqlite_store, tmp_path) as address:
        yield address


@pytest.fixture
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """A page that fails the test if anything goes wrong in it, or if it asks another host. The portal outlives it."""
    request.getfixturevalue("served" if "served" in request.fixturenames else "url")
    opened = browser.new_page(viewport={"width": 1280, "height": 800})
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    opened.on("request", lambda request: None if "//127.0.0.1:" in request.url else _foreign(request.url, wrong))
    yield opened
    opened.close()
    assert wrong == []


def _foreign(url: str, wrong: list[str]) -> None:
    if not url.startswith("data:"):
        wrong.append(f"asks {url}")
