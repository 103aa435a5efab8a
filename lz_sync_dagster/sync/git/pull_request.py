"""The pull request that asks to merge the sync's own branch into the portal's, on GitHub."""

from __future__ import annotations

from lz_sync_dagster.config import Settings
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.git.portal import Proposed
from lz_sync_dagster.sync.github.api import GithubError
from lz_sync_dagster.sync.github.credentials import open_api
from lz_sync_dagster.sync.github.pull_requests import (
    close_pull_request,
    ensure_pull_request,
    permissions,
    read_pull_request,
)


class GithubPullRequests:
    """At most one open pull request, from ``sync_layers.git_sync.pull_request.branch`` into the portal's branch. One
    that a person closed is not opened again until the landing zone changes.

    Raises:
        SyncError: the branch is the portal's own.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._config = settings.sync_layers.git_sync.pull_request
        self._repository = settings.portal_repository
        self._permissions = permissions(auto_merge=self._config.auto_merge)
        names = (f"{self._config.branch}/", f"{self._repository.branch}/")
        if names[0].startswith(names[1]) or names[1].startswith(names[0]):
            raise SyncError(
                f"is {self._config.branch!r}, which cannot be beside the branch {self._repository.branch!r}",
                where="sync_layers.git_sync.pull_request.branch",
                remedy="set it to a branch of the sync's own",
                reason=Reason.INVALID,
            )

    @property
    def branch(self) -> str:
        """The sync's own branch."""
        return self._config.branch

    def propose(self, title: str, body: str) -> Proposed:
        """Open the pull request, or bring the open one up to date.

        Raises:
            SyncError: GitHub cannot be reached, or does not allow it.
        """
        with open_api(self._settings, self._repository.name, self._permissions) as api:
            found = ensure_pull_request(
                api,
                self._repository.name,
                self._config.branch,
                self._repository.branch,
                title,
                body,
                self._config.labels,
                self._config.auto_merge,
            )
        return Proposed(found.url, found.warning, found.state == "merged")

    def is_declined(self, url: str) -> bool:
        """Whether a pull request was closed and not merged.

        Raises:
            SyncError: GitHub cannot be reached, or does not allow it.
        """
        with open_api(self._settings, self._repository.name, self._permissions) as api:
            try:
                return read_pull_request(api, self._repository.name, int(url.rpartition("/")[2])).state == "closed"
            except GithubError as error:
                if error.reason is not Reason.NOT_FOUND:
                    raise
                return False  # the repository was made anew

    def withdraw(self, comment: str) -> None:
        """Close the open pull request, if there is one.

        Raises:
            SyncError: GitHub cannot be reached, or does not allow it.
        """
        with open_api(self._settings, self._repository.name, self._permissions) as api:
            close_pull_request(api, self._repository.name, self._config.branch, self._repository.branch, comment)
