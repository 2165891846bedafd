"""Whose rights PostgreSQL has when we are root, and a way for it to its files.

PostgreSQL refuses to run as root. As root we run it as the system user `millhand`, made when it is missing. That user
must be able to walk down to the data directory, which may lie under a closed home: it gets the right to pass (not to
read, not to list) each closed directory on the way, by an access control list that names nobody else.
"""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import stat
import struct
import subprocess
from pathlib import Path

from millhand.core.errors import MillhandError

USER_NAME = "millhand"
_ACL = "system.posix_acl_access"
_ACL_VERSION = struct.Struct("<I")
_ACL_ENTRY = struct.Struct("<HHI")  # kind, permissions, id
_OWNER, _USER, _OWNING_GROUP, _MASK, _OTHERS = 0x01, 0x02, 0x04, 0x10, 0x20
_NO_ID = 0xFFFFFFFF
_PASS = 0o1


def service_user() -> pwd.struct_passwd | None:
    """Return the user PostgreSQL runs as: None (ourselves) unless we are root; raises MillhandError without one."""
    if os.geteuid() != 0:
        return None
    return _find(USER_NAME) or _create() or _find("postgres") or _no_user()


def let_pass(directory: Path, user: pwd.struct_passwd) -> None:
    """Let a user walk down to a directory and into it; raises MillhandError where the file system can't."""
    for step in reversed((directory, *directory.parents)):
        if not _may_pass(step, user):
            _grant_passage(step, user)


def give(directory: Path, user: pwd.struct_passwd) -> None:
    """Make a user the owner of a directory and all that is in it."""
    if directory.stat().st_uid == user.pw_uid:
        return
    for root, _, files in os.walk(directory):
        for path in (root, *(os.path.join(root, name) for name in files)):  # noqa: PTH118 - thousands of files
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def _find(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _create() -> pwd.struct_passwd | None:
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        return None
    options = ("--system", "--user-group", "--no-create-home", "--home-dir=/nonexistent", "--shell=/usr/sbin/nologin")
    # Its answer is not looked at: somebody else may have made the user meanwhile. What counts is that it is there.
    subprocess.run([useradd, *options, USER_NAME], check=False, capture_output=True)
    return _find(USER_NAME)


def _no_user() -> pwd.struct_passwd:
    raise MillhandError(
        f"PostgreSQL can't run as root and there is no user {USER_NAME!r} for it; make one "
        f"(useradd --system {USER_NAME}), or run millhand as another user, or set DATABASE_URL"
    )


def _may_pass(directory: Path, user: pwd.struct_passwd) -> bool:
    found = directory.stat()
    if found.st_uid == user.pw_uid:
        return bool(found.st_mode & stat.S_IXUSR)
    return bool(found.st_mode & stat.S_IXOTH) or _is_let_pass(_entries(directory), user)


def _is_let_pass(entries: list[tuple[int, int, int]], user: pwd.struct_passwd) -> bool:
    """Tell whether an entry lets the user pass and the mask, which a later `chmod` writes, does not take it away."""
    mask = next((permissions for kind, permissions, _ in entries if kind == _MASK), 0)
    return (_USER, _PASS, user.pw_uid) in entries and bool(mask & _PASS)


def _entries(directory: Path) -> list[tuple[int, int, int]]:
    """Return the access control list, the one that the mode means where there is no other."""
    try:
        raw = os.getxattr(directory, _ACL)
    except OSError:
        mode = directory.stat().st_mode
        return [(_OWNER, mode >> 6 & 7, _NO_ID), (_OWNING_GROUP, mode >> 3 & 7, _NO_ID), (_OTHERS, mode & 7, _NO_ID)]
    return list(_ACL_ENTRY.iter_unpack(raw[_ACL_VERSION.size :]))


def _grant_passage(directory: Path, user: pwd.struct_passwd) -> None:
    kept = [entry for entry in _entries(directory) if entry[::2] != (_USER, user.pw_uid) and entry[0] != _MASK]
    granted = [*kept, (_USER, _PASS, user.pw_uid)]
    others = [permissions for kind, permissions, _ in granted if kind not in (_OWNER, _OTHERS)]
    mask = 0
    for permissions in others:
        mask |= permissions
    granted.append((_MASK, mask, _NO_ID))
    packed = b"".join(_ACL_ENTRY.pack(*entry) for entry in sorted(granted))
    try:
        os.setxattr(directory, _ACL, _ACL_VERSION.pack(2) + packed)
    except OSError as error:
        raise MillhandError(
            f"PostgreSQL runs as user {user.pw_name!r}, which can't enter {directory} "
            f"({errno.errorcode.get(error.errno or 0, 'error')}); choose another --data-dir, or: chmod o+x {directory}"
        ) from None
