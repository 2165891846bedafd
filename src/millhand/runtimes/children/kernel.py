"""The few system calls a zygote needs and Python lacks, by ctypes. Runs in the zygote: standard library only, and little of it."""

import ctypes
import errno
import os
import struct
import sys
from functools import partial

libc = ctypes.CDLL(None, use_errno=True)

NEWNS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 15, 36, 38

# System calls since 424 have the same number on every architecture.
_SYS_MOUNT_SETATTR = 442
_SYS_LANDLOCK_CREATE, _SYS_LANDLOCK_ADD, _SYS_LANDLOCK_RESTRICT = 444, 445, 446
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000


def check(result, what):
    """Return the result of a call of the C library, or raise OSError that names it."""
    if result == -1:
        raise failed(what)
    return result


def unshare(flags):
    check(libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source, target, kind, flags, data=None):
    """mount(2); paths are str or None."""
    raw = [value.encode() if value is not None else None for value in (source, target, kind, data)]
    check(libc.mount(raw[0], raw[1], raw[2], ctypes.c_ulong(flags), raw[3]), "mount " + target)


def unmount(target):
    check(libc.umount2(target.encode(), MNT_DETACH), "unmount " + target)


def pivot_root(new, old):
    check(libc.pivot_root(new.encode(), old.encode()), "pivot_root")


def prctl(option, value):
    check(libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), "prctl")


def make_readonly(path):
    """Make a mount and all below it read-only, without set-uid programs and devices."""
    attributes = (ctypes.c_uint64 * 4)(MS_RDONLY | MS_NOSUID | MS_NODEV, 0, 0, 0)
    target = path.encode()
    if libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, target, _AT_RECURSIVE, attributes, ctypes.sizeof(attributes)) == -1:
        mount(None, path, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


_quick = ctypes.PyDLL(None, use_errno=True)  # there is one thread: nobody to let run meanwhile


def call(name, *numbers):
    """Return a function of the C library and its arguments, ready to be called by a child; -1 means that it failed."""
    return getattr(_quick, name), tuple([ctypes.c_ulong(number) for number in numbers])


def ready(name, *numbers):
    """Return a function of the C library with its arguments; -1 means that it failed."""
    function, arguments = call(name, *numbers)
    return partial(function, *arguments)


def forking():
    """Return what forks: the C library's own `_Fork` where nobody asked Python to be told of forks, else os.fork.

    Python prepares each child for threads that were there before it; here are none, and that takes a child 20 pages.
    `random` draws another seed then, and `threading` counts anew.
    """
    quick = getattr(_quick, "_Fork", None)  # glibc has it since 2.34
    if quick is None or not sys.modules.keys().isdisjoint(("random", "threading")):
        return os.fork
    return quick


def failed(what):
    """Return the error of the last call."""
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), what)


def mounting(source, target, kind, flags, data=None):
    """Return the call of mount(2), as `call` does."""
    source, target, kind, data = [ctypes.c_char_p(text and text.encode()) for text in (source, target, kind, data)]
    return _quick.mount, (source, target, kind, ctypes.c_ulong(flags), data)


def naming(name):
    """Return the call that names this process, for those who look at lists of processes; as `call` does."""
    return _quick.prctl, (ctypes.c_int(PR_SET_NAME), ctypes.c_char_p(name.encode()), None, None, None)


def unblocking_signals():
    """Return the call that unblocks all signals, as `call` does."""
    return _quick.sigprocmask, (ctypes.c_int(2), _signals(), None)


def drop_capabilities():
    """Give up every capability. With no_new_privs there is no way back."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    check(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


# What a job could misuse and has no need for: keyrings (they outlast it, and the worker's may hold secrets), and those
# parts of the kernel that most ways out of a container began in. By machine: its name for audits, then call numbers.
_SYS_CLONE3, _SYS_IO_URING = 435, (425, 426, 427)
_MACHINES = {
    "x86_64": {
        "audit": 0xC000003E, "clone": 56, "unshare": 272, "socket": 41,
        "add_key": 248, "request_key": 249, "keyctl": 250, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323,
    },
    "aarch64": {
        "audit": 0xC00000B7, "clone": 220, "unshare": 97, "socket": 198,
        "add_key": 217, "request_key": 218, "keyctl": 219, "bpf": 280, "perf_event_open": 241, "userfaultfd": 282,
    },
}  # fmt: skip
_KERNEL_FAMILIES = (38, 40)  # of sockets: AF_ALG, AF_VSOCK
_OTHER_ABI = 0x40000000  # the bit that marks numbers of x32
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # of a classic BPF program
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000  # the latter with an errno in its low half
_SECCOMP_SPEC_ALLOW = 4  # without it old kernels slow the process down for fear of what it might guess
_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}


def forbid_calls():
    """Refuse some system calls to this process and all it starts, for ever; needs no_new_privs. Raises OSError."""
    function, arguments = forbidding()
    check(function(*arguments), "seccomp")


def forbidding():
    """Return the call that does it, as `call` does; raises OSError on a machine whose calls we don't know."""
    machine = os.uname().machine
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, "no list of system calls for %s" % machine)
    steps = _filter(_MACHINES[machine])
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = (ctypes.c_uint64 * 2)(len(steps), ctypes.addressof(buffer))
    program.buffer = buffer  # lives as long
    return _quick.syscall, (_SYS_SECCOMP[machine], 1, _SECCOMP_SPEC_ALLOW, program)


def _filter(calls):
    """Return the steps of a BPF program: (operation, steps to jump where true, where false, operand)."""
    refuse, missing = (_RETURN, 0, 0, _REFUSE | errno.EPERM), (_RETURN, 0, 0, _REFUSE | errno.ENOSYS)
    first, allow = (_LOAD, 0, 0, _FIRST_ARGUMENT), (_RETURN, 0, 0, _ALLOW)
    steps = [(_LOAD, 0, 0, _ARCHITECTURE), (_IF_EQUAL, 1, 0, calls["audit"]), missing, (_LOAD, 0, 0, _NUMBER)]
    steps += [(_IF_AT_LEAST, 0, 1, _OTHER_ABI), missing]
    for name in ("add_key", "request_key", "keyctl", "bpf", "perf_event_open", "userfaultfd"):
        steps += [(_IF_EQUAL, 0, 1, calls[name]), refuse]
    for number in (_SYS_CLONE3, *_SYS_IO_URING):  # callers then do without; the flags of clone3 can't be looked at
        steps += [(_IF_EQUAL, 0, 1, number), missing]
    for name in ("clone", "unshare"):
        steps += [(_IF_EQUAL, 0, 4, calls[name]), first, (_IF_BITS, 0, 1, NEWUSER), refuse, allow]
    steps += [(_IF_EQUAL, 0, 2 * len(_KERNEL_FAMILIES) + 1, calls["socket"]), first]
    for family in _KERNEL_FAMILIES:
        steps += [(_IF_EQUAL, 0, 1, family), refuse]
    return [*steps, allow]


def block_signal(number):
    """Block a signal and return a descriptor that becomes readable when one is pending."""
    mask = _signals(number)
    check(libc.sigprocmask(0, mask, None), "sigprocmask")
    return check(libc.signalfd(-1, mask, 0o2000000), "signalfd")


def _signals(*numbers):
    words = ctypes.c_ulong * (128 // ctypes.sizeof(ctypes.c_ulong))
    return words(sum([1 << (number - 1) for number in numbers]))


def landlock_version():
    """Return the version of Landlock the kernel offers, 0 for none."""
    return max(0, libc.syscall(_SYS_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1))


# What reading and running needs: execute, read files, list folders.
_LANDLOCK_READ = 1 | 4 | 8
_LANDLOCK_FILE = 1 | 2 | 4 | 1 << 14 | 1 << 15  # rights that make sense for something that is not a folder


def landlock(readable, writable):
    """Restrict this process, for ever, to reading and running some paths and using others freely; the rest is out of sight.

    From version 6 on it can't send signals to processes outside either, nor reach their abstract sockets.
    """
    version = landlock_version()
    handled = (1 << 13) - 1  # all rights over files of the first version
    handled |= (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0) | (1 << 15 if version >= 5 else 0)
    scoped = 3 if version >= 6 else 0
    attributes = (ctypes.c_uint64 * 3)(handled, 0, scoped)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = check(libc.syscall(_SYS_LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), 0), "landlock")
    try:
        for path in readable:
            _allow(rules, path, handled & _LANDLOCK_READ)
        for path in writable:
            _allow(rules, path, handled)
        check(libc.syscall(_SYS_LANDLOCK_RESTRICT, rules, 0), "landlock")
    finally:
        os.close(rules)


def _allow(rules, path, rights):
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no permission
    try:
        if not os.path.isdir(path):
            rights &= _LANDLOCK_FILE
        rule = rights.to_bytes(8, "little") + fd.to_bytes(4, "little")  # struct landlock_path_beneath_attr, packed
        check(libc.syscall(_SYS_LANDLOCK_ADD, rules, 1, rule, 0), "landlock " + path)
    finally:
        os.close(fd)
