"""Who calls GitHub: installation tokens of an App, narrowed to one repository and the permissions asked for, or a plain
token. Also the credential for git over https. No key and no token gets into a message.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import jwt
from pydantic import SecretStr

from lz_sync_dagster.config import GithubConfig, Settings
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.github.api import Api, GithubError, split_name
from lz_sync_dagster.sync.timing import Clock, from_ns, parse_ns, utcnow

#: A token is renewed so long before it expires (installation tokens last an hour).
RENEW_BEFORE = timedelta(minutes=5)
#: GitHub allows ten minutes, and no clock is exact.
JWT_LIFETIME, JWT_BACKDATED = timedelta(minutes=8), timedelta(minutes=1)

_KEY_VARIABLE = "LZ_SYNC_GITHUB_APP_PRIVATE_KEY"
_TOKEN_VARIABLE = "LZ_SYNC_GITHUB_TOKEN"  # noqa: S105

#: What names an App's token: see `AppTokens.token`.
_Key = tuple[str, int, int | None, str, str, frozenset[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class AppJwt:
    """An App itself: a short-lived assertion, signed with its private key."""

    app_id: int
    private_key: SecretStr
    clock: Clock

    @property
    def name(self) -> str:
        return f"the App {self.app_id}"

    @property
    def is_jwt(self) -> bool:
        return True

    def __call__(self) -> SecretStr:
        now = self.clock()
        claims = {
            "iat": int((now - JWT_BACKDATED).timestamp()),
            "exp": int((now + JWT_LIFETIME).timestamp()),
            "iss": str(self.app_id),
        }
        pem = self.private_key.get_secret_value()
        if "\n" not in pem.strip():  # as some environments hold it
            pem = pem.replace("\\n", "\n")
        try:
            return SecretStr(jwt.encode(claims, pem, algorithm="RS256"))
        except (ValueError, TypeError, jwt.PyJWTError):
            raise SyncError(
                "is not an RSA private key",
                where=_KEY_VARIABLE,
                remedy="set it to the whole content of the .pem file that GitHub made for the App",
                reason=Reason.INVALID,
            ) from None  # the cause may quote the key

    def forget(self) -> bool:
        return False


@dataclass
class TokenCache:
    """Tokens and installations that are known, for every thread of a process."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    tokens: dict[_Key, tuple[SecretStr, datetime]] = field(default_factory=dict)
    installations: dict[tuple[str, int, str], int] = field(default_factory=dict)


_CACHE = TokenCache()


@dataclass(frozen=True, slots=True)
class AppTokens:
    """The installation tokens of an App."""

    config: GithubConfig
    app: AppJwt
    cache: TokenCache = field(default_factory=lambda: _CACHE)

    def token(self, repository: str, permissions: Mapping[str, str]) -> SecretStr:
        """A token for one repository with these permissions (``{"contents": "read"}``) and no others.

        Kept until `RENEW_BEFORE` its expiry.

        Raises:
            SyncError: the key is wrong, the App is unknown, not installed or suspended, or lacks a permission.
        """
        key = self._key(repository, permissions)
        with self.cache.lock:
            known = self.cache.tokens.get(key)
            if known is not None and self.app.clock() < known[1] - RENEW_BEFORE:
                return known[0]
            made = self._make(repository, permissions)
            now = self.app.clock()
            for stale in [other for other, (_, expires) in self.cache.tokens.items() if expires <= now]:
                del self.cache.tokens[stale]
            self.cache.tokens[key] = made
            return made[0]

    def forget(self, repository: str, permissions: Mapping[str, str]) -> bool:
        """Drop a token that GitHub refuses. Returns whether it was kept."""
        with self.cache.lock:
            return self.cache.tokens.pop(self._key(repository, permissions), None) is not None

    def _key(self, repository: str, permissions: Mapping[str, str]) -> _Key:
        digest = hashlib.sha256(self.app.private_key.get_secret_value().encode()).hexdigest()
        config = self.config
        granted = frozenset(permissions.items())
        return config.api_url, self.app.app_id, config.installation_id, digest, repository.casefold(), granted

    def _make(self, repository: str, permissions: Mapping[str, str]) -> tuple[SecretStr, datetime]:
        asked = {"repositories": [split_name(repository)["repo"]], "permissions": dict(permissions)}
        wanted = ", ".join(f"{name}: {level}" for name, level in sorted(permissions.items()))
        with Api(self.config, self.app, clock=self.app.clock) as api:
            installation = self._installation(api, repository)
            try:
                answer = api.post(
                    "/app/installations/{installation}/access_tokens", asked, needs=wanted, installation=installation
                )
            except GithubError as error:
                self.cache.installations.pop(self._installation_key(repository), None)
                raise self._explained(error, repository, wanted) from error
        try:
            return SecretStr(answer["token"]), from_ns(parse_ns(answer["expires_at"]))
        except (KeyError, TypeError, ValueError):
            raise SyncError(
                "gave no installation token",
                where=self.config.api_url,
                remedy="check that github.api_url is GitHub's",
                reason=Reason.INVALID,
            ) from None

    def _installation_key(self, repository: str) -> tuple[str, int, str]:
        return self.config.api_url, self.app.app_id, repository.casefold()

    def _installation(self, api: Api, repository: str) -> int:
        if self.config.installation_id is not None:
            return self.config.installation_id
        key = self._installation_key(repository)
        if key not in self.cache.installations:
            try:
                found = api.get("/repos/{owner}/{repo}/installation", needs="metadata: read", **split_name(repository))
            except GithubError as error:
                raise self._explained(error, repository, "metadata: read") from error
            self.cache.installations[key] = int(found["id"])
        return self.cache.installations[key]

    def _explained(self, error: GithubError, repository: str, wanted: str) -> SyncError:
        """The error with the remedy that fits an App; others as they are."""
        said = error.said.lower()
        app = f"the GitHub App {self.app.app_id}"

        def explained(what: str, remedy: str, reason: Reason = error.reason) -> SyncError:
            return SyncError(what, where=app, remedy=remedy, reason=reason)

        if error.status == 401 and ("'exp'" in said or "'iat'" in said):
            return explained("is refused since the clocks differ", "set the clock of this machine (NTP)")
        if error.status == 401 or (error.status == 404 and "integration not found" in said):
            return explained(
                "is not known with this private key",
                f"check github.app_id, and set {_KEY_VARIABLE} to a key that the App has now",
                Reason.UNAUTHENTICATED,
            )
        if error.status == 403 and "suspended" in said:
            return explained(f"is suspended for {repository}", "let an owner of the organization unsuspend it")
        if error.status == 404 and self.config.installation_id is not None:
            return explained(
                f"has no installation {self.config.installation_id}",
                "correct github.installation_id, or leave it out: it is looked up by the repository",
            )
        if error.status == 404:
            return explained(f"is not installed on {repository}", "install it on this repository")
        if error.status == 422 and "permission" in said:
            return explained(
                f"lacks a permission on {repository} (asked for: {wanted})",
                "grant it in the App's settings, and accept it in the installation",
                Reason.PERMISSION_DENIED,
            )
        if error.status == 422 and "repositor" in said:
            return explained(
                f"may not see {repository}", "add the repository to the App's installation", Reason.NOT_FOUND
            )
        return error


@dataclass(frozen=True, slots=True)
class InstallationToken:
    """The credential of an App on one repository."""

    tokens: AppTokens
    repository: str
    permissions: Mapping[str, str]

    @property
    def name(self) -> str:
        return f"{self.tokens.app.name} on {self.repository}"

    @property
    def is_jwt(self) -> bool:
        return False

    def __call__(self) -> SecretStr:
        return self.tokens.token(self.repository, self.permissions)

    def forget(self) -> bool:
        return self.tokens.forget(self.repository, self.permissions)


@dataclass(frozen=True, slots=True)
class FixedToken:
    """A token from the environment."""

    token: SecretStr
    name: str

    @property
    def is_jwt(self) -> bool:
        return False

    def __call__(self) -> SecretStr:
        return self.token

    def forget(self) -> bool:
        return False


def has_credential(settings: Settings) -> bool:
    """Whether anything is set that is to call GitHub's API."""
    given = (settings.github_token, settings.github.app_id, settings.github_app_private_key)
    return any(value is not None for value in given)


def app_jwt(settings: Settings, *, clock: Clock = utcnow) -> AppJwt | None:
    """The App of the settings, ``None`` if there is none.

    Raises:
        SyncError: only one of its id and its key is set.
    """
    app_id, key = settings.github.app_id, settings.github_app_private_key
    if app_id is None and key is None:
        return None
    if app_id is None or key is None or not key.get_secret_value().strip():
        given, missing = (_KEY_VARIABLE, "github.app_id") if app_id is None else ("github.app_id", _KEY_VARIABLE)
        raise SyncError(f"is not set, but {given} is", where=missing, remedy="set both", reason=Reason.INVALID)
    return AppJwt(app_id, key, clock)


def open_api(settings: Settings, repository: str, permissions: Mapping[str, str], *, clock: Clock = utcnow) -> Api:
    """GitHub's API for one repository: as the App with these permissions, without one with ``LZ_SYNC_GITHUB_TOKEN``.

    Close it, or use it in a ``with`` statement.

    Raises:
        SyncError: no credential is set.
    """
    split_name(repository)
    app = app_jwt(settings, clock=clock)
    if app is not None:
        token = InstallationToken(AppTokens(settings.github, app), repository, dict(permissions))
        return Api(settings.github, token, clock=clock)
    if settings.github_token is None:
        raise SyncError(
            "has no credential",
            where="GitHub's API",
            remedy=f"set github.app_id and {_KEY_VARIABLE}, or {_TOKEN_VARIABLE}",
            reason=Reason.UNAUTHENTICATED,
        )
    fixed = FixedToken(settings.github_token, f"the token of {_TOKEN_VARIABLE}")
    return Api(settings.github, fixed, clock=clock)


def open_app_api(settings: Settings, *, clock: Clock = utcnow) -> Api:
    """GitHub's API as the App itself.

    Raises:
        SyncError: no App is set.
    """
    app = app_jwt(settings, clock=clock)
    if app is None:
        raise SyncError(
            "is not set",
            where="github.app_id",
            remedy=f"set it and {_KEY_VARIABLE}: this call is for a GitHub App alone",
            reason=Reason.UNAUTHENTICATED,
        )
    return Api(settings.github, app, clock=clock)


@dataclass(frozen=True, slots=True)
class GitCredential:
    """The password for git over https (the user is ``x-access-token``), ``None`` for none. Ask for it before each
    command: it is renewed before it expires. `forget` when the server refuses it, and ask once more."""

    source: Callable[[], SecretStr | None]
    dropped: Callable[[], bool] = lambda: False

    def __call__(self) -> SecretStr | None:
        return self.source()

    def forget(self) -> bool:
        """Returns whether the next call gives another one."""
        return self.dropped()


def git_credential(settings: Settings, repository_name: str, write: bool, *, clock: Clock = utcnow) -> GitCredential:
    """The credential of one repository (``owner/name``) for git: ``LZ_SYNC_GIT_TOKEN`` if it is set, else a token of
    the App for the contents of this repository alone, else none.

    An App's token is GitHub's business: a repository that is configured with a URL of another host gets none.

    Raises:
        SyncError: only one of the App's id and its key is set. The call of what is returned raises `SyncError` too.
    """
    if settings.git_token is not None:
        token = settings.git_token
        return GitCredential(lambda: token)
    app = app_jwt(settings, clock=clock)
    if app is None or not _is_on_github(settings, repository_name):
        return GitCredential(lambda: None)
    source = InstallationToken(
        AppTokens(settings.github, app), repository_name, {"contents": "write" if write else "read"}
    )
    return GitCredential(source, source.forget)


def _is_on_github(settings: Settings, repository_name: str) -> bool:
    api = urlsplit(settings.github.api_url)
    host = api.netloc.removeprefix("api.") if api.path in ("", "/") else api.netloc
    for repository in (settings.landing_zone, settings.portal_repository):
        if repository_name and repository.name.casefold() == repository_name.casefold():
            url = urlsplit(repository.url)
            return url.scheme in ("http", "https") and url.netloc.rpartition("@")[2].casefold() == host.casefold()
    return False
