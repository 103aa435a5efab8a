"""The definitions, built once a session, with nothing but the defaults of the configuration."""

from __future__ import annotations

import warnings
from pathlib import Path

import dagster as dg
import pytest

from lz_sync_dagster.config import Settings, load_settings

with warnings.catch_warnings():  # of packages that these two import, at import
    warnings.simplefilter("ignore")
    import dagster_dbt  # noqa: F401
    import dagster_gcp  # noqa: F401

from lz_sync_dagster.definitions import build_defs


@pytest.fixture(scope="session")
def default_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(environ={"LZ_SYNC_DATA_DIR": str(tmp_path_factory.mktemp("data"))})


@pytest.fixture(scope="session")
def definitions(default_settings: Settings) -> dg.Definitions:
    return build_defs(default_settings)


@pytest.fixture(scope="session")
def repository(definitions: dg.Definitions) -> dg.RepositoryDefinition:
    return definitions.get_repository_def()


@pytest.fixture
def instance(tmp_path: Path) -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral(tempdir=str(tmp_path))
