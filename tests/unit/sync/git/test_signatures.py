"""Signatures of commits, verified by git with real keys."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pygit2
import pytest

from lz_sync_dagster.config import SignatureConfig
from lz_sync_dagster.sync.errors import SyncError
from lz_sync_dagster.sync.git.signatures import Signature, SignatureStatus, check_head, verify


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    for name, package in (("ssh-keygen", "openssh-client"), ("gpg", "gnupg")):
        assert shutil.which(name), f"these tests need {name}: apt-get install {package}"


@dataclass(frozen=True, slots=True)
class Signed:
    """A repository with one commit of each sort, by name."""

    git_dir: Path
    allowed: Path
    commits: dict[str, str]

    def config(self) -> SignatureConfig:
        return SignatureConfig(policy="warn", allowed_signers=self.allowed)


def run(*words: str, cwd: Path) -> str:
    return subprocess.run(words, cwd=cwd, check=True, capture_output=True, text=True, env=environment(cwd)).stdout


def environment(folder: Path) -> dict[str, str]:
    names = {f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return {**os.environ, **names, "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    folder = tmp_path_factory.mktemp("signed")
    git_dir = folder / "repository.git"
    run("git", "init", "-q", "--bare", str(git_dir), cwd=folder)
    repository = pygit2.Repository(str(git_dir))
    tree = str(repository.TreeBuilder().write())
    for key in ("known", "stranger"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / key), cwd=folder)
    allowed = folder / "allowed_signers"
    allowed.write_text(f"alice@example.com {(folder / 'known.pub').read_text()}")

    def commit(message: str, key: str | None) -> str:
        options = ["-c", "gpg.format=ssh", "-c", f"user.signingkey={folder / key}"] if key else []
        flags = ["-S"] if key else []
        command = ["git", f"--git-dir={git_dir}", *options, "commit-tree", *flags, "-m", message, tree]
        return run(*command, cwd=folder).strip()

    commits = {"good": commit("good", "known"), "unknown_key": commit("x", "stranger"), "unsigned": commit("x", None)}
    raw = repository[commits["good"]].read_raw()
    commits["bad"] = str(repository.odb.write(pygit2.enums.ObjectType.COMMIT, raw.replace(b"\ngood", b"\nevil")))
    start, end = raw.index(b"gpgsig "), raw.index(b" -----END SSH SIGNATURE-----\n")
    garbage = raw[:start] + b"gpgsig none of the kinds\n" + raw[end + len(b" -----END SSH SIGNATURE-----\n") :]
    commits["garbage"] = str(repository.odb.write(pygit2.enums.ObjectType.COMMIT, garbage))
    return Signed(git_dir, allowed, commits)


def test_each_commit_has_its_status(signed: Signed) -> None:
    found = verify(signed.git_dir, list(signed.commits.values()), signed.config())

    assert {name: found[sha].status.value for name, sha in signed.commits.items()} == {
        "good": "good",
        "unknown_key": "unknown_key",
        "unsigned": "unsigned",
        "bad": "bad",
        "garbage": "bad",
    }
    assert found[signed.commits["good"]].signer == "alice@example.com"
    assert str(found[signed.commits["unknown_key"]].signer).startswith("SHA256:")
    assert found[signed.commits["unsigned"]].signer is None


def test_a_replaced_object_does_not_stand_in_for_the_commit(signed: Signed) -> None:
    unsigned, good = signed.commits["unsigned"], signed.commits["good"]
    repository = pygit2.Repository(str(signed.git_dir))
    reference = repository.references.create(f"refs/replace/{unsigned}", pygit2.Oid(hex=good))
    try:
        found = verify(signed.git_dir, [unsigned], signed.config())
    finally:
        reference.delete()
    assert found[unsigned].status is SignatureStatus.UNSIGNED


def test_what_cannot_be_checked_is_an_error_and_never_unsigned(
    signed: Signed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    good = [signed.commits["good"]]
    with pytest.raises(SyncError, match="cannot be read"):
        verify(signed.git_dir, [], SignatureConfig(policy="warn", allowed_signers=tmp_path / "missing"))
    with pytest.raises(SyncError, match="is not set, and commits are signed with ssh keys"):
        verify(signed.git_dir, good, SignatureConfig(policy="warn"))
    with pytest.raises(SyncError, match="there is no commit"):
        verify(signed.git_dir, ["0" * 40], signed.config())
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").symlink_to(str(shutil.which("git")))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(SyncError, match="needs ssh-keygen, which is not installed"):
        verify(signed.git_dir, good, signed.config())
    assert verify(signed.git_dir, [signed.commits["unsigned"]], signed.config())


def test_a_gpg_signature_is_checked_against_the_keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = tmp_path / "k"
    keyring.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(keyring))
    generate = ["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    run("gpg", *generate, "--quick-generate-key", "G <g@example.com>", "ed25519", "sign", "never", cwd=tmp_path)
    try:
        run("git", "init", "-q", "--bare", "r.git", cwd=tmp_path)
        tree = str(pygit2.Repository(str(tmp_path / "r.git")).TreeBuilder().write())
        command = [
            "git",
            "--git-dir=r.git",
            "-c",
            "user.signingkey=g@example.com",
            "commit-tree",
            "-S",
            "-m",
            "x",
            tree,
        ]
        sha = run(*command, cwd=tmp_path).strip()
        found = verify(tmp_path / "r.git", [sha], SignatureConfig(policy="require"))
        assert found[sha] == Signature(sha, SignatureStatus.GOOD, "G <g@example.com>")
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], check=False)
    (tmp_path / "other").mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(tmp_path / "other"))
    found = verify(tmp_path / "r.git", [sha], SignatureConfig(policy="require"))
    assert found[sha].status is SignatureStatus.UNKNOWN_KEY


@pytest.mark.parametrize("status", [status for status in SignatureStatus if status is not SignatureStatus.GOOD])
def test_the_policy_decides_what_becomes_of_a_head(status: SignatureStatus) -> None:
    signature = Signature("a" * 40, status, "mallory@example.com")

    assert check_head(signature, SignatureConfig(policy="off")) is None
    finding = check_head(signature, SignatureConfig(policy="warn"))
    assert finding is not None
    assert ("a" * 40 in finding.message, "mallory@example.com" in finding.message) == (True, True)
    with pytest.raises(SyncError) as caught:
        check_head(signature, SignatureConfig(policy="require"))
    assert "a" * 40 in str(caught.value)
    assert "\n" not in str(caught.value)
    good = Signature("a" * 40, SignatureStatus.GOOD, "alice@example.com")
    assert check_head(good, SignatureConfig(policy="require")) is None
