"""What a child does between the fork and the job: close every door, then become what it was asked to be."""

import _signal
import json
import os
import resource
import struct

import kernel
import tree

IN, OUT, LOG = 3, 4, 2
HEADER = struct.Struct("<IB")  # a frame's length after it, and kind
LIMITS = struct.Struct(
    "<QIIQ???I"
)  # bytes in /tmp, processes, open files, bytes of data, network, init, rehearse, size of the body
HIGHEST_FD = 127  # of the zygote
COULD_NOT_START = 125
_SIOCSIFFLAGS = 0x8914
READABLE = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/etc", "/proc", "/sys/devices/system/cpu",
)  # fmt: skip
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/shm", "/dev/tty")


class Request:
    """What the first frame says: numbers, then, where it is not a plain Python job, a JSON object and the files one by one."""

    def __init__(self, payload):
        numbers = LIMITS.unpack_from(payload)
        (
            self.tmp_bytes,
            self.processes,
            self.open_files,
            self.data_bytes,
            self.network,
            self.init,
            self.rehearse,
            size,
        ) = numbers
        self.argv, self.env, self.files = (), {}, []
        if size:
            self._read_body(payload, LIMITS.size, LIMITS.size + size)

    def _read_body(self, payload, start, at):
        body = json.loads(payload[start:at])
        self.argv, self.env = body["argv"], body["env"]
        for name, length in body["files"]:
            self.files.append((name, payload[at : at + length]))
            at += length


class Seat:
    """Where the zygote puts a child: its kind of isolation, user, descriptors and, outside a sandbox, its folder."""

    def __init__(self, mode, uid, fds, folder, readable, in_tmp):
        self.mode, self.uid, self.fds, self.folder = mode, uid, fds, folder
        self.readable = readable  # what of the machine it may see
        self.in_tmp = in_tmp  # what of that lies in /tmp, which becomes its own
        self.sandboxed = mode in ("sandbox", "userns")


def become(seat, run_python):
    """Turn this freshly forked process into the job. Never returns."""
    try:
        kernel.libc.prctl(15, b"mh-job", 0, 0, 0)
        _take_descriptors(seat.fds)
        payload = read_frame(ord("B"))
        if payload is None:
            os._exit(0)
        request = Request(payload)
        if seat.sandboxed:
            _enter_namespaces(seat, request)
        _limit(seat, request)
        _drop_rights(seat)
        if request.init or not seat.sandboxed:
            tree.supervise(own_user=seat.uid >= 0)
        _settle(seat, request)
        if request.argv:
            _exec(seat, request)
    except BaseException as error:
        write_frame("F", ("%s: %s" % (type(error).__name__, error)).encode())
        os._exit(COULD_NOT_START)
    run_python(request.rehearse)


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


def _take_descriptors(fds):
    os.dup2(fds[0], IN)
    os.dup2(fds[1], OUT)
    os.dup2(fds[2], 1)
    os.dup2(fds[2], 2)
    if len(fds) > 3:
        os.write(fds[3], b"0")  # cgroup.procs: put myself into the job's memory group
    os.closerange(5, HIGHEST_FD + 1)
    os.setsid()


def _enter_namespaces(seat, request):
    kernel.unshare(kernel.NEWNS | kernel.NEWIPC | (0 if request.network else kernel.NEWNET))
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("proc", "/proc", "proc", flags | kernel.MS_NOEXEC)
    shown = [(path, os.open(path, os.O_PATH)) for path in seat.in_tmp]
    kernel.mount("tmpfs", "/tmp", "tmpfs", flags, "size=%d,nr_inodes=262144,mode=1777" % request.tmp_bytes)
    for path, fd in shown:
        _show_again(path, fd)
    if not request.network:
        _raise_loopback()
    seat.folder = "/tmp/job"


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


def _limit(seat, request):
    if seat.mode == "none":
        return
    _lower(resource.RLIMIT_NPROC, request.processes)
    _lower(resource.RLIMIT_NOFILE, request.open_files)
    if not seat.sandboxed:
        _lower(resource.RLIMIT_FSIZE, request.tmp_bytes)
    if request.data_bytes:
        _lower(resource.RLIMIT_DATA, request.data_bytes)


def _lower(which, value):
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def settle_zygote(mode):
    """Do in the zygote what its children inherit."""
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # jobs go before the worker does; a zygote is smaller than what makes memory run out
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if mode != "none":
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if mode != "none" and os.geteuid() == 0:
        os.setgroups([])


def _drop_rights(seat):
    if seat.uid >= 0:
        for fd in (IN, OUT, LOG):  # so that it may open them anew by /proc/self/fd, as Deno does, and /dev/stderr
            os.fchown(fd, seat.uid, seat.uid)
        os.setresgid(seat.uid, seat.uid, seat.uid)
        os.setresuid(seat.uid, seat.uid, seat.uid)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # else its own /proc/self would be closed to it
    elif seat.mode != "none":
        kernel.drop_capabilities()
    if seat.sandboxed:
        return  # the zygote is process 1 of its namespace: its end is ours
    kernel.prctl(kernel.PR_SET_PDEATHSIG, _signal.SIGKILL)
    if seat.mode == "process" and kernel.landlock_version():
        kernel.landlock([*READABLE, *seat.readable], [seat.folder, *DEVICES])


def _settle(seat, request):
    if seat.sandboxed:
        os.mkdir("/tmp/.shm", 0o1777)
        os.mkdir(seat.folder, 0o700)
    else:  # what it was told of /tmp is about its own folder
        for env in (request.env, os.environ):
            env.update({name: seat.folder for name, value in env.items() if value == "/tmp"})
    os.chdir(seat.folder)
    for name, data in request.files:
        _place(name, data)


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


def _exec(seat, request):
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGINT, _signal.SIGTERM):
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    os.set_inheritable(IN, True)
    os.set_inheritable(OUT, True)
    try:
        os.execvpe(request.argv[0], request.argv, request.env)
    except FileNotFoundError:
        raise FileNotFoundError("there is no program %s" % request.argv[0]) from None
