"""dbt as a step of Dagster: what it gets to see, and how its failures are told apart."""

import os
from typing import Any

import dagster as dg
import pytest

from lz_sync_dagster.config import Settings
from lz_sync_dagster.defs.analytics.assets import dbt_error
from lz_sync_dagster.defs.resources import dbt_resource


def test_dbt_is_told_its_own_variables_and_none_of_ours(
    monkeypatch: pytest.MonkeyPatch, default_settings: Settings
) -> None:
    secrets = ("LZ_SYNC_GIT_TOKEN", "LZ_SYNC_WEBHOOK_SECRETS", "LZ_SYNC_STORE__URL")
    for name in secrets:
        monkeypatch.setenv(name, "a secret")
    monkeypatch.setenv("LZ_DBT_SOURCE", "another")
    given = dg.ResourceDefinition.hardcoded_resource(default_settings)
    with dg.build_resources({"dbt": dbt_resource, "settings": given}):
        assert [name for name in os.environ if name.startswith("LZ_SYNC_")] == []
        assert os.environ["LZ_DBT_SOURCE"] == "gcp-landing-zone"
    assert [os.environ[name] for name in secrets] == ["a secret"] * 3
    assert os.environ["LZ_DBT_SOURCE"] == "another"
    assert "LZ_DBT_RAW_DIR" not in os.environ


class Ended:
    """A dbt process that ended, with these results."""

    def __init__(self, *results: dict[str, str], error: str | None = None) -> None:
        self.results, self.error = results, error

    def get_artifact(self, _name: str) -> dict[str, Any]:
        if self.error is not None:
            raise FileNotFoundError
        return {"results": self.results}

    def get_error(self) -> Exception:
        return RuntimeError(self.error)


@pytest.mark.parametrize(
    ("ended", "transient"),
    [
        (Ended({"status": "error", "unique_id": "model.m", "message": "503 POST https://bigquery: busy"}), True),
        (Ended({"status": "fail", "unique_id": "test.t", "message": "Got 3 results"}), False),
        (Ended(error="IO Error: Could not set lock on file"), True),
        (Ended(error="Error: no profile"), False),
    ],
)
def test_a_step_tries_again_what_a_foreground_build_tries_again(ended: Ended, transient: bool) -> None:
    assert dbt_error(ended).transient is transient  # type: ignore[arg-type]
