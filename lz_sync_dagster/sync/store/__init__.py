"""The operational database: schema, engines and queries, one noun per module. Knows nothing of Dagster, dbt or ASGI.

Functions take a `sqlalchemy.Connection`, so that the caller decides what belongs into one transaction.
"""

from lz_sync_dagster.sync.store.engine import Store, open_store

__all__ = ["Store", "open_store"]
