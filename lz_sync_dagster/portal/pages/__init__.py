"""The "LZ Sync" pages, made with NiceGUI. They show what the store says, and write nothing."""

from __future__ import annotations

from fastapi import FastAPI

_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#12355b"/>'
    '<path fill="#fff" d="M8 13a9 9 0 0 1 15-3l2-2v7h-7l2.6-2.6A6 6 0 0 0 11 14z'
    'M24 19a9 9 0 0 1-15 3l-2 2v-7h7l-2.6 2.6A6 6 0 0 0 21 18z"/></svg>'
)


def mount(app: FastAPI) -> None:
    """Mount the pages on an application: below every path that nothing else answers. Once per process."""
    from nicegui import app as pages_app
    from nicegui import ui

    from lz_sync_dagster.portal import problems
    from lz_sync_dagster.portal.pages import coverage, drift, governance, infrastructure, knowledge, resource, status

    for page in (status, infrastructure, resource, coverage, drift, knowledge, governance):
        page.register()
    problems.install(pages_app)
    ui.run_with(
        app,
        title="LZ Sync",
        favicon=_ICON,
        language="en-US",
        tailwind=False,
        binding_refresh_interval=None,
        gzip_middleware_factory=None,
        reconnect_timeout=10.0,
        show_welcome_message=False,
    )
