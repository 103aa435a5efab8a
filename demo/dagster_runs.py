"""Asks a running Dagster to run jobs, as the button in its pages does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx

from lz_sync_dagster.sync.errors import Reason, SyncError

_REPOSITORIES = "query { repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
_LAUNCH = """
mutation Launch($selector: JobOrPipelineSelector!) {
  launchPipelineExecution(executionParams: {selector: $selector, mode: "default"}) {
    __typename
    ... on PythonError { message }
  }
}
"""


def launch_jobs(address: str, jobs: Sequence[str]) -> None:
    """Launch a run of each job.

    Args:
        address: of Dagster's webserver, ``http://host:port``.

    Raises:
        SyncError: Dagster refused one.
    """
    with httpx.Client(base_url=address, timeout=30) as client:
        nodes = _ask(client, _REPOSITORIES, {})["repositoriesOrError"]["nodes"]
        for job in jobs:
            selector = {
                "repositoryName": nodes[0]["name"],
                "repositoryLocationName": nodes[0]["location"]["name"],
                "pipelineName": job,
            }
            answer = _ask(client, _LAUNCH, {"selector": selector})["launchPipelineExecution"]
            if answer["__typename"] != "LaunchRunSuccess":
                raise _refused(job, answer.get("message", answer["__typename"]))


def _ask(client: httpx.Client, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/graphql", json={"query": query, "variables": variables}).raise_for_status().json()
    if answer.get("errors"):
        raise _refused("the query", str(answer["errors"][0]["message"]))
    data: dict[str, Any] = answer["data"]
    return data


def _refused(what: str, message: str) -> SyncError:
    return SyncError(
        f"was refused ({message})", where=f"Dagster: {what}", remedy="look at Dagster's log", reason=Reason.INTERNAL
    )
