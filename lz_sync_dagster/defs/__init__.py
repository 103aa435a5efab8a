"""Dagster objects, loaded module by module by `definitions`: one folder per layer, and what all layers share beside.

Glue only. What a sync does lives in `lz_sync_dagster.sync`; here it gets a key, a schedule, a lineage and a page in
Dagster's UI.
"""
