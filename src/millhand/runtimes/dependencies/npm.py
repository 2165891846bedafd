"""Names of npm packages as TypeScript imports write them, and what a runtime brings along itself."""

from __future__ import annotations

import re

import msgspec

from millhand.core.errors import LockFailedError

_PACKAGE = re.compile(
    r"(?P<npm>npm:/?)?(?P<name>(?:@[A-Za-z0-9~-][\w.~-]*/)?[A-Za-z0-9~-][\w.~-]*)(?:@(?P<version>[^/@:]*))?(?P<file>/.*)?"
)
_SCHEME = re.compile(r"(?!npm:)[a-z][a-z0-9+.-]*:")
_VERSION = re.compile(r"[\w.^~<>=*| +-]+")
BUILTINS = frozenset(
    [
        "assert",
        "async_hooks",
        "buffer",
        "bun",
        "child_process",
        "cluster",
        "console",
        "constants",
        "crypto",
        "dgram",
        "diagnostics_channel",
        "dns",
        "domain",
        "events",
        "fs",
        "http",
        "http2",
        "https",
        "inspector",
        "module",
        "net",
        "os",
        "path",
        "perf_hooks",
        "process",
        "punycode",
        "querystring",
        "readline",
        "repl",
        "stream",
        "string_decoder",
        "sys",
        "test",
        "timers",
        "tls",
        "trace_events",
        "tty",
        "url",
        "util",
        "v8",
        "vm",
        "wasi",
        "worker_threads",
        "zlib",
    ]
)


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """A package that an import names."""

    name: str
    version: str = ""  # as it is asked for; "" where nothing is said
    file: str = ""  # the rest, with its slash

    @property
    def plain(self) -> str:
        """Return the specifier that finds the package in a node_modules folder."""
        return f"{self.name}{self.file}"


def package_of(specifier: str) -> Package | None:
    """Return the package of an import, or None for files, addresses and what comes with the runtime."""
    if specifier.startswith((".", "/")) or _SCHEME.match(specifier):
        return None
    match = _PACKAGE.fullmatch(specifier)
    if match is None:
        return None
    if match["name"] in BUILTINS and not match["npm"] and not match["version"]:
        return None
    return Package(name=match["name"], version=match["version"] or "", file=match["file"] or "")


def check_version(name: str, version: str) -> str:
    """Return a version range, `latest` for none; raises LockFailedError for paths, addresses and other programs' words."""
    if not version:
        return "latest"
    if not _VERSION.fullmatch(version):
        raise LockFailedError(
            f"{version!r} is not a version of {name}; write versions of the npm registry, like {name}@1.2.3"
        )
    return version
