"""Jobs that reach for what the kernel offers beside files and processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.isolation.conftest import Cell

sys.path.append(str(Path(__file__).parents[2] / "src/millhand/runtimes/children"))
import kernel

CALLS = """
import ctypes, errno, os

libc = ctypes.CDLL(None, use_errno=True)

def outcome(*call):
    ctypes.set_errno(0)
    result = libc.syscall(*[ctypes.c_long(each) for each in call])
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]
"""


def numbers() -> dict[str, int]:
    return kernel._MACHINES[os.uname().machine]


async def ask(cell: Cell, *call: int) -> str:
    return (await cell.run(f"{CALLS}\ndef main(call):\n    return outcome(*call)", {"call": list(call)})).result


async def test_keyrings(cell: Cell):
    """A job has no keyrings: not the worker's, nor one of its own in which the next job of its user finds a note."""
    get_keyring = 0
    for keyring in (-3, -4, -5):  # of the session, of the user, of the user's sessions
        assert await ask(cell, numbers()["keyctl"], get_keyring, keyring, 1) == "EPERM"
    assert await ask(cell, numbers()["add_key"], 0, 0, 0, 0, -4) == "EPERM"


async def test_namespaces_of_its_own(cell: Cell):
    """A job can't become root of a user namespace, from where most of the kernel can be reached."""
    assert await ask(cell, numbers()["unshare"], kernel.NEWUSER) == "EPERM"
    assert await ask(cell, numbers()["unshare"], kernel.NEWUSER | kernel.NEWNS) == "EPERM"
    assert await ask(cell, numbers()["clone"], kernel.NEWUSER | 17, 0, 0, 0, 0) == "EPERM"
    assert await ask(cell, 435, 0, 0) == "ENOSYS"  # clone3: the C library then takes clone


async def test_rare_parts_of_the_kernel(cell: Cell):
    """A job can't load programs into the kernel, nor reach its cryptography or the hypervisor by sockets."""
    for name in ("bpf", "perf_event_open", "userfaultfd"):
        assert await ask(cell, numbers()[name], 0, 0, 0, 0, 0) == "EPERM"
    for family in kernel._KERNEL_FAMILIES:
        assert await ask(cell, numbers()["socket"], family, 5, 0) == "EPERM"
    assert await ask(cell, 425, 1, 0) == "ENOSYS"  # io_uring_setup


async def test_what_jobs_need(cell: Cell):
    """Threads, processes and sockets of all usual kinds are there."""
    ran = await cell.run(
        """
import socket, subprocess, threading

def main():
    said = []
    thread = threading.Thread(target=said.append, args=("thread",))
    thread.start()
    thread.join()
    said.append(subprocess.run(["sh", "-c", "echo $(echo process)"], capture_output=True, text=True).stdout.strip())
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):
        try:
            socket.socket(family, socket.SOCK_DGRAM).close()
        except OSError as error:
            said.append(f"{family.name}: {error}")
    return said
"""
    )
    assert ran.result == ["thread", "process"]
