"""The truth core: what is known of the landing zone, and how observations change it. Pure: no I/O, no clock.

The state is a map from (full resource name, content type) to its newest known version, fed by snapshots and by the
feed, which disagree, repeat themselves and arrive out of order. Any order or repetition of the same observations ends
in the same state.
"""
