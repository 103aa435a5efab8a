"""The demo's landing zone, whole: repositories, organization, billing export and servers, in one data directory.

What is in the directory stays: starting again on it shows the same landing zone.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient

from demo.asset_server import AssetServer, start_asset_server
from demo.billing import write_billing_export
from demo.faults import AFTER_FIRST_SYNC, Faults
from demo.github_server import App, GithubServer, Token, make_private_key, public_key_of, start_github_server
from demo.organization import ORGANIZATION, Organization
from demo.pubsub_server import PubsubServer, start_pubsub_server
from demo.repositories import BRANCH, break_pmo, edit_portal, make_repositories, mend_pmo
from demo.simulator import REPOSITORY, Simulator, head_push
from demo.storage_server import StorageServer, start_storage_server
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.timing import Clock

PORTAL_REPOSITORY = "example/gcp-landing-zone-portal"
PUBSUB_PROJECT = "lz-demo-ops"
TOPIC = "lz-infrastructure-events"
SUBSCRIPTION = "portal-lz-events"
WEBHOOK_SECRET = "demo-webhook-secret"  # noqa: S105
GIT_TOKEN = "demo-git-token"  # noqa: S105
APP_ID = 4242
HOST = "127.0.0.1"
#: The demo's Cloud Asset server has no quota, so that an organization of any size is read in one sync.
QUOTAS = ("list_assets", "search_all_resources", "batch_get_assets_history", "export_assets")
NO_QUOTA = 1_000_000
EXPORT_BUCKET = "lz-demo-exports"
#: Faults that show only where the inventory is exported.
_OF_EXPORTS = ("export_fails", "export_hangs", "export_truncated")
_SEED = 7
_BILLING_DAYS = 120
_ACK_DEADLINE_SECONDS = 30


class DemoLandingZone:
    """Everything that production code talks to, running.

    Args:
        folder: the data directory.
        assets: the size of the organization; ``None`` takes the directory's, or 2,000.
        faults: what goes wrong.
        clock: tells when changes happen.

    Attributes:
        is_new: whether the directory was empty before.

    Raises:
        SyncError: the directory holds an organization of another size.
    """

    def __init__(self, folder: Path, *, assets: int | None, faults: Faults, clock: Clock) -> None:
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._faults = faults
        self._clock = clock
        self.repositories = make_repositories(self.folder / "repositories")
        journal = self.folder / "organization.jsonl"
        self.is_new = not journal.exists()
        remembered = _remembered(self.folder / "demo.json", assets)
        self.organization = Organization(remembered["assets"], _SEED, journal)
        yesterday = clock().date() - timedelta(days=1)
        write_billing_export(self.folder / "billing_export", self.organization, days=_BILLING_DAYS, until=yesterday)
        self._storage: StorageServer = start_storage_server([EXPORT_BUCKET])
        self._assets: AssetServer = start_asset_server(self.organization, faults, storage=self._storage.storage)
        self._pubsub: PubsubServer = start_pubsub_server(faults=faults)
        self.portal_port = free_port()
        self._app_key = make_private_key()
        self._github = self._start_github(remembered["github_port"])
        self._hook = self._github.add_hook(REPOSITORY, f"{self.portal_url}/webhooks/github", WEBHOOK_SECRET)
        self.mend()
        self.config = self._write_config()
        os.environ["PUBSUB_EMULATOR_HOST"] = self._pubsub.address
        self._publisher = PublisherClient()
        self._topic = self._publisher.topic_path(PUBSUB_PROJECT, TOPIC)
        self._subscribe()
        self.simulator = Simulator(
            self.organization,
            self._publisher,
            self._topic,
            self.repositories.landing_zone,
            self.push,
            _SEED,
            clock,
        )

    @property
    def portal_url(self) -> str:
        """Where the portal listens."""
        return f"http://{HOST}:{self.portal_port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the production processes: endpoints and secrets."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("LZ_SYNC_")},
            "LZ_SYNC_CONFIG": str(self.config),
            "LZ_SYNC_WEBHOOK_SECRETS": WEBHOOK_SECRET,
            "LZ_SYNC_GIT_TOKEN": GIT_TOKEN,
            "LZ_SYNC_GITHUB_APP_PRIVATE_KEY": self._app_key,
            "PUBSUB_EMULATOR_HOST": self._pubsub.address,
        }

    def push(self, payload: Mapping[str, Any], *, guid: str | None = None) -> int | None:
        """Let GitHub tell of a push. Returns the HTTP status that it got; ``None``: a fault kept it from telling."""
        if self._faults.active("webhook_missing"):
            return None
        if lost := self._faults.take("webhook_lost"):
            self._github.fail("hook_refused")
        delivery = self._github.deliver("push", payload, self._hook, guid=guid)
        return None if lost else delivery.status_code

    def deliver_head(self) -> int | None:
        """`push` the landing zone's head, always as the same delivery."""
        payload = head_push(self.repositories.landing_zone)
        return self.push(payload, guid=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{REPOSITORY}@{payload['after']}")))

    @property
    def has_trouble(self) -> bool:
        """Whether something is to go wrong after the first sync."""
        return any(self._faults.active(name) for name in AFTER_FIRST_SYNC)

    def make_trouble(self) -> list[str]:
        """Let that happen. Returns what was done."""
        done = []
        source = self.repositories.landing_zone
        if self._faults.active("git_denied"):
            self._allow_git("read")
            done.append(f"git_denied: the token reads only; {self.simulator.commit().target} waits to be pushed")
        if self._faults.active("portal_edited"):
            edited = edit_portal(self.repositories.portal, at=self._clock())
            done.append(f"portal_edited: {edited or 'nothing: the portal repository has no such file yet'}")
        if self._faults.active("pmo_invalid"):
            break_pmo(source, at=self._clock())
            self.deliver_head()
            done.append("pmo_invalid: pmo.yaml is no YAML any more")
        return done

    def __enter__(self) -> DemoLandingZone:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._publisher.stop()
        self._github.stop()
        self._pubsub.stop()
        self._assets.stop()
        self._storage.stop()
        self.organization.close()

    def mend(self) -> None:
        """Take back what `make_trouble` did; a broken ``pmo.yaml`` only if that fault is off."""
        if not self._faults.active("pmo_invalid"):
            mend_pmo(self.repositories.landing_zone, at=self._clock())
        self._allow_git("write")

    def _allow_git(self, level: str) -> None:
        self._github.add_token(Token(GIT_TOKEN, {"contents": level}))

    def _start_github(self, port: int) -> GithubServer:
        """GitHub, where it was before if nobody else is there now."""
        repositories = {REPOSITORY: self.repositories.landing_zone, PORTAL_REPOSITORY: self.repositories.portal}
        app = App(APP_ID, public_key_of(self._app_key), {"repository_hooks": "write"})
        try:
            return start_github_server(repositories, app=app, clock=self._clock, port=port)
        except OSError:
            return start_github_server(repositories, app=app, clock=self._clock)

    def _repository(self, name: str) -> dict[str, str]:
        page = f"{self._github.url}/{name}"
        return {"url": self._github.clone_url(name), "name": name, "branch": BRANCH, "page": page}

    def _subscribe(self) -> None:
        self._publisher.create_topic(name=self._topic)
        with SubscriberClient() as subscriber:
            subscriber.create_subscription(
                name=subscriber.subscription_path(PUBSUB_PROJECT, SUBSCRIPTION),
                topic=self._topic,
                ack_deadline_seconds=_ACK_DEADLINE_SECONDS,
            )

    def _write_config(self) -> Path:
        """The ``sync_config.yaml`` that a user of this landing zone would write."""
        config = {
            "sync_layers": {
                "webhook": {"hook": self._hook},
                "api_sync": {
                    "scopes": self._scopes(),
                    "bulk": self._bulk(),
                    "content_types": ["RESOURCE", "IAM_POLICY", "ORG_POLICY"],
                    "quotas": dict.fromkeys(QUOTAS, NO_QUOTA),
                },
                "pubsub": {"project": PUBSUB_PROJECT, "topic": TOPIC, "subscription": SUBSCRIPTION},
                "bigquery": {"billing_export": str(self.folder / "billing_export")},
            },
            "landing_zone": self._repository(REPOSITORY),
            "portal_repository": self._repository(PORTAL_REPOSITORY),
            "github": {"api_url": self._github.api_url, "app_id": APP_ID},
            "google_cloud": {
                "asset_endpoint": self._assets.endpoint,
                "storage_endpoint": self._storage.endpoint,
            },
            "data_dir": str(self.folder / "lz_sync"),
        }
        path = self.folder / "sync_config.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        return path

    def _scopes(self) -> list[str]:
        """The organization; where a folder is to be denied, its top folders, of which the first is denied."""
        if not self._faults.active("asset_denied_folder"):
            return [ORGANIZATION]
        folders = [ancestors[0] for _, _, ancestors in self.organization.folders if len(ancestors) == 2]
        self._faults.denied_folders = (folders[0],)
        return folders

    def _bulk(self) -> dict[str, Any]:
        """Where exports go; they are made if one of them is to go wrong."""
        wanted = any(self._faults.active(name) for name in _OF_EXPORTS)
        return {
            "enabled": wanted,
            "destination": f"gs://{EXPORT_BUCKET}/cai",
            "from_assets": 0,
            "deadline_minutes": 1,
        }


def _remembered(path: Path, asked: int | None) -> dict[str, int]:
    """What stays as it was the first time: the size of the organization (``assets``), as asked then, and
    ``github_port``: links and clones lead there."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    size = known.setdefault("assets", 2000 if asked is None else asked)
    known.setdefault("github_port", free_port())
    if asked is not None and asked != size:
        raise SyncError(
            f"holds an organization of {size} assets, not {asked}",
            where=str(path.parent),
            remedy=f"use --assets {size}, another --data-dir, or remove the directory",
            reason=Reason.CONFLICT,
            transient=False,
        )
    path.write_text(json.dumps(known), encoding="utf-8")
    return {name: int(value) for name, value in known.items()}


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Whether somebody listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0
