"""Verifies signatures of commits: one git process for many commits, ssh and OpenPGP alike.

What cannot be checked is an error, never "unsigned": a missing program, a missing file of allowed signers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pygit2

from lz_sync_dagster.config import SignatureConfig
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.state.redaction import redact_text
from lz_sync_dagster.sync.store.source_findings import FindingKind, SourceFinding

#: Seconds for all commits of one call, and for each of them: ssh-keygen and gpg run once or twice a commit.
TIMEOUT = 60
TIMEOUT_EACH = 1

#: What signatures begin with. At any other git gives up altogether.
_KINDS = {
    b"-----BEGIN SSH SIGNATURE-----": "ssh",
    b"-----BEGIN PGP SIGNATURE-----": "openpgp",
    b"-----BEGIN PGP MESSAGE-----": "openpgp",
    b"-----BEGIN SIGNED MESSAGE-----": "x509",
}


class SignatureStatus(StrEnum):
    """What a signature is worth.

    ``bad``: it is not of this commit, or its key was revoked. ``unknown_key``: it may be good, but its key is not
    among the allowed signers, not in the keyring, or not trusted there. ``expired``: it is good, and it or its key has
    expired.
    """

    GOOD = "good"
    BAD = "bad"
    UNSIGNED = "unsigned"
    UNKNOWN_KEY = "unknown_key"
    EXPIRED = "expired"


#: Git's letters (``%G?``, see gitformat(1)). ``U`` is a good signature of a key that nobody vouches for; ``E`` one
#: whose key is missing.
_LETTERS = {
    "G": SignatureStatus.GOOD,
    "B": SignatureStatus.BAD,
    "R": SignatureStatus.BAD,
    "N": SignatureStatus.UNSIGNED,
    "U": SignatureStatus.UNKNOWN_KEY,
    "E": SignatureStatus.UNKNOWN_KEY,
    "X": SignatureStatus.EXPIRED,
    "Y": SignatureStatus.EXPIRED,
}
_MEANING = {
    SignatureStatus.BAD: "has a bad signature",
    SignatureStatus.UNSIGNED: "is not signed",
    SignatureStatus.UNKNOWN_KEY: "is signed with a key that is not known",
    SignatureStatus.EXPIRED: "has a signature that has expired, or whose key has",
}
_REMEDY = {
    SignatureStatus.BAD: "find out who changed the commit, and push one that is signed",
    SignatureStatus.UNSIGNED: "sign it (git commit -S) and push again",
    SignatureStatus.UNKNOWN_KEY: "add the key to sync_layers.git_sync.signatures.allowed_signers (ssh), "
    "or import and trust it in the keyring (gpg)",
    SignatureStatus.EXPIRED: "renew the key and sign a new commit with it",
}
_SEVERITY = {
    SignatureStatus.BAD: "critical",
    SignatureStatus.UNSIGNED: "medium",
    SignatureStatus.UNKNOWN_KEY: "high",
    SignatureStatus.EXPIRED: "high",
}


@dataclass(frozen=True, slots=True)
class Signature:
    """The signature of a commit. ``signer``: who signed, by the allowed signers or the keyring; else the key's
    fingerprint; ``None`` if there is neither."""

    sha: str
    status: SignatureStatus
    signer: str | None


def verify(git_dir: Path, shas: Sequence[str], config: SignatureConfig) -> dict[str, Signature]:
    """Verify the signatures of commits. OpenPGP keys come from gpg's keyring (``GNUPGHOME``).

    Raises:
        SyncError: the allowed signers are not configured although a commit has an ssh signature, or their file cannot
            be read; git, ssh-keygen or gpg is missing or fails; a commit is not there.
    """
    wanted = list(dict.fromkeys(shas))
    if config.allowed_signers is not None and not _is_readable(config.allowed_signers):
        raise _unusable(
            f"cannot be read ({config.allowed_signers})", "put the file of allowed signers there, see ssh-keygen(1)"
        )
    if not wanted:
        return {}
    kinds = _kinds(git_dir, wanted)
    options = []
    if "ssh" in kinds.values():
        if config.allowed_signers is None:
            raise _unusable("is not set, and commits are signed with ssh keys", "set it to the file of allowed signers")
        options += [
            f"gpg.ssh.program={_program('ssh-keygen', 'openssh-client')}",
            f"gpg.ssh.allowedSignersFile={config.allowed_signers.absolute()}",
        ]
    if "openpgp" in kinds.values():
        options.append(f"gpg.program={_program('gpg', 'gnupg')}")
    if "x509" in kinds.values():
        options.append(f"gpg.x509.program={_program('gpgsm', 'gpgsm')}")
    found = {sha: Signature(sha, SignatureStatus.BAD, None) for sha, kind in kinds.items() if kind == "none"}
    asked = [sha for sha in wanted if sha not in found]
    output = _git_log(git_dir, asked, options) if asked else ""
    for line in output.split("\n"):
        if not line:
            continue
        sha, _, rest = line.partition("\0")
        letter, _, rest = rest.partition("\0")
        signer, _, fingerprint = rest.partition("\0")
        if letter not in _LETTERS:
            raise _failed(f"git answered {letter!r} for the signature of {sha}")
        status = _LETTERS[letter]
        if status is SignatureStatus.UNSIGNED and sha in kinds:
            # Git makes nothing of it, but there is one.
            status = SignatureStatus.BAD
        found[sha] = Signature(sha, status, _shown(signer) or _shown(fingerprint))
    if missing := [sha for sha in wanted if sha not in found]:
        raise _failed(f"git said nothing of the signature of {missing[0]}")
    return {sha: found[sha] for sha in wanted}


def check_head(signature: Signature, config: SignatureConfig) -> SourceFinding | None:
    """What the policy makes of the head's signature: nothing if it is good or nobody asked, a finding for ``warn``.

    Raises:
        SyncError: the policy is ``require``, and the signature is not good.
    """
    if config.policy == "off" or signature.status is SignatureStatus.GOOD:
        return None
    by = f" by {signature.signer}" if signature.signer else ""
    what, remedy = f"{_MEANING[signature.status]}{by}", _REMEDY[signature.status]
    if config.policy == "require":
        raise SyncError(
            f"{what}, and sync_layers.git_sync.signatures.policy is 'require'",
            where=f"landing_zone commit {signature.sha}",
            remedy=remedy,
            reason=Reason.INVALID,
        )
    message = f"the head {signature.sha} {what}; {remedy}"
    return SourceFinding(FindingKind.SIGNATURE, "", None, "head", _SEVERITY[signature.status], message, signature.sha)


def _kinds(git_dir: Path, shas: Sequence[str]) -> dict[str, str]:
    """Of the commits that have a signature, what it is."""
    repository = pygit2.Repository(str(git_dir), pygit2.enums.RepositoryOpenFlag.NO_SEARCH)
    kinds = {}
    for sha in shas:
        try:
            signature, _ = repository[sha].peel(pygit2.Commit).gpg_signature
        except (KeyError, ValueError) as error:
            raise _failed(f"there is no commit {sha}") from error
        if signature is not None:
            kinds[sha] = next((kind for start, kind in _KINDS.items() if signature.startswith(start)), "none")
    return kinds


def _git_log(git_dir: Path, shas: Sequence[str], options: Sequence[str]) -> str:
    command = [_program("git", "git"), f"--git-dir={git_dir}"]
    for option in options:
        command += ["-c", option]
    command += ["log", "--no-walk=unsorted", "--stdin", "--no-color", "--no-show-signature", "--no-notes"]
    command.append("--format=%H%x00%G?%x00%GS%x00%GK")
    # A replacement object is not the commit that was pushed.
    environment = {**os.environ, "LC_ALL": "C", "GIT_NO_REPLACE_OBJECTS": "1", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(  # noqa: S603
            command,
            input="".join(f"{sha}\n" for sha in shas).encode(),
            capture_output=True,
            env=environment,
            timeout=TIMEOUT + TIMEOUT_EACH * len(shas),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _failed("git did not end in time", Reason.TIMEOUT) from error
    errors = done.stderr.decode("utf-8", "replace").strip().splitlines()
    # A program that cannot be run makes git say "bad" or nothing at all, and end well.
    cannot = next((line for line in errors if "cannot run" in line), None)
    if done.returncode != 0 or cannot is not None:
        raise _failed(cannot or (errors[0] if errors else f"git ended with {done.returncode}"))
    return done.stdout.decode("utf-8", "replace")


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise _unusable(
            f"needs {name}, which is not installed", f"install it (Debian: apt-get install {package})", key="policy"
        )
    return found


def _is_readable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK)


def _shown(text: str) -> str | None:
    clean = "".join(character for character in redact_text(text) if character.isprintable()).strip()
    return clean[:200] or None


def _unusable(what: str, remedy: str, *, key: str = "allowed_signers") -> SyncError:
    return SyncError(
        what,
        where=f"sync_layers.git_sync.signatures.{key}",
        remedy=f"{remedy}, or set sync_layers.git_sync.signatures.policy to 'off'",
        reason=Reason.INVALID,
    )


def _failed(what: str, reason: Reason = Reason.INTERNAL) -> SyncError:
    return SyncError(
        f"cannot be verified: {what}",
        where="signatures of the landing zone's commits",
        remedy="try 'git log --show-signature' in data_dir/git/landing-zone.git",
        reason=reason,
    )
