"""The subscription that the layer reads: opened with Google's client, checked, and its errors put into our words.

``PUBSUB_EMULATOR_HOST`` is honoured by the client itself. Nothing is created here: topic and subscription are
infrastructure.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from google.api_core import exceptions
from google.auth import exceptions as auth
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient

from lz_sync_dagster.config import Settings
from lz_sync_dagster.sync.errors import Reason, SyncError

#: How long one call may take, in seconds.
CALL_TIMEOUT_SECONDS = 5.0
_DELETED_TOPIC = "_deleted-topic_"
_PERMANENT_REMEDY = "look at the message; if it names no cause, report it as a defect"


@dataclass(frozen=True, slots=True)
class Subscription:
    """An open subscription. ``path`` is ``projects/P/subscriptions/S``, ``topic_path`` ``projects/P/topics/T``."""

    client: SubscriberClient
    path: str
    topic_path: str

    def close(self) -> None:
        """Close the client's channel."""
        self.client.close()


def open_subscription(settings: Settings) -> Subscription:
    """Open the configured subscription and check that it is there and reads the configured topic.

    Raises:
        SyncError: it is not configured, missing, or cannot be reached.
    """
    config = settings.sync_layers.pubsub
    if not config.project:
        raise SyncError(
            "is not set",
            where="sync_layers.pubsub.project",
            remedy="name the project that owns the topic and the subscription",
            reason=Reason.INVALID,
        )
    path = f"projects/{config.project}/subscriptions/{config.subscription}"
    topic_path = f"projects/{config.project}/topics/{config.topic}"
    with google_errors(path):
        client = SubscriberClient()
    subscription = Subscription(client, path, topic_path)
    try:
        check(subscription)
    except BaseException:
        subscription.close()
        raise
    return subscription


def check(subscription: Subscription) -> None:
    """Ask for the subscription. Raises `SyncError` if it is missing, reads another topic, or cannot be reached."""
    with google_errors(subscription.path):
        try:
            found = subscription.client.get_subscription(
                subscription=subscription.path, retry=None, timeout=CALL_TIMEOUT_SECONDS
            )
        except exceptions.NotFound as error:
            raise _missing(subscription) from error
    if found.topic == _DELETED_TOPIC:
        raise SyncError(
            "receives nothing: its topic was deleted",
            where=f"subscription {subscription.path}",
            remedy=f"delete it, create the topic {subscription.topic_path}, its feeds and the subscription again",
            reason=Reason.NOT_FOUND,
        )
    if found.topic != subscription.topic_path:
        raise SyncError(
            f"receives from {found.topic}, not from {subscription.topic_path}",
            where=f"subscription {subscription.path}",
            remedy="set sync_layers.pubsub.topic to the topic that the asset feeds publish to",
            reason=Reason.INVALID,
        )


def _missing(subscription: Subscription) -> SyncError:
    _, project, _, name = subscription.path.split("/")
    topic = subscription.topic_path.rpartition("/")[2]
    create = f"'gcloud pubsub subscriptions create {name} --topic={topic} --project={project}'"
    if _topic_is_missing(subscription.topic_path):
        return SyncError(
            "does not exist",
            where=f"topic {subscription.topic_path}",
            remedy=f"create it with 'gcloud pubsub topics create {topic} --project={project}', then run {create}",
            reason=Reason.NOT_FOUND,
        )
    return SyncError(
        "does not exist",
        where=f"subscription {subscription.path}",
        remedy=f"create it with {create}",
        reason=Reason.NOT_FOUND,
    )


def _topic_is_missing(topic_path: str) -> bool:
    publisher = PublisherClient()
    try:
        publisher.get_topic(topic=topic_path, retry=None, timeout=CALL_TIMEOUT_SECONDS)
    except exceptions.NotFound:
        return True
    except exceptions.GoogleAPICallError:
        return False
    finally:
        publisher.transport.close()
    return False


@contextmanager
def google_errors(path: str) -> Iterator[None]:
    """Raise what Google's client raises as `SyncError` on the subscription ``path``."""
    try:
        yield
    except (exceptions.GoogleAPIError, auth.GoogleAuthError) as error:
        raise sync_error(error, path) from error


def sync_error(error: BaseException, path: str) -> SyncError:
    """What an error of Google's client means for the subscription ``path``."""
    where = f"subscription {path}"
    message = str(getattr(error, "message", "") or error).strip().partition("\n")[0]
    if isinstance(error, exceptions.NotFound):
        return SyncError("does not exist any more", where=where, remedy="create it again", reason=Reason.NOT_FOUND)
    if isinstance(error, exceptions.Forbidden):
        return SyncError(
            f"permission denied: {message}",
            where=where,
            remedy="grant roles/pubsub.subscriber and roles/pubsub.viewer on it to the account that runs this",
            reason=Reason.PERMISSION_DENIED,
        )
    if isinstance(error, exceptions.Unauthorized | auth.DefaultCredentialsError | auth.RefreshError):
        return SyncError(
            f"no valid credentials: {message}",
            where=where,
            remedy="run 'gcloud auth application-default login' or set GOOGLE_APPLICATION_CREDENTIALS",
            reason=Reason.UNAUTHENTICATED,
        )
    if isinstance(error, exceptions.TooManyRequests):
        return SyncError(
            f"quota exceeded: {message}", where=where, remedy="wait, or ask for more quota", reason=Reason.QUOTA
        )
    if isinstance(error, exceptions.DeadlineExceeded | exceptions.GatewayTimeout | exceptions.RetryError):
        return SyncError(
            "did not answer in time", where=where, remedy="check the network to Pub/Sub", reason=Reason.TIMEOUT
        )
    if isinstance(error, exceptions.ServerError | auth.TransportError):
        return SyncError(
            f"cannot be reached: {message}",
            where=where,
            remedy="check the network to Pub/Sub, and PUBSUB_EMULATOR_HOST if it is set",
            reason=Reason.UNAVAILABLE,
        )
    return SyncError(message, where=where, remedy=_PERMANENT_REMEDY, reason=Reason.INTERNAL)
