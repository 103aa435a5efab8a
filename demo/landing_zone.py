"""The demo's landing zone, whole: repositories, organization, billing export and servers, in one data directory.

What is in the directory stays: starting again on it shows the same landing zone.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from datetime import timedelta
from pathlib import Path
from types import TracebackType

import httpx
import yaml
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient

from demo.asset_server import AssetServer, start_asset_server
from demo.billing import write_billing_export
from demo.faults import Faults
from demo.organization import ORGANIZATION, Organization
from demo.pubsub_server import PubsubServer, start_pubsub_server
from demo.repositories import BRANCH, make_repositories
from demo.simulator import REPOSITORY, GithubWebhook, Simulator, head_push
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.timing import Clock

PORTAL_REPOSITORY = "example/gcp-landing-zone-portal"
PUBSUB_PROJECT = "lz-demo-ops"
TOPIC = "lz-infrastructure-events"
SUBSCRIPTION = "portal-lz-events"
WEBHOOK_SECRET = "demo-webhook-secret"  # noqa: S105
HOST = "127.0.0.1"
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
        self.repositories = make_repositories(self.folder / "repositories")
        journal = self.folder / "organization.jsonl"
        self.is_new = not journal.exists()
        self.organization = Organization(_remembered_size(self.folder / "demo.json", assets), _SEED, journal)
        yesterday = clock().date() - timedelta(days=1)
        write_billing_export(self.folder / "billing_export", self.organization, days=_BILLING_DAYS, until=yesterday)
        self._assets: AssetServer = start_asset_server(self.organization, faults)
        self._pubsub: PubsubServer = start_pubsub_server(faults=faults)
        self.portal_port = free_port()
        self._client = httpx.Client(timeout=10)
        self.config = self._write_config()
        os.environ["PUBSUB_EMULATOR_HOST"] = self._pubsub.address
        self._publisher = PublisherClient()
        self._topic = self._publisher.topic_path(PUBSUB_PROJECT, TOPIC)
        self._subscribe()
        self.webhook = GithubWebhook(f"{self.portal_url}/webhooks/github", WEBHOOK_SECRET.encode(), self._client)
        self.simulator = Simulator(
            self.organization,
            self._publisher,
            self._topic,
            self.repositories.landing_zone,
            self.webhook,
            _SEED,
            clock,
        )

    @property
    def portal_url(self) -> str:
        """Where the portal listens."""
        return f"http://{HOST}:{self.portal_port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the production processes: endpoints and the one secret."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("LZ_SYNC_")},
            "LZ_SYNC_CONFIG": str(self.config),
            "LZ_SYNC_WEBHOOK_SECRETS": WEBHOOK_SECRET,
            "PUBSUB_EMULATOR_HOST": self._pubsub.address,
        }

    def deliver_head(self) -> int:
        """Send the push of the landing zone's head, always as the same delivery. Returns the HTTP status."""
        payload = head_push(self.repositories.landing_zone)
        return self.webhook(payload, delivery=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{REPOSITORY}@{payload['after']}")))

    def __enter__(self) -> DemoLandingZone:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._publisher.stop()
        self._client.close()
        self._pubsub.stop()
        self._assets.stop()
        self.organization.close()

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
                "api_sync": {"scopes": [ORGANIZATION], "content_types": ["RESOURCE", "IAM_POLICY", "ORG_POLICY"]},
                "pubsub": {"project": PUBSUB_PROJECT, "topic": TOPIC, "subscription": SUBSCRIPTION},
                "bigquery": {"billing_export": str(self.folder / "billing_export")},
            },
            "landing_zone": {
                "url": str(self.repositories.landing_zone),
                "name": REPOSITORY,
                "branch": BRANCH,
            },
            "portal_repository": {
                "url": str(self.repositories.portal),
                "name": PORTAL_REPOSITORY,
                "branch": BRANCH,
            },
            "google_cloud": {"asset_endpoint": self._assets.endpoint},
            "data_dir": str(self.folder / "lz_sync"),
        }
        path = self.folder / "sync_config.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        return path


def _remembered_size(path: Path, asked: int | None) -> int:
    """The size of the organization: as asked the first time, and the same ever after."""
    if not path.exists():
        size = 2000 if asked is None else asked
        path.write_text(json.dumps({"assets": size}), encoding="utf-8")
        return size
    size = int(json.loads(path.read_text(encoding="utf-8"))["assets"])
    if asked is not None and asked != size:
        raise SyncError(
            f"holds an organization of {size} assets, not {asked}",
            where=str(path.parent),
            remedy=f"use --assets {size}, another --data-dir, or remove the directory",
            reason=Reason.CONFLICT,
            transient=False,
        )
    return size


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
