"""What is logged has no secrets, whoever logs it."""

from __future__ import annotations

import logging

import pytest
import structlog

from lz_sync_dagster.sync.logging import configure_logging

pytestmark = pytest.mark.usefixtures("kept_logs")
TOKEN = "ghp_" + "a" * 36


@pytest.mark.parametrize("json", [True, False])
def test_neither_a_message_nor_a_field_nor_an_exception_shows_a_secret(
    json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(json=json)
    try:
        raise ValueError(f"cannot use {TOKEN}")
    except ValueError:
        structlog.get_logger().exception("failed", password="hunter2", header=f"Authorization: Bearer {TOKEN}")
        logging.getLogger("library").exception("failed with %s", TOKEN)
    said = capsys.readouterr().err
    assert TOKEN not in said
    assert "hunter2" not in said
    assert said.count("cannot use [redacted]") == 2
