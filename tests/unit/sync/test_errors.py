"""Errors keep what they say, also on their way from another process."""

from __future__ import annotations

import copy
import pickle

import pytest

from lz_sync_dagster.sync.errors import LayerBusy, Reason, SyncError
from lz_sync_dagster.sync.state.observation import InvalidAsset


@pytest.mark.parametrize(
    "error",
    [
        SyncError("is slow", where="there", remedy="wait", reason=Reason.QUOTA, transient=False, retry_after=7.0),
        LayerBusy("api", "host:1:a"),
        InvalidAsset("has no name", "asset"),
    ],
    ids=["plain", "of two arguments", "of other arguments"],
)
def test_an_error_travels_between_processes(error: SyncError) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)
