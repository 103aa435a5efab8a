"""Google's errors become reasons with a remedy."""

from __future__ import annotations

import pytest
from google.api_core import exceptions as google
from google.rpc import error_details_pb2

from lz_sync_dagster.sync.errors import Reason
from lz_sync_dagster.sync.inventory.errors import classify


@pytest.mark.parametrize(
    ("message", "field", "expected"),
    [
        ("The page token has expired.", "page_token", Reason.TOKEN_EXPIRED),
        ("Request contains an invalid argument.", "page_token", Reason.TOKEN_EXPIRED),
        ("The asset type 'a/B' is not supported.", "", Reason.UNKNOWN_TYPE),
        ("Request contains an invalid argument.", "asset_types", Reason.UNKNOWN_TYPE),
        ("Request contains an invalid argument.", "", Reason.INVALID),
        ("'organizations/x' is not an organization, folder or project", "parent", Reason.INVALID),
        ("the security token of the request is malformed", "", Reason.INVALID),
    ],
)
def test_a_refused_argument_is_told_by_what_it_is_about(message: str, field: str, expected: Reason) -> None:
    violations = [error_details_pb2.BadRequest.FieldViolation(field=field)] if field else []
    refused = google.InvalidArgument(message, details=[error_details_pb2.BadRequest(field_violations=violations)])
    error = classify(refused, scope="organizations/1", asset_type="a/B")
    assert error.reason is expected
    if expected is Reason.INVALID:
        assert error.remedy == "check sync_layers.api_sync.scopes"
        assert message in str(error)
