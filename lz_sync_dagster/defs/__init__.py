"""Dagster objects, loaded by `load_from_defs_folder`: one folder per layer, and what all layers share beside them.

Glue only. What a sync does lives in `lz_sync_dagster.sync`; here it gets a key, a schedule, a lineage and a page in
Dagster's UI.
"""
