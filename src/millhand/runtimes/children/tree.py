"""Processes and what they started: a small init for one job, and how to end all of it."""

import _signal
import os

import kernel


def supervise(own_user):
    """Fork: the child returns and goes on to be the job; this process forwards TERM, waits and ends as the child did.

    As process 1 of a namespace its end takes everything along. Elsewhere it gathers orphans and ends them itself;
    own_user says that all processes of this user belong to the job.
    """
    if os.getpid() != 1:
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    _signal.pthread_sigmask(
        _signal.SIG_BLOCK, [_signal.SIGTERM]
    )  # until there is who forwards it; both unblock it later
    child = os.fork()
    if child == 0:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, _signal.SIGKILL)
        return
    os.closerange(3, 5)  # the job's channel and log close with the job
    os.dup2(0, 1)
    os.dup2(0, 2)
    all_mine = own_user or os.getpid() == 1
    _signal.signal(_signal.SIGTERM, lambda *_: _signal_all(_signal.SIGTERM, all_mine))
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    status = _wait(child)
    _signal.signal(_signal.SIGTERM, _signal.SIG_IGN)
    if os.getpid() != 1:
        _end_all(all_mine)
    _end_like(status)


def _wait(child):
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            return status


def _end_all(all_mine):
    """Kill everything below, until nothing is left: what a killed process had started comes to us in turn."""
    try:
        while True:
            _signal_all(_signal.SIGKILL, all_mine)
            os.waitpid(-1, 0)
    except ChildProcessError:
        pass


def _signal_all(number, all_mine):
    """Signal everything of this job but this process."""
    for pid in (-1,) if all_mine else descendants(os.getpid()):
        _send(pid, number)


def _end_like(status):
    if os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    if os.getpid() != 1:  # process 1 can't be ended by a signal of its own
        _signal.signal(number, _signal.SIG_DFL) if number not in (_signal.SIGKILL, _signal.SIGSTOP) else None
        os.kill(os.getpid(), number)
    os._exit(128 + number)


def descendants(root):
    """Return the living processes below one, by the parents that /proc tells."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            parent, state = _parent_and_state(name)
            if parent and state != "Z":
                parents[int(name)] = parent
    found, size = {root}, 0
    while len(found) != size:
        size = len(found)
        found.update(pid for pid, parent in parents.items() if parent in found)
    return found - {root}


def _parent_and_state(pid):
    try:
        with open("/proc/%s/stat" % pid, "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0, ""
    return int(fields[1]), fields[0].decode()


def end(pid, uid):
    """Kill a child of the zygote that is not alone in a namespace, with all it started."""
    if uid >= 0:
        _kill_user(uid)
        return
    stopped = set()
    while True:  # stop first, so that nothing forks away from under us
        more = ({pid} | descendants(pid)) - stopped
        if not more:
            break
        for each in more:
            _send(each, _signal.SIGSTOP)
        stopped |= more
    for each in stopped:
        _send(each, _signal.SIGKILL)


def _send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _kill_user(uid):
    """Kill every process of a user: in one call, that no fork can outrun."""
    helper = os.fork()
    if helper == 0:
        try:
            os.setresuid(uid, uid, uid)
            os.kill(-1, _signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(helper, 0)


def end_strays(known):
    """Kill children of this process that it doesn't know: orphans of a supervisor that was killed."""
    for pid in descendants(os.getpid()):
        parent, _ = _parent_and_state(str(pid))
        if parent == os.getpid() and pid not in known:
            end(pid, -1)
