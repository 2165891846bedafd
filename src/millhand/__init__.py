"""Millhand runs people's scripts and flows on tag-routed workers, over PostgreSQL alone."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("millhand")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"
