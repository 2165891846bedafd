"""A tiny, single-threaded interpreter that forks jobs: `python -I -S zygote.py FD`, where FD is a SEQPACKET socket to the host.

The host's first message is the set-up (JSON), answered by {"ready": ...} or {"refused": why}. Then it sends requests:
    S id uid limits   fork a child (see child.py for the limits); with the message come its descriptors, see below
    K id n            send signal n to a child
and hears of ended children, several in one message: id, wait status (or minus an errno), peak memory in kB; and of
started ones that have no user of their own: id, STARTED, pid.

It never sees a job's code, environment or arguments: those go through the child's own channel. It loads little and runs
no event loop, because every page and mapping it has makes each fork slower. When the host is gone it ends all children.

It keeps descriptors 1 to 5 free. The kernel gives those that come with a message the lowest free numbers, so they have
their place when they arrive: log, log again, channel in, channel out, and maybe the list of processes of a memory group.
"""

import _signal
import _socket
import fcntl
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
LOWEST_FD = 64  # of its own
MOST_PLANS = 64


class Zygote:
    """Forks children and reaps them."""

    def __init__(self, channel, setup):
        self.channel = channel
        self.house = child.House(setup["mode"], setup["readonly"], setup["filtering"])
        self.folders = setup["folders"]
        self.apart = self.back = (
            None  # calls that have the next child be process 1 of a new namespace, and not us any more
        )
        if self.house.sandboxed:
            self.apart = kernel.ready("unshare", kernel.NEWPID)
            self.back = kernel.ready("setns", setup["own_pids"], kernel.NEWPID)
        self.fork = kernel.forking()
        self.serve = python_main.Server(setup["path_files"]).serve
        self.plans = {}  # of children in a sandbox, by limits
        self.running = {}  # child id and user, by pid
        self.pids = {}  # by child id

    def run(self):
        """Serve until the host is gone."""
        ended = high(kernel.block_signal(_signal.SIGCHLD))
        poll = select.poll()
        poll.register(self.channel.fileno(), select.POLLIN)
        poll.register(ended, select.POLLIN)
        os.closerange(1, LOWEST_FD)
        while True:
            for fd, _ in poll.poll():
                if fd == ended:
                    os.read(ended, 4096)
                    self._reap()
                elif not self._serve():
                    return

    def _serve(self):
        """Do what the host asks, until it asks nothing more; False once it is gone.

        In a sandbox a child is process 1 of a new PID namespace: by unshare(2), cheaper than clone(2) by hand, and no less
        exact. All in one stretch: after a fork each page that is written to is copied, so few objects are touched here.
        """
        receive, unpack, size, apart, fork = (
            self.channel.recvmsg,
            REQUEST.unpack_from,
            REQUEST.size,
            self.apart,
            self.fork,
        )
        back, plans, running, pids, close = self.back, self.plans, self.running, self.pids, os.closerange
        while True:
            try:
                message, _, _, _ = receive(64, 64, _socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            if not message:
                return False
            operation, child_id, number = unpack(message)
            if operation != b"S":
                self._signal(child_id, number)
                continue
            try:
                plan = plans.get(message[size:]) or self._plan(child_id, number, message[size:])
                if apart is not None and apart() == -1:
                    raise kernel.failed("unshare")
                pid = fork()
                if pid == 0:
                    child.become(plan, number, self.serve)
                if pid == -1:
                    raise kernel.failed("fork")
            except OSError as error:
                self.channel.send(NEWS.pack(child_id, -error.errno, 0))
            else:
                running[pid], pids[child_id] = (child_id, number), pid
                if number < 0:
                    self.channel.send(NEWS.pack(child_id, STARTED, pid))
            if back is not None and back() == -1:
                raise kernel.failed("setns")
            close(1, LOWEST_FD)

    def _plan(self, child_id, uid, limits):
        if not self.house.sandboxed:
            return child.Plan(self.house, limits, uid=uid, folder=self._make_folder(child_id, uid))
        if len(self.plans) >= MOST_PLANS:
            self.plans.clear()
        plan = self.plans[limits] = child.Plan(self.house, limits, uid=uid, folder=None)
        return plan

    def _make_folder(self, child_id, uid):
        folder = "%s/%d" % (self.folders, child_id)
        os.mkdir(folder, 0o700)
        if uid >= 0:
            os.chown(folder, uid, uid)
        return folder

    def _signal(self, child_id, number):
        pid = self.pids.get(child_id)
        if pid is None:
            return
        if number == _signal.SIGKILL and not self.house.sandboxed:
            tree.end(pid, self.running[pid][1])
        else:
            os.kill(pid, number)

    def _reap(self):
        records = []
        while self.running:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                break
            child_id, uid = self.running.pop(pid, (None, -1))
            if child_id is None:
                continue
            del self.pids[child_id]
            if not self.house.sandboxed:
                tree.end(pid, uid) if uid >= 0 else tree.end_strays(self.running)
            records.append(NEWS.pack(child_id, status, usage.ru_maxrss))
        if records:
            self.channel.send(b"".join(records))

    def end_all(self):
        for child_id in list(self.pids):
            self._signal(child_id, _signal.SIGKILL)


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
    setup["own_pids"] = high(os.open("/proc/self/ns/pid", os.O_RDONLY))
    if setup["mode"] == "userns":
        kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    root.build(setup["root"], setup["readonly"], setup["hidden"], setup["uids"], setup["mode"] == "userns")


def narrow(setup):
    """Take from the children what of the kernel they don't need; return what is missing of that and why, or ""."""
    setup["filtering"] = None
    try:
        if setup["mode"] == "userns":  # there each does it, in a user namespace of its own
            _try_in_another(kernel.forbid_calls)
            setup["filtering"] = kernel.forbidding()
        elif setup["mode"] != "none":
            kernel.forbid_calls()
    except OSError as error:
        return "no filter of system calls: %s" % error
    return ""


def _try_in_another(what):
    """Do something in a process that ends with it; raises the OSError that it raises there."""
    pid = os.fork()
    if pid == 0:
        try:
            what()
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(code, os.strerror(code))


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
    channel = _socket.socket(fileno=high(int(sys.argv[1])))
    complaints = high(os.dup(2))
    setup = json.loads(channel.recv(1 << 20))
    setup["readonly"] = [*own_prefixes(), *setup["readonly"], *setup["site_dirs"]]
    os.environ.clear()
    os.environ.update(setup["env"])
    try:
        child.settle_zygote(setup["mode"])
        enter(setup)
        lacks = narrow(setup)
        load_path(setup["site_dirs"])
        preload(setup["preload"])
        zygote = Zygote(channel, setup)
        child.rehearse()
        forget_own()
    except OSError as error:
        channel.send(json.dumps({"refused": "%s: %s" % (type(error).__name__, error)}).encode())
        return
    gc.collect()
    kernel.libc.malloc_trim(0)
    gc.freeze()
    gc.disable()
    channel.send(json.dumps({"ready": True, "lacks": lacks}).encode())
    try:
        zygote.run()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the host is gone
    except BaseException:
        os.dup2(complaints, 2)
        raise
    zygote.end_all()


def forget_own():
    """Leave the names of our modules to those of jobs: `tree` and `convert` are packages that people use."""
    for name in ("child", "convert", "environment", "kernel", "python_main", "root", "tree"):
        del sys.modules[name]


def high(fd):
    """Move a descriptor out of the way of those that children need."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, LOWEST_FD)
    os.close(fd)
    return moved


if __name__ == "__main__":
    main()
