"""What the embedded PostgreSQL is told: how it is made, its settings, who may connect, its databases."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import psutil

from millhand.cli.data_dir import write_private

NAMES = ("millhand.conf", "postgresql.conf", "pg_hba.conf", "pg_ident.conf")
PSQL_OPTIONS = ("--no-psqlrc", "--quiet", "--tuples-only", "--set=ON_ERROR_STOP=1", "--file=-")
INITDB_OPTIONS = (
    "--username=postgres",
    "--encoding=UTF8",
    "--locale-provider=builtin",  # sorts the same on every machine and after every update of the system
    "--builtin-locale=C.UTF-8",
    "--locale=C",
    "--auth-local=peer",
    "--auth-host=scram-sha-256",
    "--no-instructions",
)

_MIB = 1024 * 1024
_SETTINGS = """\
# Written by millhand at each start. Your own settings: ALTER SYSTEM, which wins.
# Nothing here touches durability: fsync, full_page_writes and synchronous_commit stay on.
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{sockets}'
unix_socket_permissions = 0700
max_connections = 200
shared_buffers = {shared_buffers_mb}MB
jit = off                      # our statements take less time than compiling them would
autovacuum_naptime = 10s       # the queue's rows are updated all the time
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %a '
log_checkpoints = off
"""
_ACCESS = """\
# Written by millhand at each start: we through the socket, by the kernel's word; SQL scripts with a password.
local all all peer map=millhand
host datatable datatable 127.0.0.1/32 scram-sha-256
"""
_DATABASES = """\
select 'create role millhand login' where not exists (select from pg_roles where rolname = 'millhand') \\gexec
select 'create role datatable login' where not exists (select from pg_roles where rolname = 'datatable') \\gexec
select 'create database millhand owner millhand' where not exists (select from pg_database where datname = 'millhand') \\gexec
select 'create database datatable owner datatable' where not exists (select from pg_database where datname = 'datatable') \\gexec
alter role datatable password '{password}';
revoke connect on database millhand, postgres from public;
"""


def write(cluster: Path, *, port: int, sockets: Path, os_users: Sequence[str]) -> None:
    """Write the settings and the rules of access of an instance."""
    quoted = str(sockets).replace("'", "''")
    settings = _SETTINGS.format(port=port, sockets=quoted, shared_buffers_mb=_shared_buffers_mb())
    roles = [f'millhand "{user}" {role}\n' for user in os_users for role in ("postgres", "millhand")]
    contents = (settings, "include 'millhand.conf'\n", _ACCESS, "".join(roles))
    for name, content in zip(NAMES, contents, strict=True):
        write_private(cluster / name, content.encode())


def databases_sql(datatable_password: str) -> str:
    """Return the statements that make our database and the one for SQL scripts; safe to run at every start."""
    assert datatable_password.isalnum()
    return _DATABASES.format(password=datatable_password)


def copy_programs(binaries: Path, place: Path) -> Path:
    """Copy the wheel's programs to where everybody may run them, once; returns the copy of their directory.

    The wheel has its shared libraries beside its package, and the programs look for them there.
    """
    package = binaries.parents[1]
    if not place.exists():
        fresh = place.with_name(place.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(binaries.parent, fresh / package.name / binaries.parent.name)
        libraries = package.with_name(package.name + ".libs")
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name)
        _open_to_all(fresh)
        fresh.rename(place)
    return place / package.name / binaries.parent.name / binaries.name


def _open_to_all(directory: Path) -> None:
    """Let everybody read a tree, and run what its owner may run."""
    for root, _, files in os.walk(directory):
        Path(root).chmod(0o755)
        for name in files:
            path = Path(root) / name
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def _shared_buffers_mb() -> int:
    """Return an eighth of the memory, 128 to 256 MB: the queue's hot rows are few."""
    return max(128, min(256, psutil.virtual_memory().total // _MIB // 8))
