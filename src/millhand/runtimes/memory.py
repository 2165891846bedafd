"""Memory of jobs: limits by control groups where we may make them, and the peak over a job's whole process tree."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

_SAMPLE_S = 0.5
_PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024
_OURS = "millhand-"


class MemoryGroup:
    """The control group of one job."""

    def __init__(self, path: Path, *, unified: bool) -> None:
        self._path = path
        self._unified = unified

    def open_members(self) -> int:
        """Return a descriptor through which a process that writes "0" joins."""
        return os.open(self._path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)

    def join(self, pid: int) -> None:
        """Move a process in."""
        (self._path / "cgroup.procs").write_text(str(pid))

    def finish(self) -> tuple[int, bool]:
        """Remove the group, whose processes are gone; return the peak in kB and whether the kernel killed for memory."""
        peak = _number(self._path / ("memory.peak" if self._unified else "memory.max_usage_in_bytes"))
        kills = _field(self._path / ("memory.events" if self._unified else "memory.oom_control"), "oom_kill")
        with contextlib.suppress(OSError):
            self._path.rmdir()
        return peak // 1024, kills > 0


class MemoryGroups:
    """Where we make control groups, or nowhere."""

    def __init__(self, base: Path | None, *, unified: bool) -> None:
        self._base = base
        self._unified = unified
        self._numbers = itertools.count(1)

    @classmethod
    def find(cls, root: Path = Path("/sys/fs/cgroup"), own: str | None = None) -> MemoryGroups:
        """Look for a place below our own group: version 2 if it is delegated to us, else version 1."""
        for line in (own if own is not None else _text(Path("/proc/self/cgroup"))).splitlines():
            number, controllers, path = line.split(":", 2)
            unified = number == "0"
            if not unified and "memory" not in controllers.split(","):
                continue
            place = (root if unified else root / "memory") / path.lstrip("/")
            if (base := _claim(place, unified=unified)) is not None:
                return cls(base, unified=unified)
        return cls(None, unified=False)

    def make(self, limit_bytes: int) -> MemoryGroup | None:
        """Make a group that may use so much; None where we can't."""
        if self._base is None:
            return None
        path = self._base / str(next(self._numbers))
        try:
            path.mkdir()
            if self._unified:
                (path / "memory.max").write_text(str(limit_bytes))
                with contextlib.suppress(OSError):  # no swap accounting
                    (path / "memory.swap.max").write_text("0")
            else:
                (path / "memory.limit_in_bytes").write_text(str(limit_bytes))
                with contextlib.suppress(OSError):
                    (path / "memory.memsw.limit_in_bytes").write_text(str(limit_bytes))
        except OSError:
            return None
        return MemoryGroup(path, unified=self._unified)

    def close(self) -> None:
        """Remove our place."""
        if self._base is not None:
            with contextlib.suppress(OSError):
                self._base.rmdir()


_places = itertools.count(1)


def _claim(place: Path, *, unified: bool) -> Path | None:
    """Make a group for our jobs below a place; None where that is refused or memory isn't controlled there."""
    _sweep(place)
    base = place / f"{_OURS}{os.getpid()}-{next(_places)}"
    try:
        if unified:
            _hand_memory_down(place)
        base.mkdir()
        if unified:
            (base / "cgroup.subtree_control").write_text("+memory")
        usable = (base / ("cgroup.subtree_control" if unified else "memory.limit_in_bytes")).exists()
    except OSError:
        usable = False
    if not usable:
        with contextlib.suppress(OSError):
            base.rmdir()
        return None
    return base


def _hand_memory_down(place: Path) -> None:
    """Let groups below control memory. In version 2 no process may stay in the group itself: they move into one below."""
    if "memory" not in _text(place / "cgroup.controllers").split():
        raise PermissionError("memory is not delegated to this group")
    if "memory" in _text(place / "cgroup.subtree_control").split():
        return
    inner = place / "millhand"
    inner.mkdir(exist_ok=True)
    for pid in _text(place / "cgroup.procs").split():
        with contextlib.suppress(ProcessLookupError):
            (inner / "cgroup.procs").write_text(pid)
    (place / "cgroup.subtree_control").write_text("+memory")


def _sweep(place: Path) -> None:
    """Remove what hosts that were killed have left."""
    for path in place.glob(f"{_OURS}*"):
        pid = path.name.removeprefix(_OURS).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            for child in [*path.glob("*/"), path]:
                with contextlib.suppress(OSError):
                    child.rmdir()


class Watched:
    """A child whose memory is looked at now and then."""

    def __init__(self, *, uid: int, memory_limit: int | None) -> None:
        self.uid = uid  # its own user, or -1
        self.pid = 0  # where it has no user of its own: its process, as its launcher sees it
        self.launcher_pid = 0
        self.memory_limit = memory_limit
        self.sampled_peak_kb = 0
        self.over_limit = False

    def kill(self) -> None:
        """End it."""
        raise NotImplementedError


class PeakSampler:
    """Looks twice a second at what running jobs use, all their processes together, and ends those over their limit.

    A job that ends sooner is not looked at: reading /proc for each of many short ones cost a host a third of its time.
    Jobs with a user of their own are told apart by it, the others by who started whom.
    """

    def __init__(self, usage: Callable[[], list[Process]] | None = None) -> None:
        self._usage = usage or processes
        self._watched: dict[Watched, float] = {}  # and since when
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, child: Watched) -> None:
        """Look at this child from the next time on."""
        loop = asyncio.get_running_loop()
        self._watched[child] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(_SAMPLE_S, self._look)

    def forget(self, child: Watched) -> None:
        """Look no more."""
        self._watched.pop(child, None)

    def close(self) -> None:
        """Stop."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        if not self._watched:
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_SAMPLE_S, self._look)
        born_by = loop.time() - _SAMPLE_S
        if grown := [child for child, since in self._watched.items() if since <= born_by]:
            self._look_at(grown)

    def _look_at(self, children: Sequence[Watched]) -> None:
        seen = self._usage()
        by_user: dict[int, list[Process]] = {}
        for process in seen:
            by_user.setdefault(process.uid, []).append(process)
        for child in children:
            mine = by_user.get(child.uid, []) if child.uid >= 0 else _tree(child, seen)
            self._note(child, mine)

    def _note(self, child: Watched, mine: list[Process]) -> None:
        child.sampled_peak_kb = max(child.sampled_peak_kb, sum(process.rss_kb for process in mine))
        if child.memory_limit and sum(process.own_kb for process in mine) * 1024 > child.memory_limit:
            child.over_limit = True
            child.kill()


class Process:
    """What we look at of a process."""

    __slots__ = ("own_kb", "parent", "pid", "rss_kb", "uid")

    def __init__(self, *, pid: int, parent: int, uid: int, rss_kb: int, own_kb: int) -> None:
        self.pid, self.parent, self.uid = pid, parent, uid
        self.rss_kb = rss_kb
        self.own_kb = own_kb  # without pages of files and shared memory


def processes() -> list[Process]:
    """Return every process that /proc shows."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - see `_process`
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended
                found.append(_process(name))
    return found


def _process(pid: str) -> Process:
    """Read one process; with descriptors, not paths and files: there may be thousands of them."""
    fields = _bytes(f"/proc/{pid}/stat").rpartition(b")")[2].split(None, 2)
    _, resident, shared, _ = _bytes(f"/proc/{pid}/statm").split(None, 3)
    return Process(
        pid=int(pid), parent=int(fields[1]), uid=os.stat(f"/proc/{pid}").st_uid,  # noqa: PTH116
        rss_kb=int(resident) * _PAGE_KB, own_kb=(int(resident) - int(shared)) * _PAGE_KB,
    )  # fmt: skip


def _bytes(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def _tree(child: Watched, seen: list[Process]) -> list[Process]:
    """Return the processes below a child that its launcher knows as `pid`, in whatever namespace that is."""
    below = _descendants(child.launcher_pid, seen)
    tops = [process for process in below if child.pid in _numbers(process.pid)]
    return [process for top in tops[:1] for process in [top, *_descendants(top.pid, seen)]]


def _descendants(root: int, seen: list[Process]) -> list[Process]:
    children: dict[int, list[Process]] = {}
    for process in seen:
        children.setdefault(process.parent, []).append(process)
    found, queue = [], [root]
    while queue:
        more = children.get(queue.pop(), [])
        found += more
        queue += [process.pid for process in more]
    return found


def _numbers(pid: int) -> list[int]:
    """Return the numbers of a process that its launcher may know it by: not ours, nor that in a namespace of its own."""
    match = re.search(r"^NSpid:\s*(.*)$", _text(Path(f"/proc/{pid}/status")), re.MULTILINE)
    numbers = [int(word) for word in match[1].split()] if match else [pid]
    return numbers[1:-1] or numbers[-1:]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int:
    text = _text(path).strip()
    return int(text) if text.isdigit() else 0


def _field(path: Path, name: str) -> int:
    for line in _text(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    return 0
