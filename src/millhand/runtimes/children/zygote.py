"""A tiny, single-threaded interpreter that forks jobs: `python -I -S zygote.py FD`, where FD is a SEQPACKET socket to the host.

The host's first message is the set-up (JSON), answered by {"ready": ...} or {"refused": why}. Then it sends requests:
    S id uid   fork a child; with the message come its descriptors: channel in, channel out, log, and maybe a memory group
    K id n     send signal n to a child
and hears of ended children, several in one message: id, wait status (or minus an errno), peak memory in kB; and of
started ones that have no user of their own: id, STARTED, pid.

It never sees a job's code, environment or arguments: those go through the child's own channel. It loads little and runs
no event loop, because every page and mapping it has makes each fork slower. When the host is gone it ends all children.
"""

import _signal
import _socket
import gc
import json
import os
import select
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import child
import kernel
import python_main
import root
import tree

REQUEST = struct.Struct("<cIi")
NEWS = struct.Struct("<IiQ")
STARTED = -(1 << 31)


class Zygote:
    """Forks children into their seats and reaps them."""

    def __init__(self, channel, setup):
        self.channel, self.mode = channel, setup["mode"]
        self.sandboxes = self.mode in ("sandbox", "userns")
        self.folders, self.readable, self.in_tmp = setup["folders"], setup["readonly"], setup["in_tmp"]
        self.serve = python_main.Server(setup["path_files"]).serve
        self.ids = {}  # of running children, by pid
        self.pids = {}  # and the other way round
        self.users = {}
        self.own_pids = setup["own_pids"]

    def run(self):
        """Serve until the host is gone."""
        ended = kernel.block_signal(_signal.SIGCHLD)
        poll = select.poll()
        poll.register(self.channel.fileno(), select.POLLIN)
        poll.register(ended, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == ended:
                    os.read(ended, 4096)
                    self._reap()
                elif not self._serve_one():
                    return

    def _serve_one(self):
        message, ancillary, _, _ = self.channel.recvmsg(64, 64)
        if not message:
            return False
        operation, child_id, number = REQUEST.unpack(message)
        if operation == b"S":
            fds = struct.unpack("%di" % (len(ancillary[0][2]) // 4), ancillary[0][2])
            self._fork(child_id, number, fds)
            for fd in fds:
                os.close(fd)
        elif child_id in self.pids:
            self._signal(self.pids[child_id], number)
        return True

    def _fork(self, child_id, uid, fds):
        folder = None if self.sandboxes else self._make_folder(child_id, uid)
        try:
            pid = self._fork_process()
        except OSError as error:
            self.channel.send(NEWS.pack(child_id, -error.errno, 0))
            return
        if pid == 0:
            seat = child.Seat(self.mode, uid, fds, folder, self.readable, self.in_tmp)
            child.become(seat, self.serve)
        self.ids[pid], self.pids[child_id], self.users[pid] = child_id, pid, uid
        if uid < 0:
            self.channel.send(NEWS.pack(child_id, STARTED, pid))

    def _fork_process(self):
        """Fork, in a sandbox as process 1 of a new PID namespace: cheaper than clone(2) into it by hand, and no less exact."""
        if not self.sandboxes:
            return os.fork()
        kernel.unshare(kernel.NEWPID)
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid:
                kernel.setns(self.own_pids, kernel.NEWPID)
        return pid

    def _make_folder(self, child_id, uid):
        folder = "%s/%d" % (self.folders, child_id)
        os.mkdir(folder, 0o700)
        if uid >= 0:
            os.chown(folder, uid, uid)
        return folder

    def _signal(self, pid, number):
        if number == _signal.SIGKILL and not self.sandboxes:
            tree.end(pid, self.users[pid])
        else:
            os.kill(pid, number)

    def _reap(self):
        records = []
        while self.ids:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                break
            child_id = self.ids.pop(pid, None)
            if child_id is None:
                continue
            del self.pids[child_id]
            uid = self.users.pop(pid)
            if not self.sandboxes:
                tree.end(pid, uid) if uid >= 0 else tree.end_strays(self.ids)
            records.append(NEWS.pack(child_id, status, usage.ru_maxrss))
        if records:
            self.channel.send(b"".join(records))

    def end_all(self):
        for pid in list(self.ids):
            self._signal(pid, _signal.SIGKILL)


def enter(setup):
    """Take the place from which children are forked: for sandboxes, process 1 of own namespaces with a read-only root."""
    os.umask(0o022)
    if setup["mode"] == "userns":
        user, group = os.geteuid(), os.getegid()
        kernel.unshare(kernel.NEWUSER | kernel.NEWNS | kernel.NEWPID)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", "%d %d 1" % (setup["uids"][0], user))
        _write("/proc/self/gid_map", "%d %d 1" % (setup["uids"][0], group))
    elif setup["mode"] == "sandbox":
        kernel.unshare(kernel.NEWNS | kernel.NEWPID)
    else:
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        setup["own_pids"] = None
        return
    _become_first_process()
    setup["own_pids"] = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    if setup["mode"] == "userns":
        kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    root.build(setup["root"], setup["readonly"], setup["hidden"], setup["uids"], setup["mode"] == "userns")


def narrow(mode):
    """Take from the children what of the kernel they don't need; return what is missing of that and why, or ""."""
    if mode == "none":
        return ""
    try:
        kernel.forbid_calls()
    except OSError as error:
        return "no filter of system calls: %s" % error
    return ""


def _become_first_process():
    """Go on in a child that is process 1 of the new PID namespace; this process only waits for it."""
    inner = os.fork()
    if inner:
        os.closerange(3, child.HIGHEST_FD + 1)
        _, status = os.waitpid(inner, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, _signal.SIGKILL)


def _write(path, text):
    with open(path, "w") as file:
        file.write(text)


def own_prefixes():
    """Return where this interpreter's files are; a virtual environment is left out: jobs get packages by `site_dirs`."""
    sys.executable = sys._base_executable = os.path.realpath(sys.executable)
    sys.prefix, sys.exec_prefix = sys.base_prefix, sys.base_exec_prefix
    return [sys.base_prefix, sys.base_exec_prefix, sys.executable]


def load_path(site_dirs):
    """Set where jobs import from, and have the finders look at these folders once, before any fork."""
    sys.path[0:1] = []
    sys.path.extend(site_dirs)
    try:
        __import__("millhand_looks_at_every_folder_once")
    except ImportError:
        pass


def preload(names):
    """Import what every job of this launcher needs; programs of ours lie beside this file."""
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    for name in names:
        __import__(name)
    sys.path.pop()


def main():
    kernel.libc.prctl(15, b"mh-zygote", 0, 0, 0)
    first = _socket.socket(fileno=int(sys.argv[1]))
    channel = _socket.socket(fileno=_high(first.detach()))
    for fd in (3, 4):  # so that descriptors that come with requests are never these
        os.dup2(0, fd)
    setup = json.loads(channel.recv(1 << 20))
    setup["readonly"] = [*own_prefixes(), *setup["readonly"], *setup["site_dirs"]]
    setup["in_tmp"] = [path for path in setup["readonly"] if path.startswith("/tmp/") and os.path.exists(path)]
    os.environ.clear()
    os.environ.update(setup["env"])
    try:
        child.settle_zygote(setup["mode"])
        enter(setup)
        lacks = narrow(setup["mode"])
        load_path(setup["site_dirs"])
        preload(setup["preload"])
        zygote = Zygote(channel, setup)
    except OSError as error:
        channel.send(json.dumps({"refused": "%s: %s" % (type(error).__name__, error)}).encode())
        return
    gc.collect()
    gc.freeze()
    gc.disable()
    channel.send(json.dumps({"ready": True, "lacks": lacks}).encode())
    try:
        zygote.run()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the host is gone
    zygote.end_all()


def _high(fd):
    import fcntl

    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64)
    os.close(fd)
    return high


if __name__ == "__main__":
    main()
