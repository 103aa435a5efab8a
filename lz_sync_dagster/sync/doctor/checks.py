"""The checks of the preflight. Each looks at one thing and says what to do about it; none changes anything."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from lz_sync_dagster.config import RepositoryConfig, Settings
from lz_sync_dagster.layers import LayerId
from lz_sync_dagster.sync.doctor.results import Check, Report, Result, Verdict, run_checks
from lz_sync_dagster.sync.errors import Reason, SyncError
from lz_sync_dagster.sync.models import CoverageGap
from lz_sync_dagster.sync.store import Store, breakers, coverage, open_store, quota
from lz_sync_dagster.sync.store.layer_runs import CACHE_TTL
from lz_sync_dagster.sync.store.quota import Quota
from lz_sync_dagster.sync.timing import Clock, from_ns

#: How long all checks may take together, and one call of one of them.
SECONDS = 30.0
_CALL_SECONDS = 10.0
#: Gaps that differ in what they struck alone share a line; so many of them are named.
_NAMED = 3
_MINUTE = "%Y-%m-%d %H:%M UTC"


@dataclass
class _Patient:
    """What is looked at. ``store``: ``None`` until it was found to be usable."""

    settings: Settings
    clock: Clock
    file: Path | None = None
    store: Store | None = None


def examine(settings: Settings, *, clock: Clock, seconds: float = SECONDS, file: Path | None = None) -> Report:
    """Make all checks and report what they found. Those of the store, and then all others, may take ``seconds``.

    Args:
        file: the settings' file; ``None`` if defaults and the environment hold.
    """
    patient = _Patient(settings, clock, file)
    try:
        results = run_checks(
            [("config", lambda: _config(patient)), ("store", lambda: _store(patient))], seconds=seconds
        )
        results += run_checks(_others(patient), seconds=seconds)
    finally:
        if patient.store is not None:
            patient.store.close()
    return Report(tuple(results), clock())


def _others(patient: _Patient) -> list[tuple[str, Check]]:
    """The checks that come after those of configuration and store, in the order of the report."""
    checks: list[tuple[str, Callable[[_Patient], Iterator[Result]]]] = [
        ("landing_zone", _landing_zone),
        ("portal_repository", _portal_repository),
        ("github", _github),
        ("credentials", _credentials),
        ("inventory", _inventory),
        ("exports", _exports),
        ("quota", _quota),
        ("coverage", _coverage),
        ("breakers", _breakers),
        ("subscription", _subscription),
        ("warehouse", _warehouse),
    ]
    return [(name, lambda check=check: check(patient)) for name, check in checks]  # type: ignore[misc]


def _ok(check: str, subject: str, what: str) -> Result:
    return Result(check, subject, Verdict.OK, what)


def _warning(check: str, subject: str, what: str, remedy: str) -> Result:
    return Result(check, subject, Verdict.WARNING, what, remedy)


def _failed(check: str, subject: str, what: str, remedy: str) -> Result:
    return Result(check, subject, Verdict.FAILED, what, remedy)


def _skipped(check: str, subject: str, why: str) -> Result:
    return Result(check, subject, Verdict.SKIPPED, why)


def _is_off(patient: _Patient, layer: LayerId) -> bool:
    return layer in patient.settings.disabled_layers


# --- configuration and store ------------------------------------------------------------------------------------------


def _config(patient: _Patient) -> Iterator[Result]:
    settings = patient.settings
    off = sorted(layer.value for layer in settings.disabled_layers)
    switched = f"; switched off: {', '.join(off)}" if off else ""
    if patient.file is None:
        here = f"there is no sync_config.yaml in {Path.cwd()}: defaults and the environment hold{switched}"
        yield _warning("config", "sync_config.yaml", here, "go to its folder, or name the file with --config")
    else:
        yield _ok("config", str(patient.file), f"every key and value is allowed{switched}")
    if not _is_off(patient, LayerId.API) and not settings.sync_layers.api_sync.scopes:
        yield _failed(
            "config",
            "sync_layers.api_sync.scopes",
            "names no scope to read",
            "list organizations/NUMBER, folders/NUMBER or projects/NUMBER",
        )
    if not _is_off(patient, LayerId.WEBHOOK) and not settings.secrets:
        yield _warning(
            "config",
            "LZ_SYNC_WEBHOOK_SECRETS",
            "is not set, so every delivery is refused",
            "set it to the webhook's secret, or switch sync_layers.webhook.enabled off",
        )


def _store(patient: _Patient) -> Iterator[Result]:
    from lz_sync_dagster.sync.store.migrations import current_revision, newest_revision

    url = patient.settings.store_url
    try:
        parsed = make_url(url)
    except sa.exc.ArgumentError:
        parsed = None
    if parsed is not None and parsed.get_backend_name() == "sqlite" and parsed.database:
        file = Path(parsed.database)
        if not file.exists():
            yield _failed("store", f"store {file}", "does not exist yet", "run 'lz-sync db migrate'")
            return
    store = open_store(url, migrate=False)
    shown = f"store {store.engine.url.render_as_string(hide_password=True)}"
    try:
        with store.read() as connection:
            current = current_revision(connection)
        with store.write() as connection:
            connection.execute(sa.select(1))
    except sa.exc.SQLAlchemyError as error:
        store.close()
        said = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        remedy = "check that the database runs, has room, and may be written by this account"
        yield _failed("store", shown, f"cannot be read and written ({said})", remedy)
        return
    newest = newest_revision()
    if current != newest:
        store.close()
        is_newer = current is not None and current > newest
        remedy = "use the version of lz-sync that the other processes have" if is_newer else "run 'lz-sync db migrate'"
        yield _failed("store", shown, f"is at revision {current or 'none'}, this version needs {newest}", remedy)
        return
    patient.store = store
    yield _ok("store", shown, f"can be read and written, at revision {newest}")


# --- git --------------------------------------------------------------------------------------------------------------


def _landing_zone(patient: _Patient) -> Iterator[Result]:
    yield from _repository(patient, "landing_zone", patient.settings.landing_zone, writes=False)


def _portal_repository(patient: _Patient) -> Iterator[Result]:
    yield from _repository(patient, "portal_repository", patient.settings.portal_repository, writes=True)


def _repository(patient: _Patient, key: str, config: RepositoryConfig, *, writes: bool) -> Iterator[Result]:
    from lz_sync_dagster.sync.git.mirror import Mirror
    from lz_sync_dagster.sync.github.credentials import git_credential

    if _is_off(patient, LayerId.GIT):
        yield _skipped(key, f"{key}.url", "sync_layers.git_sync is switched off")
        return
    credential = git_credential(patient.settings, config.name, write=writes, clock=patient.clock)
    with tempfile.TemporaryDirectory(prefix="lz-sync-doctor-") as folder:
        mirror = Mirror(
            Path(folder) / "probe.git", config, key=key, credential=credential, timeout_seconds=int(_CALL_SECONDS)
        )
        where = f"{key} {mirror.shown_url}"
        yield _ok(key, where, f"can be fetched: {config.branch} is at {mirror.remote_head()[:12]}")
        if writes:
            mirror.try_push()
            yield _ok(key, where, "would take a push, as far as it tells without one (not: protected branches, hooks)")


def _github(patient: _Patient) -> Iterator[Result]:
    from lz_sync_dagster.sync.github.api import split_name
    from lz_sync_dagster.sync.github.credentials import open_api, open_app_api

    settings = patient.settings
    hook = settings.sync_layers.webhook.hook
    wanted: list[tuple[str, str, dict[str, str], str]] = []
    if hook is not None and hook != "app" and not _is_off(patient, LayerId.WEBHOOK):
        need = {"repository_hooks": "write"}
        wanted.append((settings.landing_zone.name, "the webhook's failed deliveries", need, "/repos/{owner}/{repo}"))
    if settings.sync_layers.git_sync.publish == "pull_request" and not _is_off(patient, LayerId.GIT):
        need = {"pull_requests": "write", "contents": "write"}
        wanted.append((settings.portal_repository.name, "pull requests", need, "/repos/{owner}/{repo}"))
    if hook == "app" and not _is_off(patient, LayerId.WEBHOOK):
        with open_app_api(settings, clock=patient.clock) as api:
            api.get("/app", needs="the App itself")
        yield _ok("github", f"App {settings.github.app_id}", "answers to its key")
    elif not wanted:
        yield _skipped("github", settings.github.api_url, "nothing is asked of GitHub's API by this configuration")
    for name, purpose, permissions, path in wanted:
        try:
            with open_api(settings, name, permissions, clock=patient.clock) as api:
                api.get(path, needs="metadata: read", **split_name(name))
        except SyncError as error:
            yield _failed("github", error.where, error.what, error.remedy)
        else:
            yield _ok("github", name, f"GitHub's API answers, for {purpose}")


# --- Cloud Asset Inventory --------------------------------------------------------------------------------------------


def _credentials(patient: _Patient) -> Iterator[Result]:
    endpoint = patient.settings.google_cloud.asset_endpoint
    if endpoint is not None and not endpoint.startswith("https://"):
        yield _skipped("credentials", endpoint, "a server that takes no credentials")
        return
    import google.auth
    from google.auth import exceptions
    from google.auth.transport.requests import Request

    remedy = "run 'gcloud auth application-default login', or run where a service account is attached"
    try:
        found, project = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
        found.refresh(Request())  # type: ignore[no-untyped-call]
    except exceptions.DefaultCredentialsError:
        yield _failed("credentials", "Google Cloud", "no credentials were found", remedy)
        return
    except exceptions.GoogleAuthError as error:
        yield _failed("credentials", "Google Cloud", f"the credentials do not work ({error})", remedy)
        return
    who = getattr(found, "service_account_email", None) or type(found).__module__.rpartition(".")[2]
    payer = getattr(found, "quota_project_id", None) or project
    if payer is None:
        yield _warning(
            "credentials",
            str(who),
            "work, but no project is named to count the calls against",
            "run 'gcloud auth application-default set-quota-project PROJECT', or set GOOGLE_CLOUD_QUOTA_PROJECT",
        )
    else:
        yield _ok("credentials", str(who), f"work; calls are counted against {payer}")


def _inventory(patient: _Patient) -> Iterator[Result]:
    """One call with a page of one asset per scope × content, and one search per scope."""
    from lz_sync_dagster.sync.inventory.planner import quotas_of
    from lz_sync_dagster.sync.inventory.reader import make_client
    from lz_sync_dagster.sync.inventory.types import plan_parts

    config = patient.settings.sync_layers.api_sync
    if _is_off(patient, LayerId.API):
        yield _skipped("inventory", "sync_layers.api_sync", "is switched off")
        return
    groups: dict[tuple[str, str], list[str]] = {}
    for scope, asset_type, content_type in plan_parts(config.scopes, config.endpoints, config.content_types).parts:
        groups.setdefault((scope, content_type), []).append(asset_type)
    budget = None
    if patient.store is not None:
        budget = quota.Allowance(
            patient.store, quotas_of(config), clock=patient.clock, wait=lambda _: True, patience=0.0
        )
    client = make_client(patient.settings.google_cloud.asset_endpoint)
    probe = _Probe(client, budget, min(config.call_timeout_seconds, _CALL_SECONDS))
    try:
        for (scope, content_type), asset_types in groups.items():
            yield from probe.lists(scope, content_type, asset_types)
        for scope in dict.fromkeys(config.scopes):
            yield from probe.searches(scope, groups.get((scope, "RESOURCE"), []), now=int(patient.clock().timestamp()))
    finally:
        client.transport.close()
        if budget is not None:
            budget.release()


@dataclass
class _Probe:
    """Makes the smallest call of each kind and says what came of it."""

    client: Any
    budget: quota.Allowance | None
    timeout: float

    def lists(self, scope: str, content_type: str, asset_types: list[str]) -> Iterator[Result]:
        """Whether a content of a scope can be listed; what is wrong with one type does not hide the others."""
        from google.cloud.asset_v1 import ListAssetsRequest

        def ask(wanted: list[str]) -> Any:
            return self.client.list_assets(
                request=ListAssetsRequest(parent=scope, content_type=content_type, asset_types=wanted, page_size=1),
                retry=None,
                timeout=self.timeout,
            )

        subject = f"{content_type} in {scope}"
        yield from self._result(Quota.LIST_ASSETS, scope, content_type, asset_types, subject, ask)

    def searches(self, scope: str, asset_types: list[str], *, now: int) -> Iterator[Result]:
        """Whether a scope can be searched, as delta reads do."""
        from google.cloud.asset_v1 import SearchAllResourcesRequest

        if not asset_types:
            return

        def ask(wanted: list[str]) -> Any:
            request = SearchAllResourcesRequest(
                scope=scope, asset_types=wanted, query=f"updateTime>={now}", page_size=1
            )
            return self.client.search_all_resources(request=request, retry=None, timeout=self.timeout)

        yield from self._result(Quota.SEARCH_ALL_RESOURCES, scope, "RESOURCE", asset_types, f"searches in {scope}", ask)

    def _result(
        self,
        call: Quota,
        scope: str,
        content_type: str,
        asset_types: list[str],
        subject: str,
        ask: Callable[[list[str]], Any],
    ) -> Iterator[Result]:
        try:
            bad = list(self._bad(call, scope, content_type, asset_types, ask))
        except SyncError as error:
            if error.reason is Reason.QUOTA and error.retry_after is not None:
                yield _warning("inventory", subject, error.what, error.remedy)
            else:
                yield _failed("inventory", subject, error.what, error.remedy)
            return
        by_cause: dict[tuple[Reason, str], list[tuple[str, SyncError]]] = {}
        for asset_type, why in bad:
            by_cause.setdefault((why.reason, why.remedy), []).append((asset_type, why))
        for (reason, remedy), alike in by_cause.items():
            make = _warning if reason is Reason.UNKNOWN_TYPE else _failed
            names = _some([asset_type for asset_type, _ in alike])
            yield make("inventory", f"{names} {subject}", alike[0][1].what, remedy)
        if len(bad) < len(asset_types):
            yield _ok("inventory", subject, f"{len(asset_types) - len(bad)} asset types can be read")

    def _bad(
        self,
        call: Quota,
        scope: str,
        content_type: str,
        asset_types: list[str],
        ask: Callable[[list[str]], Any],
    ) -> Iterator[tuple[str, SyncError]]:
        """The types that cannot be read, found by halving: most of the time one call asks for all."""
        from google.api_core import exceptions as google

        from lz_sync_dagster.sync.inventory.errors import classify

        if self.budget is not None:
            self.budget.call(call)
        try:
            next(iter(ask(asset_types).pages))
            return
        except (google.GoogleAPICallError, google.RetryError) as raised:
            what = asset_types[0] if len(asset_types) == 1 else f"{len(asset_types)} asset types"
            refused = classify(raised, scope=scope, asset_type=what, content_type=content_type, call=call)
            if refused.reason not in (Reason.UNKNOWN_TYPE, Reason.PERMISSION_DENIED):
                raise refused from raised
        if len(asset_types) == 1:
            yield asset_types[0], refused
            return
        if refused.reason is Reason.PERMISSION_DENIED and not self._is_readable(call, ask, asset_types):
            raise refused
        middle = len(asset_types) // 2
        yield from self._bad(call, scope, content_type, asset_types[:middle], ask)
        yield from self._bad(call, scope, content_type, asset_types[middle:], ask)

    def _is_readable(self, call: Quota, ask: Callable[[list[str]], Any], asset_types: list[str]) -> bool:
        """Whether one type can be read where all together are denied: roles are mostly granted for all or for none, so
        the first and the last are asked before each is."""
        from google.api_core import exceptions as google

        for asset_type in (asset_types[0], asset_types[-1]):
            if self.budget is not None:
                self.budget.call(call)
            try:
                next(iter(ask([asset_type]).pages))
                return True
            except (google.GoogleAPICallError, google.RetryError):
                continue
        return False


def _exports(patient: _Patient) -> Iterator[Result]:
    """Whether the place of exports can be read, and what is the newest there; nothing if there are to be none."""
    from lz_sync_dagster.sync.inventory.bulk_path import BulkPath
    from lz_sync_dagster.sync.inventory.reader import make_client
    from lz_sync_dagster.sync.inventory.types import plan_parts

    config = patient.settings.sync_layers.api_sync
    if _is_off(patient, LayerId.API) or not config.bulk.enabled:
        return
    parts = plan_parts(config.scopes, config.endpoints, config.content_types).parts
    client = make_client(patient.settings.google_cloud.asset_endpoint)
    try:
        with BulkPath(patient.settings, client, calls=_NoCalls(), clock=patient.clock, wait=lambda _: True) as bulk:
            newest = bulk.newest(parts)
    finally:
        client.transport.close()
    for scope, content_type in dict.fromkeys((part[0], part[2]) for part in parts):
        found = newest.get((scope, content_type))
        what = (
            "can be read; nothing was exported yet"
            if found is None
            else f"newest of {from_ns(found.read_ns):{_MINUTE}}"
        )
        yield _ok("exports", f"{content_type} in {scope}", what)


class _NoCalls:
    """The quota of a look that makes no call."""

    def call(self, quota: Quota) -> None:
        raise AssertionError(quota)

    def throttled(self, quota: Quota, retry_after: float | None) -> None:
        raise AssertionError((quota, retry_after))


def _quota(patient: _Patient) -> Iterator[Result]:
    from lz_sync_dagster.sync.inventory.forecast import forecast

    if patient.store is None:
        yield _skipped("quota", "Cloud Asset Inventory", "the store cannot be used")
        return
    config = patient.settings.sync_layers.api_sync
    with patient.store.read() as connection:
        found = forecast(connection, config, now=patient.clock())
    for usage in found.quotas.values():
        figures = f"{usage.used} of {usage.limit} calls a minute are used, {usage.calls_per_day} in the last 24 h"
        if usage.blocked_until is not None:
            wait = f"nobody calls before {usage.blocked_until:%Y-%m-%d %H:%M:%S} UTC, since Google asked to wait"
            remedy = "wait; if it stays, ask for more quota, or read less often"
            yield _warning("quota", usage.quota.value, f"{figures}; {wait}", remedy)
        elif usage.limit < usage.configured:
            what = f"{figures}; {usage.configured} are configured, but Google refused some"
            remedy = f"it recovers by itself; if it stays, lower sync_layers.api_sync.quotas.{usage.quota}"
            yield _warning("quota", usage.quota.value, what, remedy)
        else:
            yield _ok("quota", usage.quota.value, figures)
    if found.plan is not None and not found.plan.proof_age_attainable:
        yield _warning(
            "quota",
            "sync_layers.api_sync.proof_age_minutes",
            f"is {config.proof_age_minutes}, but the quota permits to prove every part once in "
            f"{found.plan.rotation_minutes:.0f} minutes only",
            "ask for more ListAssets quota and raise sync_layers.api_sync.quotas.list_assets, or raise it",
        )


# --- what earlier syncs left ------------------------------------------------------------------------------------------


def _coverage(patient: _Patient) -> Iterator[Result]:
    if patient.store is None:
        yield _skipped("coverage", "ledger", "the store cannot be used")
        return
    with patient.store.read() as connection:
        ledger = coverage.summary(connection, now=patient.clock(), ttl=CACHE_TTL)
    groups: dict[tuple[Any, ...], list[CoverageGap]] = {}
    for gap in ledger.gaps:
        groups.setdefault((gap.status, gap.reason, gap.remedy), []).append(gap)
    for gaps in groups.values():
        first = gaps[0]
        make = _warning if first.reason in (Reason.NOT_READ_YET, Reason.NOT_CONFIGURED) else _failed
        since = min(gap.since for gap in gaps)
        parts = _some([f"{gap.asset_type} {gap.content_type} in {gap.scope}" for gap in gaps])
        what = f"{first.status.value} since {since:%Y-%m-%d %H:%M} UTC: {first.reason.value}, {first.detail}"
        yield make("coverage", parts, what, first.remedy)
    if ledger.complete:
        yield _ok("coverage", "ledger", f"{ledger.complete} parts were read completely")
    elif not ledger.gaps:
        yield _warning("coverage", "ledger", "nothing was read yet", "run 'lz-sync sync inventory'")


def _breakers(patient: _Patient) -> Iterator[Result]:
    if patient.store is None:
        yield _skipped("breakers", "deletions", "the store cannot be used")
        return
    with patient.store.read() as connection:
        waiting = breakers.open_breakers(connection)
    for breaker in waiting:
        what = f"{breaker.lost} of {breaker.known} assets vanished at once; nothing was deleted"
        remedy = "check the reader's access; if the deletions were meant, run 'lz-sync breaker confirm " + (
            f"{' '.join(breaker.part)}'"
        )
        yield _failed("breakers", f"{breaker.part[1]} {breaker.part[2]} in {breaker.part[0]}", what, remedy)
    if not waiting:
        yield _ok("breakers", "deletions", "none waits for a confirmation")


# --- events and analytics ---------------------------------------------------------------------------------------------


def _subscription(patient: _Patient) -> Iterator[Result]:
    from lz_sync_dagster.sync.events.subscription import open_subscription

    if _is_off(patient, LayerId.PUBSUB):
        yield _skipped("subscription", "sync_layers.pubsub", "is switched off")
        return
    subscription = open_subscription(patient.settings)
    try:
        yield _ok("subscription", subscription.path, f"exists and reads {subscription.topic_path}")
    finally:
        subscription.close()


def _warehouse(patient: _Patient) -> Iterator[Result]:
    from lz_sync_dagster.sync.analytics.raw import Folder

    settings = patient.settings
    if _is_off(patient, LayerId.BIGQUERY):
        yield _skipped("warehouse", "sync_layers.bigquery", "is switched off")
        return
    raw = settings.raw_dir
    if "://" in raw:
        found = "exists" if Folder(raw).exists() else "can be reached; the first sync makes it"
        yield _ok("warehouse", raw, found)
    else:
        yield _local_folder(Path(raw))
    if settings.warehouse.engine == "bigquery":
        yield from _bigquery(patient)
    elif settings.warehouse.engine == "duckdb":
        yield _local_folder(settings.duckdb_path.parent)
    export = settings.sync_layers.bigquery.billing_export
    if export is None:
        yield _warning(
            "warehouse",
            "sync_layers.bigquery.billing_export",
            "is not set, so costs are unknown",
            "set it to the folder or gs:// prefix of the detailed billing export",
        )
    elif Folder(export).exists():
        yield _ok("warehouse", export, "the billing export is there")
    else:
        yield _failed("warehouse", export, "does not exist", "check sync_layers.bigquery.billing_export")


def _local_folder(folder: Path) -> Result:
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        what = "can be written" if there == folder else "can be made"
        return _ok("warehouse", str(folder), what)
    remedy = f"give this account the right to write {there}, or set data_dir or warehouse.raw to another folder"
    return _failed("warehouse", str(folder), "may not be written", remedy)


def _bigquery(patient: _Patient) -> Iterator[Result]:
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    from lz_sync_dagster.sync.analytics.bigquery import connect

    client = connect(patient.settings)
    name = f"{client.project}.{patient.settings.sync_layers.bigquery.dataset}"
    try:
        client.get_dataset(name, retry=None, timeout=_CALL_SECONDS)
        yield _ok("warehouse", f"dataset {name}", "exists")
    except exceptions.NotFound:
        yield _warning(
            "warehouse",
            f"dataset {name}",
            "does not exist yet",
            "the first sync makes it, with roles/bigquery.user on the project; or make it beforehand",
        )
    except (exceptions.GoogleAPIError, GoogleAuthError) as error:
        remedy = "give this process roles/bigquery.jobUser, and roles/bigquery.dataEditor on the dataset"
        yield _failed("warehouse", f"dataset {name}", f"cannot be reached ({error})", remedy)
    finally:
        client.close()


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
