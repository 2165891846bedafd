"""What a child does between the fork and the job: close every door, then become what it was asked to be.

The zygote makes a plan of it before the fork, calls with their arguments, and the child goes down the list. A page that a
child is the first to touch costs 3 µs, a hundred times what most of these calls cost, so it runs little code of its own.
"""

import _signal
import json
import os
import resource
import struct

import kernel
import tree

IN, OUT, LOG, GROUP = 3, 4, 2, 5  # descriptors; the last, if there is one, of the list of processes of a control group
HEADER = struct.Struct("<IB")  # a frame's length after it, and kind
LIMITS = struct.Struct("<QIIQ?????")
HIGHEST_FD = 127  # of the zygote
COULD_NOT_START = 125
_SIOCSIFFLAGS = 0x8914
READABLE = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/etc", "/proc", "/sys/devices/system/cpu",
)  # fmt: skip
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/shm", "/dev/tty")


class House:
    """What is the same for all children of a zygote."""

    def __init__(self, mode, readable, filtering=None):
        self.mode = mode
        self.filtering = filtering  # the call that filters system calls, where the zygote hasn't done that for all
        self.sandboxed = mode in ("sandbox", "userns")
        self.readable = readable  # what of the machine children may see
        self.in_tmp = [path for path in readable if path.startswith("/tmp/") and os.path.exists(path)]


class Plan:
    """What a child does before its job: what it may and who it is not, then how it settles."""

    def __init__(self, house, limits, *, uid, folder):
        """limits: packed. uid: whom it becomes, or -1. folder: of the job; in a sandbox its own /tmp/job."""
        numbers = LIMITS.unpack(limits)
        self.tmp_bytes, self.processes, self.open_files, self.data_bytes = numbers[:4]
        self.network, self.init, self.rehearse, self.program, self.grouped = numbers[4:]
        self.house, self.folder = house, folder or "/tmp/job"
        self.enter = [*self._close_doors(), *self._limit()]
        self.settle = [*self._keep_rights(uid), *self._supervise(uid), *self._furnish()]

    def _close_doors(self):
        yield kernel.naming("millhand-job")
        if self.grouped:
            yield os.write, (GROUP, b"0")  # "0" stands for who writes it
        yield os.closerange, (OUT + 1, HIGHEST_FD + 1)
        yield os.setsid, ()
        if self.house.sandboxed:
            yield from self._enter_namespaces()

    def _enter_namespaces(self):
        flags = kernel.MS_NOSUID | kernel.MS_NODEV
        yield kernel.call("unshare", kernel.NEWNS | kernel.NEWIPC | (0 if self.network else kernel.NEWNET))
        yield kernel.mounting("proc", "/proc", "proc", flags | kernel.MS_NOEXEC)
        options = "size=%d,nr_inodes=262144,mode=1777" % self.tmp_bytes
        new_tmp = kernel.mounting("tmpfs", "/tmp", "tmpfs", flags, options)
        yield (_mount_around, (new_tmp, self.house.in_tmp)) if self.house.in_tmp else new_tmp
        if not self.network:
            yield _raise_loopback, ()
        if self.house.mode == "userns":
            yield from self._be_counted_alone()

    def _be_counted_alone(self):
        """The kernel counts processes by user and user namespace: jobs that are one user need a namespace each.

        Before the limit is lowered: what it is at this moment bounds all processes of the namespaces below.
        """
        yield kernel.call("unshare", kernel.NEWUSER)
        yield _write, ("/proc/self/setgroups", b"deny")
        yield _write, ("/proc/self/uid_map", b"%d %d 1" % (os.geteuid(), os.geteuid()))
        yield _write, ("/proc/self/gid_map", b"%d %d 1" % (os.getegid(), os.getegid()))
        if self.house.filtering is not None:  # only now: it refuses new user namespaces
            yield self.house.filtering

    def _limit(self):
        if self.house.mode == "none":
            return
        yield _lowering(resource.RLIMIT_NPROC, self.processes)
        yield _lowering(resource.RLIMIT_NOFILE, self.open_files)
        if not self.house.sandboxed:
            yield _lowering(resource.RLIMIT_FSIZE, self.tmp_bytes)
        if self.data_bytes:
            yield _lowering(resource.RLIMIT_DATA, self.data_bytes)

    def _keep_rights(self, uid):
        if uid < 0 and self.house.mode != "none":
            yield kernel.drop_capabilities, ()
        if self.house.sandboxed:
            return  # the zygote is process 1 of its namespace: its end is ours
        yield kernel.call("prctl", kernel.PR_SET_PDEATHSIG, _signal.SIGKILL, 0, 0, 0)
        if self.house.mode == "process" and kernel.landlock_version():
            yield kernel.landlock, ([*READABLE, *self.house.readable], [self.folder, *DEVICES])

    def _supervise(self, uid):
        if self.init or not self.house.sandboxed:
            yield tree.supervise, (uid >= 0,)

    def _furnish(self):
        if self.house.sandboxed:
            yield os.mkdir, ("/tmp/.shm", 0o1777)
            yield os.mkdir, (self.folder, 0o700)
        else:
            yield _put_tmp_into, (os.environ, self.folder)
        yield os.chdir, (self.folder,)
        yield kernel.unblocking_signals()


def become(plan, uid, run_python):
    """Turn this freshly forked process into the job. Never returns."""
    try:
        _follow(plan.enter)
        if uid >= 0:
            _become_user(uid)
        _follow(plan.settle)
        if plan.program:
            _exec(plan)
    except BaseException as error:
        write_frame("F", ("%s: %s" % (type(error).__name__, error)).encode())
        os._exit(COULD_NOT_START)
    run_python(plan.rehearse, not plan.house.sandboxed)


def _follow(steps):
    for call, arguments in steps:
        if call(*arguments) == -1:
            raise kernel.failed(getattr(call, "__name__", ""))


def _become_user(uid):
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    _follow(_DUMPABLE)


_DUMPABLE = [kernel.call("prctl", kernel.PR_SET_DUMPABLE, 1, 0, 0, 0)]  # else its own /proc/self would be closed to it


def rehearse():
    """Go down a list that does nothing, in the zygote: the interpreter adapts its byte-code then, not in each child."""
    for _ in range(20):
        _follow([(os.getppid, ()), kernel.call("getppid")])
        if os.getuid() == os.geteuid() == 0:
            _become_user(0)


def read_frame(kind):
    """Return the payload of the next frame, which must be of this kind; None where the channel was closed before it."""
    header = _read(HEADER.size)
    if not header:
        return None
    length, actual = HEADER.unpack(header)
    if actual != kind:
        raise ValueError("unexpected frame %r" % chr(actual))
    return _read(length - 1)


def _read(size):
    data = os.read(IN, size)
    if len(data) == size or not data:
        return data
    parts, left = [data], size - len(data)
    while left:
        part = os.read(IN, min(left, 1 << 20))
        if not part:
            raise EOFError("the channel was closed within a frame")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def frame(kind, payload=b""):
    """Return the bytes of a frame."""
    return HEADER.pack(len(payload) + 1, ord(kind)) + payload


def write_frame(kind, payload=b""):
    """Write one frame to the host."""
    write(frame(kind, payload))


def write(data):
    """Write frames to the host, in one go where they fit: each write wakes it."""
    sent = os.write(OUT, data)
    if sent < len(data):
        rest = memoryview(data)[sent:]
        while rest:
            rest = rest[os.write(OUT, rest) :]


def _mount_around(new_tmp, paths):
    """Mount a new /tmp and have these paths of the old one show in it."""
    shown = [(path, os.open(path, os.O_PATH)) for path in paths]
    _follow([new_tmp])
    for path, fd in shown:
        _show_again(path, fd)


def _show_again(path, fd):
    """Bind what children may see of the old /tmp, read-only as it was, into the new one."""
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    if not os.path.lexists(path):
        if os.path.isdir("/proc/self/fd/%d" % fd):
            os.mkdir(path, 0o755)
        else:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))
        kernel.mount("/proc/self/fd/%d" % fd, path, None, kernel.MS_BIND | kernel.MS_REC)
    os.close(fd)


def _raise_loopback():
    import _socket
    import fcntl

    probe = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    fcntl.ioctl(probe.fileno(), _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", 1))  # IFF_UP
    probe.close()


def _write(path, text):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, text)
    os.close(fd)


def _lowering(which, value):
    """Return the step that lowers a limit of this process, as far as it isn't lower already."""
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    return resource.setrlimit, (which, (value, value))


def settle_zygote(mode):
    """Do in the zygote what its children inherit."""
    _follow([kernel.naming("millhand-zygote")])
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # jobs go before the worker does; a zygote is smaller than what makes memory run out
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if mode != "none":
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if mode != "none" and os.geteuid() == 0:
        os.setgroups([])


def _put_tmp_into(env, folder):
    """Have what is told of /tmp be about the job's own folder: outside a sandbox /tmp is everybody's."""
    env.update({name: folder for name, value in env.items() if value == "/tmp"})


def _place(name, data):
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError("a job's file can't be named %r" % name)
    if "/" in name:
        os.makedirs(os.path.dirname(name), exist_ok=True)
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o700)
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
    os.close(fd)


def _exec(plan):
    """Go on as a program: what the first frame says, a JSON object, then the files one by one."""
    payload = read_frame(ord("B"))
    if payload is None:
        os._exit(0)
    length, at = struct.unpack_from("<I", payload)[0], 4
    order, at = json.loads(payload[at : at + length]), at + length
    for name, size in order["files"]:
        _place(name, payload[at : at + size])
        at += size
    if not plan.house.sandboxed:
        _put_tmp_into(order["env"], plan.folder)
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGINT, _signal.SIGTERM):
        _signal.signal(number, _signal.SIG_DFL)
    os.set_inheritable(IN, True)
    os.set_inheritable(OUT, True)
    try:
        os.execvpe(order["argv"][0], order["argv"], order["env"])
    except FileNotFoundError:
        raise FileNotFoundError("there is no program %s" % order["argv"][0]) from None
