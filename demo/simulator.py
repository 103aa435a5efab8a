"""Changes the demo's landing zone the way people do, and publishes what real asset feeds and GitHub would send for it.

A change of the organization is kept in it and published as ``TemporalAsset`` by the feed of its content type. A commit
to the landing-zone repository is followed by the payload of its ``push`` webhook.
"""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import orjson

from demo.organization import IAM_POLICY, RESOURCE, Json, Organization
from demo.repositories import ALICE, BILAL, BRANCH, CHEN, DANA, commit_change, read_file
from lz_sync_dagster.sync.timing import Clock, format_ns, from_ns, to_ns

INSTANCE = "compute.googleapis.com/Instance"
FIREWALL = "compute.googleapis.com/Firewall"
DISK = "compute.googleapis.com/Disk"
PROJECT = "cloudresourcemanager.googleapis.com/Project"

ANYWHERE = "0.0.0.0/0"
INSIDE = "10.0.0.0/8"
REPOSITORY = "example/gcp-landing-zone"
#: The feeds that the demo has: one per content type, all on one topic.
FEEDS = {RESOURCE: "lz-resources", IAM_POLICY: "lz-iam-policies"}

_SCRIPT_VM = "vm-first-change"
_MEMBER = "user:contractor@example.com"
_ROLE = "roles/owner"
_PUBLISH_SECONDS = 10.0
_CANDIDATES = 200
_AUTHORS = (ALICE, BILAL, CHEN, DANA)
#: How many notes the change log holds, and how many buckets of tests there are at once.
_NOTES, _SCRATCH_FILES = 30, 4


class Publisher(Protocol):
    """What is used of Google's ``PublisherClient``."""

    def publish(self, topic: str, data: bytes) -> Any:
        """Publish a message; the answer is a future of its id."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change that was made. ``target``: a full resource name, or a path in the repository."""

    kind: str
    target: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of one place in a file. ``pattern``: its last group is the place; ``values``: what may be there."""

    path: str
    pattern: str
    values: tuple[str, ...]
    message: str


_STATUSES = ("active", "advisory", "planned")
#: What people change now and then.
EDITS = (
    Edit(
        "docs/cost.md", r"a warning at (\d+)", ("70", "75", "80", "85", "90"), "docs: another warning level of budgets"
    ),
    Edit("docs/identity.md", r"rotated after (\d+) days", ("30", "60", "90"), "docs: how long a key may live"),
    Edit(
        "docs/disaster-recovery.md",
        r"platform \| (\w+) hours",
        ("two", "three", "four", "six"),
        "docs: recovery time of the platform",
    ),
    Edit(
        "terraform/04-platform/gke.tf", r"node_count = (\d+)", ("3", "4", "5", "6"), "terraform: size of the node pool"
    ),
    Edit(
        "terraform/02-networking/main.tf",
        r"flow_sampling +?= (\S+)",
        ("0.1", "0.25", "0.5", "1.0"),
        "terraform: share of flows that is logged",
    ),
    Edit("ENFORCEMENT_GATES.md", r"GATE-04 \|.*\| (\w+) \|", _STATUSES, "gates: status of the check of labels"),
    Edit("ENFORCEMENT_GATES.md", r"GATE-07 \|.*\| (\w+) \|", _STATUSES, "gates: status of the check of budgets"),
    Edit("pmo.yaml", r"target_score: (\S+)", ("0.9", "0.92", "0.95", "0.97"), "pmo: target of compliance"),
    Edit(
        "pmo.yaml", r"name: payments\n.*\n +budget_eur: (\d+)", ("29000", "31000", "33500"), "pmo: budget of payments"
    ),
    Edit("RUNBOOKS.md", r"backups restore (\d+)", ("1706000000000", "1709000000000"), "runbooks: a newer backup"),
    Edit(
        "RUNBOOKS.md", r"Open it for a tag, for (.+):", ("an hour", "two hours", "a day"), "runbooks: emergency access"
    ),
)


class Simulator:
    """A few busy people.

    Args:
        organization: what they change.
        publisher: Google's client; it honours ``PUBSUB_EMULATOR_HOST``.
        topic: ``projects/P/topics/T``, to which the feeds publish.
        repo: the landing-zone repository, or ``None`` for people who do not commit.
        webhook: called with the ``push`` payload after a commit.
        seed: the same seed makes the same changes.
        clock: when changes happen; two changes never happen at one instant.
    """

    def __init__(
        self,
        organization: Organization,
        publisher: Publisher,
        topic: str,
        repo: Path | None,
        webhook: Callable[[Json], object] | None,
        seed: int,
        clock: Clock,
    ) -> None:
        self._organization = organization
        self._publisher = publisher
        self._topic = topic
        self._repo = repo
        self._webhook = webhook
        self._random = random.Random(seed)
        self._clock = clock
        self._last = from_ns(organization.latest_ns())
        self._opened: list[str] = []
        self._commits = 0

    def welcome(self) -> None:
        """What a new feed publishes first: one message per feed, and not JSON."""
        for name in FEEDS.values():
            text = f"You have successfully configured a feed. Feed name: projects/lz-demo-ops/feeds/{name}"
            self._publish(text.encode())

    def step(self) -> Change:
        """Make one change, as chance will have it."""
        kinds: list[tuple[Callable[[], Change], int]] = [
            (self.create_vm, 3),
            (self.open_firewall, 2),
            (self.change_iam, 2),
            (self.delete_disk, 1),
        ]
        if self._opened:
            kinds.append((self.fix_firewall, 3))
        if self._repo is not None:
            kinds.append((self.commit, 2))
        (chosen,) = self._random.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])
        return chosen()

    def script(self) -> list[Change]:
        """A fixed sequence: create a VM, open a firewall, delete a disk, change IAM, fix the firewall.

        Once per organization: where the VM already is, nothing is done.
        """
        first = next(self._organization.names(INSTANCE))
        name = f"{first.rpartition('/')[0]}/{_SCRIPT_VM}"
        if self._organization.history(name):
            return []
        return [
            self.create_vm(template=first, leaf=_SCRIPT_VM),
            self.open_firewall(next(self._organization.names(FIREWALL))),
            self.delete_disk(next(self._organization.names(DISK))),
            self.change_iam(next(self._organization.names(PROJECT, IAM_POLICY))),
            self.fix_firewall(),
        ]

    # --- changes of the organization ----------------------------------------------------------------------------------

    def create_vm(self, template: str | None = None, leaf: str | None = None) -> Change:
        """Create an instance like another one."""
        at = self._now()
        template = template or self._some(INSTANCE)
        leaf = leaf or f"vm-{self._random.randrange(16**8):08x}"
        asset = self._existing(template, RESOURCE)
        data = asset["resource"]["data"]
        old = data["name"]
        asset["name"] = f"{template.rpartition('/')[0]}/{leaf}"
        data |= {
            "name": leaf,
            "id": str(10**18 + self._random.randrange(10**18)),
            "creationTimestamp": format_ns(to_ns(at)),
            "status": "RUNNING",
            "selfLink": data["selfLink"].replace(f"/{old}", f"/{leaf}"),
        }
        for disk in data.get("disks", ()):
            disk |= {"deviceName": leaf, "source": f"{disk['source'].rpartition('/')[0]}/{leaf}"}
        return self._upsert("create_vm", asset, RESOURCE, at)

    def open_firewall(self, name: str | None = None) -> Change:
        """Let everybody reach SSH."""
        at = self._now()
        asset = self._existing(name or self._some(FIREWALL), RESOURCE)
        data = asset["resource"]["data"]
        data.pop("denied", None)
        data |= {
            "direction": "INGRESS",
            "disabled": False,
            "sourceRanges": [ANYWHERE],
            "allowed": [{"IPProtocol": "tcp", "ports": ["22", "3389"]}],
        }
        self._opened.append(asset["name"])
        return self._upsert("open_firewall", asset, RESOURCE, at)

    def fix_firewall(self) -> Change:
        """Close the firewall that has been open for longest."""
        at = self._now()
        asset = self._existing(self._opened.pop(0), RESOURCE)
        asset["resource"]["data"]["sourceRanges"] = [INSIDE]
        return self._upsert("fix_firewall", asset, RESOURCE, at)

    def delete_disk(self, name: str | None = None) -> Change:
        """Delete a disk; its policies go with it."""
        at = self._now()
        name = name or self._some(DISK)
        before = {content: self._organization.get(name, content) for content in FEEDS}
        for content in self._organization.delete(name, at=at):
            prior = before.get(content)
            if prior is not None:
                asset = {key: prior[key] for key in ("name", "assetType", "ancestors")}
                self._publish_change({"asset": asset, "deleted": True}, prior, "PRESENT", at)
        return Change("delete_disk", name, at)

    def change_iam(self, name: str | None = None) -> Change:
        """Make an outsider owner of a project, or take that back."""
        at = self._now()
        asset = self._existing(name or self._some(PROJECT, IAM_POLICY), IAM_POLICY)
        bindings: list[Json] = asset["iamPolicy"].setdefault("bindings", [])
        owners = next((item for item in bindings if item["role"] == _ROLE), None)
        if owners is None:
            bindings.append({"role": _ROLE, "members": [_MEMBER]})
        elif _MEMBER not in owners["members"]:
            owners["members"].append(_MEMBER)
        elif len(owners["members"]) == 1:
            bindings.remove(owners)
        else:
            owners["members"].remove(_MEMBER)
        return self._upsert("change_iam", asset, IAM_POLICY, at)

    def _now(self) -> datetime:
        self._last = max(self._clock(), self._last + timedelta(milliseconds=1))
        return self._last

    def _some(self, asset_type: str, content_type: str = RESOURCE) -> str:
        return self._random.choice(list(islice(self._organization.names(asset_type, content_type), _CANDIDATES)))

    def _existing(self, name: str, content_type: str) -> Json:
        asset = self._organization.get(name, content_type)
        if asset is None:
            raise LookupError(f"{name} has no {content_type} in the organization")
        return asset

    def _upsert(self, kind: str, asset: Json, content_type: str, at: datetime) -> Change:
        name = asset["name"]
        prior = self._organization.get(name, content_type)
        state = (
            "PRESENT" if prior else "DELETED" if self._organization.history(name, content_type) else "DOES_NOT_EXIST"
        )
        kept = self._organization.upsert(asset, content_type=content_type, at=at)
        self._publish_change({"asset": kept}, prior, state, at)
        return Change(kind, name, at)

    def _publish_change(self, message: Json, prior: Json | None, state: str, at: datetime) -> None:
        message = message | {"window": {"startTime": format_ns(to_ns(at))}, "priorAssetState": state}
        if prior is not None:
            message["priorAsset"] = prior
        self._publish(orjson.dumps(message))

    def _publish(self, data: bytes) -> None:
        self._publisher.publish(self._topic, data).result(timeout=_PUBLISH_SECONDS)

    # --- changes of the repository ------------------------------------------------------------------------------------

    def commit(self) -> Change:
        """Commit and push a change of a document, of terraform, the gates, ``pmo.yaml`` or a runbook, and tell GitHub.

        Raises:
            LookupError: there is no repository.
        """
        if self._repo is None:
            raise LookupError("this simulator has no repository")
        at = self._now().replace(microsecond=0)
        self._commits += 1
        edit = self._random.choice((self._note_change, self._edit_terraform, *[self._edit_place] * 4))
        path, content, message = edit(self._repo, at)
        data = None if content is None else content.encode()
        commit_change(self._repo, path, data, message=message, author=self._random.choice(_AUTHORS), at=at)
        if self._webhook is not None:
            self._webhook(head_push(self._repo))
        return Change("commit", path, at)

    def _edit_place(self, repo: Path, at: datetime) -> tuple[str, str | None, str]:
        for edit in self._random.sample(EDITS, len(EDITS)):
            text = (read_file(repo, edit.path) or b"").decode()
            found = re.search(edit.pattern, text)
            if found is not None:
                place = found.lastindex or 0
                value = self._random.choice([value for value in edit.values if value != found[place]])
                return edit.path, text[: found.start(place)] + value + text[found.end(place) :], edit.message
        return self._note_change(repo, at)

    def _note_change(self, repo: Path, at: datetime) -> tuple[str, str | None, str]:
        path = "docs/change-log.md"
        lines = (read_file(repo, path) or b"").decode().splitlines()
        notes = [line for line in lines if line.startswith("- ")][1 - _NOTES :]
        notes.append(f"- {at:%Y-%m-%d %H:%M:%S}: change {self._commits} of the day was reviewed and applied.")
        return (
            path,
            "\n".join(["# Change log", "", "What changed, newest last.", "", *notes, ""]),
            "docs: note the change",
        )

    def _edit_terraform(self, repo: Path, at: datetime) -> tuple[str, str | None, str]:
        names = _git(repo, "ls-tree", "-r", "--name-only", BRANCH).splitlines()
        files = [name for name in names if name.endswith(".tf")]
        scratch = sorted((name for name in files if "/scratch_" in name), key=lambda name: name.rpartition("/")[2])
        if len(scratch) >= _SCRATCH_FILES:
            return scratch[0], None, "terraform: remove a bucket of a test"
        folder = self._random.choice(sorted({name.rpartition("/")[0] for name in files}))
        leaf = f"scratch_{at:%Y%m%d%H%M%S}_{self._commits}"
        content = f'resource "google_storage_bucket" "{leaf}" {{\n  name     = "{leaf.replace("_", "-")}"\n'
        content += '  location = "EU"\n\n  uniform_bucket_level_access = true\n}\n'
        return f"{folder}/{leaf}.tf", content, "terraform: a bucket for a test"


def head_push(repo: Path) -> Json:
    """The ``push`` payload that GitHub sends for the commit at the branch's head: always the same for one head."""
    after, parents, author, email, at, message = _git(
        repo, "log", "-1", "--format=%H%x00%P%x00%an%x00%ae%x00%aI%x00%B", BRANCH
    ).split("\x00")
    changes: dict[str, list[str]] = {"A": [], "M": [], "D": []}
    listing = _git(repo, "diff-tree", "-r", "--root", "--no-commit-id", "--no-renames", "--name-status", after)
    for line in listing.splitlines():
        status, _, path = line.partition("\t")
        changes.setdefault(status, []).append(path)
    login = email.partition("@")[0]
    person = {"name": author, "email": email, "username": login}
    commit = {
        "id": after,
        "message": message.strip(),
        "timestamp": at,
        "author": person,
        "committer": person,
        "added": changes["A"],
        "modified": changes["M"],
        "removed": changes["D"],
    }
    return {
        "ref": f"refs/heads/{BRANCH}",
        "before": parents.split(" ")[0] or "0" * 40,
        "after": after,
        "created": False,
        "deleted": False,
        "forced": False,
        "repository": {"full_name": REPOSITORY, "name": REPOSITORY.partition("/")[2], "default_branch": BRANCH},
        "pusher": {"name": login, "email": email},
        "sender": {"login": login, "type": "User"},
        "commits": [commit],
        "head_commit": commit,
    }


def _git(repo: Path, *arguments: str) -> str:
    command: Sequence[str] = ("git", "-C", str(repo), *arguments)
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
