"""Google's errors become reasons with a remedy."""

from __future__ import annotations

from typing import Any

import pytest
from google.api_core import exceptions as google
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.inventory.errors import classify, permission_of
from lz_sync_dagster.sync.store.quota import Quota


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


def info(reason: str, **metadata: str) -> Any:
    return error_details_pb2.ErrorInfo(reason=reason, domain="googleapis.com", metadata=metadata)


def denied(message: str, *details: Any, **more: Any) -> SyncError:
    error = google.PermissionDenied(message, details=list(details))
    classified = classify(error, scope="organizations/1", asset_type="a/B", **more)
    assert message in str(classified)
    return classified


@pytest.mark.parametrize(
    ("call", "content_type", "permission"),
    [
        (Quota.LIST_ASSETS, "RESOURCE", "cloudasset.assets.listResource"),
        (Quota.LIST_ASSETS, "IAM_POLICY", "cloudasset.assets.listIamPolicy"),
        (Quota.LIST_ASSETS, "ORG_POLICY", "cloudasset.assets.listOrgPolicy"),
        (Quota.SEARCH_ALL_RESOURCES, "RESOURCE", "cloudasset.assets.searchAllResources"),
        (Quota.BATCH_GET_ASSETS_HISTORY, "RESOURCE", "cloudasset.assets.exportResource"),
        (Quota.EXPORT_ASSETS, "IAM_POLICY", "cloudasset.assets.exportIamPolicy"),
    ],
)
def test_a_denial_names_the_permission_of_its_call_and_the_role_that_has_it(
    call: Quota, content_type: str, permission: str
) -> None:
    assert permission_of(call, content_type) == permission
    error = denied("The caller does not have permission", call=call, content_type=content_type)
    assert error.reason is Reason.PERMISSION_DENIED
    assert error.remedy == (
        f"grant roles/cloudasset.viewer (it has {permission}) on organizations/1 to the identity that runs lz-sync"
    )


def test_a_denial_that_names_permission_and_resource_is_taken_at_its_word() -> None:
    told = info(
        "IAM_PERMISSION_DENIED",
        permission="cloudasset.assets.listAccessPolicy",
        resource="//cloudresourcemanager.googleapis.com/folders/7",
    )
    assert "cloudasset.viewer (it has cloudasset.assets.listAccessPolicy) on folders/7" in denied("no", told).remedy
    foreign = info("IAM_PERMISSION_DENIED", permission="compute.instances.list", resource="projects/9")
    assert "grant a role with compute.instances.list on projects/9" in denied("no", foreign).remedy


def test_a_denial_of_relationships_names_the_tier_that_they_need() -> None:
    assert "Security Command Center Premium" in denied("no", content_type="RELATIONSHIP").remedy


@pytest.mark.parametrize(
    ("message", "details"),
    [
        ("Cloud Asset API has not been used in project 424242 before or it is disabled. Enable it by …", ()),
        ("disabled", (info("SERVICE_DISABLED", service="cloudasset.googleapis.com", consumer="projects/424242"),)),
    ],
)
def test_a_disabled_api_is_enabled_in_the_project_that_is_named(message: str, details: tuple[Any, ...]) -> None:
    error = denied(message, *details)
    assert error.reason is Reason.API_DISABLED
    assert error.remedy == "run 'gcloud services enable cloudasset.googleapis.com --project 424242'"


def test_a_disabled_api_without_a_project_is_enabled_where_it_is_called() -> None:
    assert denied("x", info("SERVICE_DISABLED")).remedy.endswith("' in the project that calls it")


@pytest.mark.parametrize(
    ("message", "details"),
    [
        ("Request is prohibited by organization's policy. vpcServiceControlsUniqueIdentifier: aB-12_x", ()),
        ("Request is prohibited by organization's policy.", (info("SECURITY_POLICY_VIOLATED", uid="aB-12_x"),)),
        (
            "Request is prohibited by VPC Service Controls.",
            (
                error_details_pb2.PreconditionFailure(
                    violations=[
                        error_details_pb2.PreconditionFailure.Violation(
                            type="VPC_SERVICE_CONTROLS", description="aB-12_x"
                        )
                    ]
                ),
            ),
        ),
    ],
)
def test_a_perimeter_is_told_with_the_id_of_its_refusal(message: str, details: tuple[Any, ...]) -> None:
    error = denied(message, *details)
    assert error.reason is Reason.PERMISSION_DENIED
    assert "perimeter denied it" in error.what
    assert "ingress rules of the perimeter; what it violated is in the audit log under the id aB-12_x" in error.remedy


@pytest.mark.parametrize(
    ("reason", "what"),
    [
        ("CONSUMER_INVALID", "does not exist"),
        ("CONSUMER_SUSPENDED", "is suspended"),
        ("BILLING_DISABLED", "no active billing account"),
    ],
)
def test_a_quota_project_that_is_of_no_use_is_named(reason: str, what: str) -> None:
    told = info(reason, consumer="projects/old-one-1")
    for error in (
        denied("Permission denied on resource project old-one-1.", told),
        classify(google.InvalidArgument("no", details=[told]), scope="organizations/1", asset_type="a/B"),
    ):
        assert error.reason is Reason.PERMISSION_DENIED
        assert what in error.what
        assert "mend the quota project old-one-1, or name another one" in error.remedy


@pytest.mark.parametrize(
    ("message", "details"),
    [
        (
            "Caller does not have required permission to use project rueth-prod. Grant the caller the "
            "roles/serviceusage.serviceUsageConsumer role, or a custom role with the serviceusage.services.use "
            "permission.",
            (),
        ),
        ("no", (info("USER_PROJECT_DENIED", consumer="projects/rueth-prod"),)),
    ],
)
def test_a_quota_project_that_may_not_be_used_asks_for_its_role(message: str, details: tuple[Any, ...]) -> None:
    error = denied(message, *details)
    assert error.reason is Reason.PERMISSION_DENIED
    assert "grant roles/serviceusage.serviceUsageConsumer on the quota project rueth-prod" in error.remedy


def test_a_missing_quota_project_is_to_be_set() -> None:
    message = "The cloudasset.googleapis.com API requires a quota project, which is not set by default."
    assert "set-quota-project" in denied(message).remedy
    refused = classify(google.FailedPrecondition(message), scope="organizations/1", asset_type="a/B")
    assert (refused.reason, "set-quota-project" in refused.remedy) == (Reason.PERMISSION_DENIED, True)


def test_an_exceeded_quota_names_metric_limit_and_project_and_when_to_come_back() -> None:
    error = classify(
        google.ResourceExhausted(
            "Quota exceeded for quota metric 'SearchAllResources Requests'",
            details=[
                info(
                    "RATE_LIMIT_EXCEEDED",
                    quota_metric="cloudasset.googleapis.com/search_all_resources_requests",
                    quota_limit="SearchAllResourcesRequestsPerMinutePerProject",
                    quota_limit_value="400",
                    consumer="projects/42",
                ),
                error_details_pb2.RetryInfo(retry_delay=Duration(seconds=12, nanos=500_000_000)),
            ],
        ),
        scope="organizations/1",
        asset_type="a/B",
        call=Quota.SEARCH_ALL_RESOURCES,
    )
    assert (error.reason, error.retry_after, error.transient) == (Reason.QUOTA, 12.5, True)
    assert "sync_layers.api_sync.quotas.search_all_resources" in error.remedy
    assert "cloudasset.googleapis.com/search_all_resources_requests (now 400) of the project 42" in error.remedy


def test_an_exceeded_quota_that_says_nothing_is_still_told() -> None:
    failure = error_details_pb2.QuotaFailure(
        violations=[error_details_pb2.QuotaFailure.Violation(subject="project:9", description="x")]
    )
    for details, project in (([], "the project that calls it"), ([failure], "the project 9")):
        error = classify(google.ResourceExhausted("no", details=details), scope="organizations/1", asset_type="a/B")
        assert (error.reason, error.retry_after) == (Reason.QUOTA, None)
        assert error.remedy.endswith(f"raise the Cloud Asset quota of {project}")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (google.Unauthenticated("x"), Reason.UNAUTHENTICATED),
        (google.NotFound("x"), Reason.NOT_FOUND),
        (google.DeadlineExceeded("x"), Reason.TIMEOUT),
        (google.RetryError("x", cause=None), Reason.TIMEOUT),
        (google.ServiceUnavailable("x"), Reason.UNAVAILABLE),
        (google.InternalServerError("x"), Reason.UNAVAILABLE),
        (google.Unknown("x"), Reason.INTERNAL),
    ],
)
def test_the_other_errors_have_their_reasons(error: Any, expected: Reason) -> None:
    classified = classify(error, scope="organizations/1", asset_type="a/B")
    assert classified.reason is expected
    assert classified.remedy
