"""GitHub's API: credentials of an App, pull requests, and the deliveries of a webhook. Layers use it; it knows none."""
