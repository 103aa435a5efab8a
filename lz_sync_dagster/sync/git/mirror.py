"""A bare copy of one branch of a repository, which fetches only what is new. All talk with a remote is here.

Git runs without prompts. A token goes into the environment of the git process as a header for the repository's own
host: it is in no URL, no argument, no file and no message.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import os
import re
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # a missing git is an error of the sync, not of an import

import git
import pygit2
import structlog
from pydantic import SecretStr

from lz_sync_dagster.config import RepositoryConfig
from lz_sync_dagster.sync.errors import Reason, SyncError

#: Seconds that one git command may take.
COMMAND_TIMEOUT = 600
#: Keeps the commit of another branch than the mirror's own.
_PROPOSED = "refs/lz-sync/proposed"
#: A transfer slower than 1000 bytes a second for so many seconds counts as dead.
STALL_SECONDS = 60

log = structlog.get_logger(__name__)

#: In a copy's configuration: a name that no other copy has or had, and that of the copy whose objects it uses.
_IDENTITY = "lz-sync.identity"
_BORROWS = "lz-sync.borrows"
_SCP_LIKE = re.compile(r"^[^/\\]+:")
_LOCKED = re.compile(r"Unable to create '.*\.lock'|cannot lock ref|unable to lock", re.IGNORECASE)
#: Of the copy; what the remote says of itself has the prefix ``remote:``.
_BROKEN = re.compile(
    r"^(?!remote:).*(?:object file .* is empty|loose object .* is corrupt|bad object|invalid sha1 pointer"
    r"|not a git repository: '|missing blob object)",
    re.IGNORECASE | re.MULTILINE,
)
#: Of git's own lines about the branch only; what a hook prints has the prefix ``remote:``.
_LOST_RACE = re.compile(
    r"^\s*! .*(?:stale info|fetch first|non-fast-forward|\[rejected\]|failed to update ref|cannot lock ref)",
    re.MULTILINE,
)
_NOT_STORED = re.compile(r"unpacker error|unpack failed", re.IGNORECASE)
_REFUSED = re.compile(r"remote rejected|hook declined|protected branch", re.IGNORECASE)


_UNAUTHENTICATED = re.compile(
    r"authentication failed|could not read (user|pass)|terminal prompts disabled|returned error: 401"
    r"|permission denied \(publickey|host key verification failed|invalid username or",
    re.IGNORECASE,
)


class LostRace(Exception):
    """Somebody else pushed first."""


@dataclass(frozen=True, slots=True)
class _Kind:
    pattern: re.Pattern[str]
    what: str
    remedy: str
    reason: Reason


_KINDS = (
    _Kind(
        re.compile(r"cmd\('git'\) not found|cannot run (?:ssh|git)\b|'git': no such file", re.IGNORECASE),
        "cannot be reached: the program git, or the ssh that it needs, is not installed, or not on the PATH",
        "install it (Debian: apt-get install git openssh-client)",
        Reason.INVALID,
    ),
    _Kind(
        re.compile(r"returned error: 30[12378]\b|unable to update url base from redirection", re.IGNORECASE),
        "has moved: the server redirects to another address, which is not followed, since it would get the token",
        "set {key}.url to the new address",
        Reason.NOT_FOUND,
    ),
    _Kind(
        re.compile(r"couldn't find remote ref|could not find remote branch|no such ref", re.IGNORECASE),
        "has no branch {branch!r}",
        "push a first commit to it, or set {key}.branch to a branch that exists",
        Reason.NOT_FOUND,
    ),
    _Kind(
        _UNAUTHENTICATED,
        "does not accept the credentials",
        "set LZ_SYNC_GIT_TOKEN to a token that may read both repositories and write the portal's, or install the "
        "GitHub App of github.app_id on them",
        Reason.UNAUTHENTICATED,
    ),
    _Kind(
        re.compile(r"returned error: 403|write access .* not granted|permission to .* denied", re.IGNORECASE),
        "does not grant the permission",
        "give the token of LZ_SYNC_GIT_TOKEN, or the GitHub App, read access to both repositories and write access to "
        "the portal's",
        Reason.PERMISSION_DENIED,
    ),
    _Kind(
        re.compile(
            r"repository .*not found|does not appear to be a git repository|does not exist|returned error: 404"
            r"|no such file or directory|not found: did you run|transport '.*' not allowed|is not a git command",
            re.IGNORECASE,
        ),
        "is not found",
        "check {key}.url in sync_config.yaml, and that the token may see the repository",
        Reason.NOT_FOUND,
    ),
    _Kind(
        re.compile(
            r"no space left|disk quota|read-only file system|unable to write|failed to write"
            r"|\[errno 13\]|insufficient permission for adding|could not create directory",
            re.IGNORECASE,
        ),
        "cannot be copied: the disk of data_dir is full or not writable",
        "free some space or set data_dir to another disk",
        Reason.INVALID,
    ),
    _Kind(
        re.compile(r"^git was killed|died of signal", re.MULTILINE),
        "was not read or written to the end: something killed git",
        "check that the machine has memory left; another attempt follows by itself",
        Reason.UNAVAILABLE,
    ),
    _Kind(
        re.compile(
            r"could not resolve|connection refused|timed out|timeout|connection reset|early eof|hung up"
            r"|returned error: (5\d\d|429)|unable to access|failed to connect|network is unreachable"
            r"|could not read from remote|unable to connect",
            re.IGNORECASE,
        ),
        "cannot be reached",
        "check the network and {key}.url; another attempt follows by itself",
        Reason.UNAVAILABLE,
    ),
)


class Credential(Protocol):
    """The token for git over http(s). Asked for each command, since tokens are short-lived."""

    def __call__(self) -> SecretStr | None:
        """The token as it is now, or ``None`` if there is none."""

    def forget(self) -> bool:
        """The remote refused the token. Returns whether the next call gives another one."""


class NoCredential:
    """The `Credential` of a remote that asks for none."""

    def __call__(self) -> None:
        """There is none."""

    def forget(self) -> bool:
        """There is no other one."""
        return False


class Mirror:
    """One branch of one repository, in a bare repository of our own.

    Args:
        path: the folder of the copy; made at the first fetch.
        config: where to fetch and push.
        key: the configuration's name of it (``landing_zone``), for messages.
        credential: for an ``http(s)`` remote.
        max_blob_bytes: larger blobs are left out of the copy, where the remote can do that.
        borrows: another copy whose objects this one uses, so that a file that goes from one repository to the other is
            copied nowhere.
        timeout_seconds: how long one command of git may take.

    Every method that talks to the remote raises `SyncError`: transient if the remote cannot be reached, not if it is
    not found, refuses the credentials or has no such branch.
    """

    def __init__(
        self,
        path: Path,
        config: RepositoryConfig,
        *,
        key: str,
        credential: Credential | None = None,
        max_blob_bytes: int | None = None,
        borrows: Path | None = None,
        timeout_seconds: int = COMMAND_TIMEOUT,
    ) -> None:
        self.path = path
        self.config = config
        self.key = key
        self._credential = credential or NoCredential()
        self._borrows = borrows
        self._timeout_seconds = timeout_seconds
        self._filter = None if max_blob_bytes is None else f"blob:limit={max_blob_bytes + 1}"
        is_folder = "://" not in config.url and not _SCP_LIKE.match(config.url)
        self._url = str(Path(config.url).absolute()) if is_folder else config.url
        if not config.url:
            raise SyncError(
                "is empty",
                where=f"{key}.url",
                remedy="set it in sync_config.yaml to the URL of the repository",
                reason=Reason.INVALID,
            )
        if config.url.startswith("-") or not pygit2.reference_is_valid_name(self.ref):
            raise SyncError(
                f"cannot be used (url {self.shown_url!r}, branch {config.branch!r})",
                where=key,
                remedy="set a URL and a branch name as git takes them",
                reason=Reason.INVALID,
            )

    @property
    def ref(self) -> str:
        """The full name of the branch."""
        return f"refs/heads/{self.config.branch}"

    @property
    def shown_url(self) -> str:
        """The URL without user and password."""
        return hide_credentials(self.config.url)

    def open(self) -> pygit2.Repository:
        """The copy's object database."""
        return pygit2.Repository(str(self.path), pygit2.enums.RepositoryOpenFlag.NO_SEARCH)

    def has(self, commit: str) -> bool:
        """Whether the copy has a commit."""
        return self._is_made() and commit in self.open()

    def fetch(self) -> str:
        """Fetch what is new and return the head's commit id. A copy that a killed process left locked or broken is
        made anew."""
        self._prepare()
        arguments = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"]
        if self._filter is not None:
            arguments.append(f"--filter={self._filter}")
        arguments += ["origin", f"+{self.ref}:{self.ref}"]
        status, errors = self._run(arguments)
        if status != 0 and (_LOCKED.search(errors) or _BROKEN.search(errors)):
            status, errors = self._fetch_anew(arguments, errors)
        if status != 0:
            raise self._error(errors)
        return str(self.open().references[self.ref].target)

    def _fetch_anew(self, arguments: list[str], errors: str) -> tuple[int, str]:
        """Fetch into a new copy. It takes the place of the old one if that works: the remote may be what is broken."""
        aside = self.path.with_name(f"{self.path.name}.broken")
        try:
            shutil.rmtree(aside, ignore_errors=True)
            self.path.rename(aside)
        except OSError as error:
            raise self.failure(error) from error
        status = -1
        try:
            self._prepare()
            status, said = self._run(arguments)
        finally:
            if status == 0:
                log.warning("mirror_made_anew", path=str(self.path), error=_last_line(errors))
                shutil.rmtree(aside, ignore_errors=True)
            else:
                self.forget()
                aside.rename(self.path)
        return status, said

    def forget(self) -> None:
        """Remove the copy; the next fetch makes it anew. A process that is killed meanwhile leaves none that is half
        there."""
        removed = self.path.with_name(f"{self.path.name}.removed")
        shutil.rmtree(removed, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            self.path.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)

    def borrow(self, source: Mirror) -> None:
        """Remember whose objects this copy uses, once ``source`` was fetched. If that one was made anew since the last
        time, what was borrowed may be gone: then this copy is made anew too."""
        identity = str(source.open().config[_IDENTITY])
        known = _value(self.open().config, _BORROWS)
        if known == identity:
            return
        if known is not None:
            self.forget()
            self._prepare()
        self.open().config[_BORROWS] = identity

    def remote_head(self) -> str:
        """The commit id that the remote's branch has now; nothing is fetched."""
        head = self.remote_heads().get(self.ref)
        if head is None:
            raise self._error(f"couldn't find remote ref {self.ref}")
        return head

    def remote_heads(self, *branches: str) -> dict[str, str]:
        """Full ref name → commit id, of the branch and of others, as the remote has them now. Nothing is fetched."""
        self._prepare()
        refs = [self.ref, *(f"refs/heads/{branch}" for branch in branches)]
        status, output, errors = self._command(["ls-remote", "origin", *refs])
        if status != 0:
            raise self._error(errors)
        found = (line.split() for line in output.splitlines())
        return {ref: commit for commit, ref in found if ref in refs}

    def push(self, commit: str, *, expected: str | None, branch: str | None = None) -> None:
        """Move a branch of the remote (the mirror's own by default) from ``expected`` (``None``: it is not there) to
        ``commit``.

        Raises:
            LostRace: the branch is not at ``expected``.
        """
        ref = self.ref if branch is None else f"refs/heads/{branch}"
        self._push(ref, f"{commit}:{ref}", expected or "")
        # What a branch of the remote needs is not to be cleared away here.
        kept = ref if branch is None else _PROPOSED
        try:
            self.open().references.create(kept, pygit2.Oid(hex=commit), force=True)
        except (OSError, pygit2.GitError) as error:  # a killed process left its lock; the next fetch finds it too
            log.warning("mirror_not_moved", path=str(self.path), error=str(error))

    def try_push(self) -> None:
        """Ask whether the remote would take a push, without making one. What it checks only when something comes
        (protected branches, hooks) is not known afterwards either."""
        self._prepare()
        try:
            repository = self.open()
            empty = repository.TreeBuilder().write()
            nobody = pygit2.Signature("lz-sync", "lz-sync@localhost", 0, 0)
            commit = repository.create_commit(None, nobody, nobody, "", empty, [])
        except (OSError, pygit2.GitError) as error:
            raise self.failure(error) from error
        status, errors = self._run(["push", "--quiet", "--dry-run", "origin", f"{commit}:refs/heads/lz-sync/doctor"])
        if status != 0:
            raise self._error(errors)

    def delete_branch(self, branch: str, *, expected: str) -> None:
        """Delete a branch of the remote.

        Raises:
            LostRace: the branch is not at ``expected``.
        """
        self._push(f"refs/heads/{branch}", f":refs/heads/{branch}", expected)

    def _push(self, ref: str, refspec: str, expected: str) -> None:
        status, errors = self._run(["push", "--quiet", f"--force-with-lease={ref}:{expected}", "origin", refspec])
        if status == 0:
            return
        if _LOST_RACE.search(errors):
            raise LostRace(_last_line(errors))
        if _NOT_STORED.search(errors):
            said = next((line for line in errors.splitlines() if "fatal:" in line or "error:" in line), errors)
            raise SyncError(
                f"cannot store the push ({hide_credentials(_last_line(said.removeprefix('remote:')))})",
                where=f"{self.key} {self.shown_url}",
                remedy="see to its server (disk space, checks of objects); another attempt follows by itself",
                reason=Reason.UNAVAILABLE,
            )
        if _REFUSED.search(errors):
            raise SyncError(
                f"refuses the push to {ref.removeprefix('refs/heads/')} ({_reason_line(errors)})",
                where=f"{self.key} {self.shown_url}",
                remedy="let the sync's account push to this branch, set another branch, or set "
                "sync_layers.git_sync.publish to pull_request",
                reason=Reason.PERMISSION_DENIED,
            )
        raise self._error(errors)

    def _prepare(self) -> None:
        try:
            if self._is_made() and (reason := self._why_anew()) is not None:
                log.info("mirror_made_anew", path=str(self.path), reason=reason)
                self.forget()
            if not self._is_made():
                self._make()
            self._configure()
        except (OSError, pygit2.GitError, git.GitCommandError) as error:
            raise self.failure(error) from error

    def failure(self, error: Exception) -> SyncError:
        """What kept the copy from being used: a full disk above all."""
        return self._error(str(error))

    def _is_made(self) -> bool:
        head = self.path / "HEAD"
        return head.exists() and head.stat().st_size > 0 and (self.path / "objects").is_dir()

    def _why_anew(self) -> str | None:
        """Why a copy that is there cannot be used any more."""
        try:
            config = self.open().config
        except pygit2.GitError as error:
            return str(error)
        is_same = _value(config, "remote.origin.partialclonefilter") == self._filter
        return None if is_same else "another limit of file sizes"

    def _make(self) -> None:
        """Make an empty copy: aside at first, so that a process that is killed leaves none that is half made."""
        new = self.path.with_name(f"{self.path.name}.new")
        for folder in (new, self.path):
            shutil.rmtree(folder, ignore_errors=True)
        new.mkdir(parents=True)
        git.Repo.init(new, bare=True).close()
        new.rename(self.path)

    def _configure(self) -> None:
        configured = self.open().config
        if "remote.origin.url" not in configured or configured["remote.origin.url"] != self._url:
            configured["remote.origin.url"] = self._url
        if _IDENTITY not in configured:
            configured[_IDENTITY] = uuid.uuid4().hex
        if self._borrows is not None:
            alternates = self.path / "objects" / "info" / "alternates"
            line = f"{self._borrows.absolute() / 'objects'}\n"
            if not alternates.exists() or alternates.read_text(encoding="utf-8") != line:
                alternates.parent.mkdir(parents=True, exist_ok=True)
                alternates.write_text(line, encoding="utf-8")
        if self._filter is not None and "remote.origin.partialclonefilter" not in configured:
            configured["remote.origin.promisor"] = "true"
            configured["remote.origin.partialclonefilter"] = self._filter

    def _run(self, arguments: list[str]) -> tuple[int, str]:
        status, _, errors = self._command(arguments)
        return status, errors

    def _command(self, arguments: list[str]) -> tuple[int, str, str]:
        status, output, errors = self._execute(arguments)
        if status != 0 and _UNAUTHENTICATED.search(errors) and self._credential.forget():
            status, output, errors = self._execute(arguments)
        return status, output, errors

    def _execute(self, arguments: list[str]) -> tuple[int, str, str]:
        try:
            status, output, errors = git.Git(self.path).execute(
                ["git", f"--git-dir={self.path}", *arguments],
                env=self.environment(),
                with_extended_output=True,
                with_exceptions=False,
                kill_after_timeout=self._timeout_seconds,
            )
        except git.GitCommandNotFound as error:
            raise self.failure(error) from error
        killed = f"\ngit was killed by signal {-int(status)}" if int(status) < 0 else ""
        return int(status), str(output), f"{errors}{killed}"

    def environment(self) -> dict[str, str]:
        """The environment of a git command that talks to the remote; the token is in here alone.

        Raises:
            SyncError: the token would cross a network in clear text.
        """
        options = [
            ("http.followRedirects", "false"),
            ("http.lowSpeedLimit", "1000"),
            ("http.lowSpeedTime", str(STALL_SECONDS)),
            ("gc.autoDetach", "false"),
            ("maintenance.autoDetach", "false"),
            ("core.hooksPath", os.devnull),
        ]
        parts = urlsplit(self.config.url)
        token = self._credential() if parts.scheme in ("http", "https") and parts.hostname else None
        if token is not None and parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
            raise SyncError(
                f"would send the token in clear text ({self.shown_url})",
                where=f"{self.key}.url",
                remedy="set it to an https:// URL",
                reason=Reason.INVALID,
            )
        if token is not None:
            login = base64.b64encode(f"x-access-token:{token.get_secret_value()}".encode()).decode()
            host = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}/"
            options.append((f"http.{host}.extraHeader", f"Authorization: Basic {login}"))
        environment = {
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true",
            "LC_ALL": "C",
            "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=20"),
            "GIT_CONFIG_COUNT": str(len(options)),
        }
        for number, (name, value) in enumerate(options):
            environment[f"GIT_CONFIG_KEY_{number}"] = name
            environment[f"GIT_CONFIG_VALUE_{number}"] = value
        return environment

    def _error(self, errors: str) -> SyncError:
        where = f"{self.key} {self.shown_url}"
        for kind in _KINDS:
            if kind.pattern.search(errors):
                return SyncError(
                    kind.what.format(branch=self.config.branch),
                    where=where,
                    remedy=kind.remedy.format(key=self.key),
                    reason=kind.reason,
                )
        return SyncError(
            f"git failed: {hide_credentials(_last_line(errors))}",
            where=where,
            remedy=f"try 'git ls-remote' with it; if the copy is at fault, delete {self.path.name} in data_dir/git",
            reason=Reason.INTERNAL,
        )


def _value(config: pygit2.Config, name: str) -> str | None:
    return str(config[name]) if name in config else None


def hide_credentials(text: str) -> str:
    """A text with ``user:password@`` removed from the URLs in it."""
    parts = urlsplit(text) if "://" in text and " " not in text else None
    if parts is not None and parts.scheme and "@" in parts.netloc:
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return re.sub(r"(?<=://)[^/\s@]+@", "", text)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _last_line(errors: str) -> str:
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def _reason_line(errors: str) -> str:
    for line in errors.splitlines():
        if "[remote rejected]" in line:
            return line.rpartition("(")[2].rstrip(") ")
    return _last_line(errors)
