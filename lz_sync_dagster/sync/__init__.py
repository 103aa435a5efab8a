"""The domain: no Dagster, no dbt, no ASGI. Time, randomness and I/O come in as arguments."""
