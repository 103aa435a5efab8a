"""A landing zone to try the project on: repositories, an organization, Google's servers, and people who change things.

Production code never imports this package: it is pointed here by endpoint settings alone.
"""

import os

# Read by gRPC when it is imported: servers that stop are no news here.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
