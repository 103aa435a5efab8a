"""Keeps a Portal in live sync with a Google Cloud landing zone.

Importing this package needs no secret, no network and no environment variable.
"""

__version__ = "0.1.0"
