"""The workflows that are shipped for GitHub: their shell steps run here, with bash, on local repositories."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lz_sync_dagster.sync.git.manifest import HEADER_PATH

FOLDER = Path(__file__).parents[2] / "deploy" / "github"
FALLBACK, NOTIFY = FOLDER / "portal-sync-from-lz.yml", FOLDER / "lz-notify-portal.yml"
LIST = "docs/lz-reference/.lz-sync-fallback"


def step(workflow: Path) -> dict[str, Any]:
    """The only step of a workflow's only job."""
    (job,) = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].values()
    (found,) = job["steps"]
    return dict(found)


def run_step(workflow: Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the step as GitHub does for ``shell: bash``."""
    script = folder / "step.sh"
    script.write_text(step(workflow)["run"], encoding="utf-8")
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
        env={"PATH": os.environ["PATH"], "HOME": str(folder)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("workflow", [FALLBACK, NOTIFY], ids=lambda path: path.stem)
def test_no_expression_reaches_a_script_and_every_action_is_pinned(workflow: Path) -> None:
    assert "${{" not in step(workflow)["run"]
    text = workflow.read_text(encoding="utf-8")
    assert all(re.search(r"@[0-9a-f]{40}\b", line) for line in text.splitlines() if re.match(r"\s*-? *uses:", line))
    assert yaml.safe_load(text)["permissions"] == {}


# --- the fallback -----------------------------------------------------------------------------------------------------


@dataclass
class Repository:
    """A bare repository, written commit by commit."""

    path: Path

    def git(self, *arguments: str, data: bytes | None = None) -> str:
        command = ["git", f"--git-dir={self.path}", "-c", "user.name=t", "-c", "user.email=t@example.com", *arguments]
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout.decode().strip()

    def commit(self, files: dict[str, bytes | None], *, links: dict[str, str] | None = None) -> str:
        """Commit these files on main; ``None`` deletes one."""
        head = self.head
        self.git("read-tree", *([head] if head else ["--empty"]))
        lines = []
        for name, content in files.items():
            if content is None:
                lines.append(f"0 {'0' * 40}\t{name}")
            else:
                lines.append(f"100644 {self.git('hash-object', '-w', '--stdin', data=content)}\t{name}")
        for name, target in (links or {}).items():
            lines.append(f"120000 {self.git('hash-object', '-w', '--stdin', data=target.encode())}\t{name}")
        self.git("update-index", "-z", "--index-info", data="".join(f"{line}\0" for line in lines).encode())
        parents = ["-p", head] if head else []
        made = self.git("commit-tree", self.git("write-tree"), *parents, "-m", "a change")
        self.git("update-ref", "refs/heads/main", made)
        return made

    @property
    def head(self) -> str:
        return self.git("for-each-ref", "--format=%(objectname)", "refs/heads/main")

    def files(self) -> dict[str, str]:
        names = self.git("ls-tree", "-r", "-z", "--name-only", "main").split("\0")
        return {name: self.git("cat-file", "blob", f"main:{name}") for name in names if name}


@pytest.fixture
def zone(tmp_path: Path) -> Repository:
    return make(tmp_path / "zone.git")


@pytest.fixture
def portal(tmp_path: Path) -> Repository:
    made = make(tmp_path / "portal.git")
    made.commit({"README.md": b"the portal's own", "docs/lz-reference/own.md": b"own"})
    return made


def make(path: Path) -> Repository:
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(path)], check=True)
    return Repository(path)


def mirror(zone: Repository, portal: Repository, tmp_path: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    number = len(list(tmp_path.glob("runner-*")))
    folder = tmp_path / f"runner-{number}"
    folder.mkdir()
    environment = {
        "RUNNER_TEMP": str(folder),
        "GITHUB_REF_NAME": "main",
        "GITHUB_REF_TYPE": "branch",
        "LANDING_ZONE_URL": zone.path.as_uri(),
        "LANDING_ZONE_BRANCH": "main",
        "LANDING_ZONE_TOKEN": "a token",
        "PORTAL_URL": portal.path.as_uri(),
        "PORTAL_TOKEN": "another token",
    }
    assert set(step(FALLBACK)["env"]) <= set(environment)
    return run_step(FALLBACK, folder, **(environment | changes))


FIRST: dict[str, bytes | None] = {
    "docs/index.md": b"# Index",
    "docs/a folder/with $(odd) [names] & @.md": b"odd",
    "pmo.yaml": b"owner: ada",
    "ENFORCEMENT_GATES.md": b"gates",
    "RUNBOOKS.md": b"runbooks",
    "terraform/net/main.tf": b'resource "x" "y" {}\r\n',
    "terraform/net/notes.txt": b"not synced",
    "README.md": b"not synced",
}
PLACED = {
    "docs/lz-reference/index.md": "# Index",
    "docs/lz-reference/a folder/with $(odd) [names] & @.md": "odd",
    "config/lz-pmo.yaml": "owner: ada",
    "docs/lz-reference/ENFORCEMENT_GATES.md": "gates",
    "docs/lz-reference/RUNBOOKS.md": "runbooks",
    "docs/lz-reference/terraform/net/main.tf": 'resource "x" "y" {}',
}
OWN = {"README.md": "the portal's own", "docs/lz-reference/own.md": "own"}


def mirrored(portal: Repository) -> dict[str, str]:
    files = portal.files()
    assert files.pop(LIST).splitlines() == sorted(set(files) - set(OWN))
    return files


def test_the_fallback_mirrors_then_follows_changes_and_deletions_and_leaves_the_rest_alone(
    zone: Repository, portal: Repository, tmp_path: Path
) -> None:
    head = zone.commit(FIRST)
    before = portal.head
    done = mirror(zone, portal, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert mirrored(portal) == PLACED | OWN
    assert portal.git("rev-parse", "main^") == before
    assert f"Landing-Zone-Commit: {head}" in portal.git("log", "-1", "--format=%B", "main")

    after_first = portal.head
    assert mirror(zone, portal, tmp_path).returncode == 0
    assert portal.head == after_first, "a run that finds nothing new commits nothing"

    zone.commit(
        {"docs/index.md": b"# Renewed", "RUNBOOKS.md": None, "terraform/net/main.tf": None, "docs/own.md": b"!"}
    )
    done = mirror(zone, portal, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    gone = {"docs/lz-reference/RUNBOOKS.md", "docs/lz-reference/terraform/net/main.tf"}
    left = {path: text for path, text in PLACED.items() if path not in gone}
    assert mirrored(portal) == left | {"docs/lz-reference/index.md": "# Renewed"} | OWN
    assert "docs/lz-reference/own.md is the portal's own file" in done.stdout


def test_the_fallback_follows_no_link_and_deletes_nothing_that_its_list_was_made_to_name(
    zone: Repository, portal: Repository, tmp_path: Path
) -> None:
    zone.commit(FIRST, links={"docs/link.md": "/etc/passwd"})
    portal.commit({LIST: b"README.md\n../outside\ndocs/lz-reference/gone.md\n"})
    done = mirror(zone, portal, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert mirrored(portal) == PLACED | OWN
    assert "docs/link.md is a link" in done.stdout


@pytest.mark.parametrize(
    ("zone_files", "portal_files", "changes", "said"),
    [
        (FIRST, {HEADER_PATH: b"{}"}, {}, "remove this workflow"),
        ({"README.md": b"nothing to sync"}, {}, {}, "nothing is deleted"),
        (FIRST, {}, {"LANDING_ZONE_BRANCH": "gone"}, "LANDING_ZONE_BRANCH"),
        (FIRST, {}, {"GITHUB_REF_TYPE": "tag"}, "on a branch"),
    ],
)
def test_the_fallback_refuses_loudly_and_changes_nothing(
    zone: Repository,
    portal: Repository,
    tmp_path: Path,
    zone_files: dict[str, bytes | None],
    portal_files: dict[str, bytes | None],
    changes: dict[str, str],
    said: str,
) -> None:
    zone.commit(zone_files)
    head = portal.commit(portal_files)
    done = mirror(zone, portal, tmp_path, **changes)
    assert done.returncode == 1
    assert "::error::" in done.stdout
    assert said in done.stdout
    assert portal.head == head


def test_a_push_that_loses_a_race_is_made_anew_and_never_forced(
    zone: Repository, portal: Repository, tmp_path: Path
) -> None:
    zone.commit(FIRST)
    rival = portal.commit({"rival.md": b"rival"})
    portal.git("update-ref", "refs/heads/main", f"{rival}^")
    hook = portal.path / "hooks" / "pre-receive"  # the first push finds that somebody was faster
    hook.write_text(
        "#!/bin/sh\ntest -e raced && exit 0\ntouch raced\n"
        f"env -u GIT_QUARANTINE_PATH git update-ref refs/heads/main {rival}\n"
    )
    hook.chmod(0o755)
    done = mirror(zone, portal, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "attempt 1" in done.stdout
    assert portal.git("rev-parse", "main^") == rival
    assert portal.files()["rival.md"] == "rival"


def test_the_token_is_asked_for_and_stands_in_no_argument(zone: Repository, portal: Repository, tmp_path: Path) -> None:
    zone.commit(FIRST)
    assert mirror(zone, portal, tmp_path).returncode == 0
    askpass = tmp_path / "runner-0" / "askpass"

    def asked(prompt: str) -> str:
        environment = {"PATH": os.environ["PATH"], "ASKED_TOKEN": "s3cret"}
        return subprocess.run([askpass, prompt], env=environment, capture_output=True, text=True, check=True).stdout

    assert asked("Username for 'https://github.com': ") == "x-access-token\n"
    assert asked("Password for 'https://x-access-token@github.com': ") == "s3cret\n"


# --- the notification -------------------------------------------------------------------------------------------------

_GH = """#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word" >> "$CALLS"; done
test -n "$GH_TOKEN" || exit 9
tries=$(cat "$CALLS.tries" 2>/dev/null || echo 0)
echo $((tries + 1)) > "$CALLS.tries"
test "$tries" -ge "$FAIL"
"""


@pytest.mark.parametrize(("failures", "code"), [(0, 0), (2, 0), (9, 1)])
def test_the_notification_is_sent_tried_again_and_fails_loudly(tmp_path: Path, failures: int, code: int) -> None:
    """GitHub's command line is not here: a stand-in records what it is called with."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("gh", _GH), ("sleep", "#!/bin/sh\n")):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    calls = tmp_path / "calls"
    done = run_step(
        NOTIFY,
        tmp_path,
        PATH=f"{tools}:{os.environ['PATH']}",
        CALLS=str(calls),
        FAIL=str(failures),
        GH_TOKEN="s3cret",
        PORTAL_REPOSITORY="example/portal",
        GITHUB_SHA="a" * 40,
    )
    assert done.returncode == code
    assert ("::error::" in done.stdout) is (code == 1)
    words = calls.read_text().splitlines()
    assert "repos/example/portal/dispatches" in words
    assert "event_type=lz-update" in words
    assert f"client_payload[commit_sha]={'a' * 40}" in words
    assert "s3cret" not in calls.read_text() + done.stdout + done.stderr


@pytest.mark.parametrize(("token", "repository"), [("", "example/portal"), ("t", ""), ("t", "a/b/../../user")])
def test_a_notification_without_its_settings_says_what_is_missing(tmp_path: Path, token: str, repository: str) -> None:
    done = run_step(NOTIFY, tmp_path, GH_TOKEN=token, PORTAL_REPOSITORY=repository, GITHUB_SHA="a" * 40)
    assert done.returncode == 1
    assert "::error::" in done.stdout
