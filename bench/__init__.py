"""Benchmarks: each is a ratio against a reference that runs in the same process tree. Shipped code never
imports them.
"""
