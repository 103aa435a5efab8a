"""The pull request that asks to merge the sync's own branch into the portal's, on GitHub."""

from __future__ import annotations

from lz_sync_dagster.config import Settings
from lz_sync_dagster.sync.github.credentials import open_api
from lz_sync_dagster.sync.github.pull_requests import close_pull_request, ensure_pull_request, permissions


class GithubPullRequests:
    """At most one open pull request, from ``sync_layers.git_sync.pull_request.branch`` into the portal's branch. One
    that a person closed is not opened again until the landing zone changes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._config = settings.sync_layers.git_sync.pull_request
        self._repository = settings.portal_repository
        self._permissions = permissions(auto_merge=self._config.auto_merge)

    @property
    def branch(self) -> str:
        """The sync's own branch."""
        return self._config.branch

    def propose(self, title: str, body: str) -> tuple[str, str | None]:
        """Open the pull request, or bring the open one up to date. Returns its address, and what was asked for and not
        done.

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
        return found.url, found.warning

    def withdraw(self, comment: str) -> None:
        """Close the open pull request, if there is one.

        Raises:
            SyncError: GitHub cannot be reached, or does not allow it.
        """
        with open_api(self._settings, self._repository.name, self._permissions) as api:
            close_pull_request(api, self._repository.name, self._config.branch, self._repository.branch, comment)
