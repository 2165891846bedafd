"""The read-only root that all children of a zygote see. Made once, before the first fork."""

import os

from kernel import (
    MS_BIND, MS_NOEXEC, MS_NOSUID, MS_NODEV, MS_PRIVATE, MS_RDONLY, MS_REC, MS_REMOUNT,
    make_readonly, mount, pivot_root, unmount,
)  # fmt: skip

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
ETC = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "crypto-policies", "debian_version", "gai.conf", "host.conf",
    "hostname", "hosts", "inputrc", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "lsb-release", "mime.types",
    "nsswitch.conf", "os-release", "pki", "protocols", "resolv.conf", "services", "ssl", "timezone",
)  # fmt: skip
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}
MAX_ETC_BYTES = 16 << 20


def build(new, readonly, hidden, uids, own_namespace_owner):
    """Make `new` (an existing folder) the root: read-only system, nothing of the worker's. Needs an own mount namespace.

    uids: the range (first, count) of users that children become. own_namespace_owner: whether we are root of a user
    namespace only, so can't make device nodes, and must keep a visible /proc for children to mount their own.
    """
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", new, "tmpfs", MS_NOSUID, "size=32m,mode=755")
    for name in ("proc", "tmp", "dev", "etc", "run", "var", "home", "root", ".old"):
        os.mkdir(new + "/" + name, 0o755)
    for path in _outermost([*SYSTEM, *readonly]):
        _show(new, path)
    if not os.path.lexists(new + "/var/tmp"):
        os.symlink("/tmp", new + "/var/tmp")
    _fill_dev(new, own_namespace_owner)
    _fill_etc(new + "/etc", uids)
    for path in hidden:
        _mask(new + os.path.realpath(path))
    if own_namespace_owner:
        mount("/proc", new + "/proc", None, MS_BIND | MS_REC)
    os.chdir(new)
    pivot_root(".", ".old")
    os.chdir("/")
    unmount("/.old")
    os.rmdir("/.old")
    flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID
    mount(None, "/", None, flags | (MS_NODEV if own_namespace_owner else 0))


def _outermost(paths):
    """Return these paths and what they resolve to, without those that lie within another of them."""
    chosen = []
    both = {real for path in paths for real in (path, os.path.realpath(path)) if os.path.lexists(path)}
    for path in sorted(both):
        if not any(path == outer or path.startswith(outer + "/") for outer in chosen if not os.path.islink(outer)):
            chosen.append(path)
    return chosen


def _show(new, path):
    """Make a path of the old root visible, read-only, at the same place in the new one."""
    place = new + path
    if os.path.lexists(place):
        return
    os.makedirs(os.path.dirname(place), 0o755, exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), place)
        return
    if os.path.isdir(path):
        os.mkdir(place, 0o755)
    else:
        _write(place, b"")
    mount(path, place, None, MS_BIND | MS_REC)
    make_readonly(place)


def _mask(place):
    """Hide what is at a place of the new root."""
    if os.path.isdir(place):
        mount("tmpfs", place, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,mode=755")
    elif os.path.lexists(place):
        mount("/dev/null", place, None, MS_BIND)


def _fill_dev(new, by_bind):
    dev = new + "/dev/"
    for name, (major, minor) in DEVICES.items():
        if by_bind or not _make_device(dev + name, os.makedev(major, minor)):
            _write(dev + name, b"")
            mount("/dev/" + name, dev + name, None, MS_BIND)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(target, dev + name)
    os.symlink("/tmp/.shm", dev + "shm")  # every child makes it in its own /tmp


def _make_device(place, device):
    """Make a device node; False where that is refused, or where the node doesn't work (a container's device rules)."""
    try:
        os.mknod(place, 0o020666, device)
        os.chmod(place, 0o666)
        os.close(os.open(place, os.O_RDWR))
    except OSError:
        if os.path.lexists(place):
            os.unlink(place)
        return False
    return True


def _fill_etc(etc, uids):
    """Copy what programs expect of /etc and everybody may read, so no mount is spent on it; users are made up."""
    left = MAX_ETC_BYTES
    for name in ETC:
        left = _copy("/etc/" + name, etc + "/" + name, left)
    first, count = uids
    people = ["root:x:0:0:root:/root:/usr/sbin/nologin", "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin"]
    people += ["job:x:%d:%d:job:/tmp:/bin/sh" % (uid, uid) for uid in range(first, first + count)]
    groups = ["root:x:0:", "nogroup:x:65534:"] + ["job:x:%d:" % uid for uid in range(first, first + count)]
    _write(etc + "/passwd", "\n".join(people).encode() + b"\n")
    _write(etc + "/group", "\n".join(groups).encode() + b"\n")


def _copy(source, place, left):
    """Copy a file or folder that everybody may read, up to `left` bytes; return how many are left."""
    if os.path.islink(source) and os.path.realpath(source).startswith(("/usr/", "/etc/")):
        os.symlink(os.readlink(source), place)
        return left
    try:
        mode = os.stat(source).st_mode
        if os.path.isdir(source) and mode & 0o005 == 0o005:
            os.mkdir(place, 0o755)
            for name in os.listdir(source):
                left = _copy(source + "/" + name, place + "/" + name, left)
        elif os.path.isfile(source) and mode & 0o004 and os.path.getsize(source) <= left:
            with open(source, "rb") as file:
                left -= _write(place, file.read())
    except OSError:
        pass  # a broken link, or gone meanwhile: as if it had not been there
    return left


def _write(place, data):
    fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        return os.write(fd, data) if data else 0
    finally:
        os.close(fd)
