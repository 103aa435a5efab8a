"""Pull requests of a branch that is ours: opened, kept up to date, closed. Each function may run again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lz_sync_dagster.sync.github.api import Api, GithubError, split_name

NEEDS = "pull_requests: write"
NEEDS_TO_MERGE = "contents: write"

#: In the order of preference, with the repository's switch for it.
_MERGE_METHODS = (
    ("merge", "allow_merge_commit"),
    ("squash", "allow_squash_merge"),
    ("rebase", "allow_rebase_merge"),
)
_ENABLE_AUTO_MERGE = """
mutation($pullRequestId: ID!, $mergeMethod: PullRequestMergeMethod!) {
  enablePullRequestAutoMerge(input: {pullRequestId: $pullRequestId, mergeMethod: $mergeMethod}) {
    pullRequest { number }
  }
}
"""


@dataclass(frozen=True, slots=True)
class PullRequest:
    """A pull request. ``url``: its page. ``created``: by this call. ``warning``: what was asked for and not done."""

    number: int
    url: str
    state: Literal["open", "merged", "closed"]
    created: bool = False
    warning: str | None = None


def permissions(*, auto_merge: bool) -> dict[str, str]:
    """What these functions take, for `open_api`."""
    return {"pull_requests": "write", "contents": "write" if auto_merge else "read"}


def find_pull_request(api: Api, repository: str, branch: str, base: str) -> PullRequest | None:
    """The open pull request from a branch of the repository into ``base``, or ``None``."""
    found = _find(api, repository, branch, base)
    return None if found is None else _pull_request(found)


def read_pull_request(api: Api, repository: str, number: int) -> PullRequest:
    """A pull request by its number, whatever its state."""
    path = "/repos/{owner}/{repo}/pulls/{number}"
    return _pull_request(api.get(path, needs=NEEDS, number=number, **split_name(repository)))


def ensure_pull_request(
    api: Api,
    repository: str,
    branch: str,
    base: str,
    title: str,
    body: str,
    labels: Sequence[str] = (),
    auto_merge: bool = False,
) -> PullRequest:
    """See to it that a branch has one open pull request into ``base`` with this title, body and these labels.

    Labels are added; those that others added stay. With ``auto_merge`` GitHub is asked to merge once its requirements
    are met, or to merge at once if they are met already; where it refuses, the pull request stays open and ``warning``
    says why.

    Raises:
        GithubError: among others if the branch has nothing that ``base`` has not (``reason`` invalid).
    """
    names = split_name(repository)
    found = _find(api, repository, branch, base)
    created = found is None
    if found is None:
        wanted = {"title": title, "body": body, "head": branch, "base": base}
        try:
            found = api.post("/repos/{owner}/{repo}/pulls", wanted, needs=NEEDS, **names)
        except GithubError as error:
            if "already exists" not in error.said:
                raise
            found = _find(api, repository, branch, base)  # somebody else was faster
            if found is None:
                raise
            created = False
    if found["title"] != title or _lines(found.get("body")) != _lines(body):
        found = api.patch(
            "/repos/{owner}/{repo}/pulls/{number}",
            {"title": title, "body": body},
            needs=NEEDS,
            number=found["number"],
            **names,
        )
    present = {str(label["name"]).casefold() for label in found.get("labels") or ()}
    missing = [label for label in labels if label.casefold() not in present]
    if missing:
        path = "/repos/{owner}/{repo}/issues/{number}/labels"
        api.post(path, {"labels": missing}, needs=NEEDS, number=found["number"], **names)
    made = replace(_pull_request(found), created=created)
    return _auto_merge(api, names, found, made) if auto_merge and not found.get("auto_merge") else made


def close_pull_request(api: Api, repository: str, branch: str, base: str, comment: str) -> PullRequest | None:
    """Close the open pull request of a branch and say why in a comment. ``None`` if there is none."""
    found = _find(api, repository, branch, base)
    if found is None:
        return None
    names = {**split_name(repository), "number": found["number"]}
    api.post("/repos/{owner}/{repo}/issues/{number}/comments", {"body": comment}, needs=NEEDS, **names)
    closed = api.patch("/repos/{owner}/{repo}/pulls/{number}", {"state": "closed"}, needs=NEEDS, **names)
    return _pull_request(closed)


def _find(api: Api, repository: str, branch: str, base: str) -> dict[str, Any] | None:
    names = split_name(repository)
    head = f"{names['owner']}:{branch}"
    listed = api.items("/repos/{owner}/{repo}/pulls", needs=NEEDS, **names, state="open", head=head, base=base)
    for found in listed:
        # a filter that a server does not know is ignored by it
        is_ours = found["head"]["ref"] == branch and found["base"]["ref"] == base
        if is_ours and (found["head"].get("repo") or {}).get("full_name", "").casefold() == repository.casefold():
            result: dict[str, Any] = found
            return result
    return None


def _auto_merge(api: Api, names: dict[str, str], found: dict[str, Any], made: PullRequest) -> PullRequest:
    settings = found["base"].get("repo") or {}
    method = next((name for name, switch in _MERGE_METHODS if settings.get(switch, True)), "merge")
    try:
        try:
            api.graphql(
                _ENABLE_AUTO_MERGE, needs=NEEDS_TO_MERGE, pullRequestId=found["node_id"], mergeMethod=method.upper()
            )
        except GithubError as error:
            if "clean status" not in error.said.lower():
                raise
            # nothing to wait for: GitHub takes that for an error
            path = "/repos/{owner}/{repo}/pulls/{number}/merge"
            wanted = {"merge_method": method, "sha": found["head"]["sha"]}
            api.put(path, wanted, needs=NEEDS_TO_MERGE, number=made.number, **names)
            return replace(made, state="merged")
    except GithubError as error:
        if error.transient:
            raise
        return replace(
            made,
            warning=f"pull request {made.number} waits for a person: GitHub does not merge it by itself "
            f"({error.said or error.what}); allow auto-merge in the repository's settings, or merge it by hand",
        )
    return made


def _pull_request(found: dict[str, Any]) -> PullRequest:
    is_merged = bool(found.get("merged_at"))
    state: Literal["open", "merged", "closed"]
    state = "merged" if is_merged else "open" if found["state"] == "open" else "closed"
    return PullRequest(int(found["number"]), str(found["html_url"]), state)


def _lines(text: str | None) -> list[str]:
    return (text or "").strip().splitlines()
