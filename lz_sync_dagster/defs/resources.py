"""What assets, sensors and checks work with. Each resource is a plain object of the domain; it knows nothing of
Dagster."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from lz_sync_dagster.config import ENV_PREFIX, Settings, load_settings
from lz_sync_dagster.defs.dbt import Dbt
from lz_sync_dagster.sync.analytics import transform
from lz_sync_dagster.sync.store import Store, open_store
from lz_sync_dagster.sync.timing import Clock, utcnow


@dg.resource(description="What to sync, how often and from where: sync_config.yaml and the environment.")
def settings_resource(_context: dg.InitResourceContext) -> Settings:
    return load_settings()


@dg.resource(description="The operational store (SQLite or PostgreSQL).", required_resource_keys={"settings"})
def store_resource(context: dg.InitResourceContext) -> Iterator[Store]:
    with open_store(context.resources.settings.store_url) as store:
        yield store


@dg.resource(description="Tells the present instant.")
def clock_resource(_context: dg.InitResourceContext) -> Clock:
    return utcnow


@dg.resource(description="dbt, on the project and the warehouse of the settings.", required_resource_keys={"settings"})
def dbt_resource(context: dg.InitResourceContext) -> Iterator[Dbt]:
    project = str(transform.project_dir())
    hidden = dict.fromkeys(name for name in os.environ if name.startswith(ENV_PREFIX))
    with _environment({**hidden, **transform.environment(context.resources.settings)}):
        yield Dbt(
            project_dir=project,
            profiles_dir=project,
            dbt_executable=str(Path(sys.executable).with_name("dbt")),
            global_config_flags=["--no-use-colors", "--no-version-check"],
        )


@contextmanager
def _environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set these variables, or remove them (``None``), until the block ends.

    dbt inherits this process's environment. Its profile reads variables of its own; the settings, and with them the
    secrets, are no business of its.
    """
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def resources() -> dict[str, Any]:
    """The resources of the code location, by name."""
    return {"settings": settings_resource, "store": store_resource, "clock": clock_resource, "dbt": dbt_resource}
