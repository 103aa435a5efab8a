"""dagster-dbt, without dbt-core in this process.

Each run is a process that loads all definitions. dbt-core takes longer to import than everything else together, and
nothing here uses it: dbt runs as a subprocess, and a manifest is read as it is. dagster-dbt can do without, since it
also drives dbt Fusion, which is no Python package; it takes that way if dbt-core cannot be imported.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def _without_dbt_core() -> Iterator[None]:
    name = "dbt.version"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # what makes an import fail
    try:
        yield
    finally:
        del sys.modules[name]


with _without_dbt_core():
    from dagster_dbt import (
        DagsterDbtTranslator,
        DagsterDbtTranslatorSettings,
        DbtCliInvocation,
        DbtCliResource,
        dbt_assets,
    )

__all__ = [
    "DagsterDbtTranslator",
    "DagsterDbtTranslatorSettings",
    "Dbt",
    "DbtCliInvocation",
    "DbtCliResource",
    "dbt_assets",
]


class Dbt(DbtCliResource):
    """dbt's command line, without a connection of this process to the warehouse: only dbt opens that."""

    def _initialize_dbt_core_adapter(self, args: Sequence[str]) -> Any:  # noqa: ARG002
        return None
