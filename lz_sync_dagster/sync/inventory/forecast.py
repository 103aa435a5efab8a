"""What the next sync of the inventory would read, and what that leaves of the quotas: for those who only look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from lz_sync_dagster.config import ApiSyncConfig
from lz_sync_dagster.sync.inventory.bulk import exportable, feeds_store
from lz_sync_dagster.sync.inventory.planner import ReadPlan, plan_reads, policy_of, quotas_of
from lz_sync_dagster.sync.inventory.types import plan_parts
from lz_sync_dagster.sync.store import part_reads, quota
from lz_sync_dagster.sync.store.quota import Quota, QuotaUsage


@dataclass(frozen=True, slots=True)
class Forecast:
    """The quotas now, and the plan of a sync that would begin now (``None``: the configuration names no scope)."""

    quotas: Mapping[Quota, QuotaUsage]
    plan: ReadPlan | None


def forecast(connection: sa.Connection, config: ApiSyncConfig, *, now: datetime) -> Forecast:
    """Look at the quotas and plan a sync without making it."""
    quotas = quota.usage(connection, quotas_of(config), now=now)
    parts = plan_parts(config.scopes, config.endpoints, config.content_types).parts
    if not parts:
        return Forecast(quotas, None)
    states = part_reads.states(connection, parts)
    exported = frozenset(exportable(config.bulk, states)) if feeds_store(config.bulk) else frozenset()
    return Forecast(quotas, plan_reads(states, now=now, budgets=quotas, policy=policy_of(config), exported=exported))
