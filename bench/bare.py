"""The limit of this machine: a function run in isolated forks, with nothing around it. `python -I -S bench/bare.py N AT_ONCE SLEEP_MS`

No queue, no log, no arguments but a number, no environment, no limits, no error handling: what each isolated Python job
costs the kernel at least. Needs root. Prints jobs per second.
"""

import ctypes
import gc
import json
import os
import select
import sys
import time

NEWNS, NEWIPC, NEWPID = 0x00020000, 0x08000000, 0x20000000
REC_PRIVATE, NOSUID_NODEV = (1 << 14) | (1 << 18), 6
NOBODY = 65534
MAIN = compile("import time\ndef main(x, s):\n    time.sleep(s) if s else None\n    return {'x': x}", "bare", "exec")
libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def start(own_pids, x, sleep_s):
    """Fork a child into its own namespaces; return its pid and where its result comes out."""
    out, theirs = os.pipe()
    check(libc.unshare(NEWPID))
    pid = os.fork()
    if pid == 0:
        be_the_job(theirs, x, sleep_s)
    check(libc.setns(own_pids, NEWPID))
    os.close(theirs)
    return pid, out


def be_the_job(out, x, sleep_s):
    os.setsid()
    check(libc.unshare(NEWNS | NEWIPC))
    check(libc.mount(b"proc", b"/proc", b"proc", ctypes.c_ulong(NOSUID_NODEV), None))
    check(libc.mount(b"tmpfs", b"/tmp", b"tmpfs", ctypes.c_ulong(NOSUID_NODEV), b"size=64m"))
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    names = {}
    exec(MAIN, names)
    os.write(out, json.dumps(names["main"](x, sleep_s)).encode())
    os._exit(0)


def main(n, at_once, sleep_s):
    check(libc.unshare(NEWNS))
    check(libc.mount(None, b"/", None, ctypes.c_ulong(REC_PRIVATE), None))
    own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY)
    poll, running, n_started, n_ended = select.epoll(), {}, 0, 0
    gc.collect()
    gc.freeze()
    began = time.perf_counter()
    while n_ended < n:
        while n_started < n and len(running) < at_once:
            pid, out = start(own_pids, n_started, sleep_s)
            running[out] = pid
            poll.register(out, select.EPOLLIN)
            n_started += 1
        for out, _ in poll.poll():
            if not os.read(out, 65536):
                poll.unregister(out)
                os.close(out)
                os.waitpid(running.pop(out), 0)
                n_ended += 1
    print(n / (time.perf_counter() - began))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000)
