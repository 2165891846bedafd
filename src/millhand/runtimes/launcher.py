"""Starts jobs' processes, alone: the host's side of a zygote (children/zygote.py)."""

from __future__ import annotations

import array
import asyncio
import contextlib
import itertools
import json
import os
import secrets
import shutil
import socket
import stat
import struct
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import structlog

from millhand.core.errors import RuntimeUnavailableError
from millhand.runtimes import bubblewrap
from millhand.runtimes.child import Child, Exit, Spawn
from millhand.runtimes.contract import Isolation
from millhand.runtimes.frames import Frame, encode
from millhand.runtimes.memory import MemoryGroup, MemoryGroups, PeakSampler

_ZYGOTE = Path(__file__).parent / "children" / "zygote.py"
_REQUEST = struct.Struct("<cIi")
_LIMITS = struct.Struct("<QIIQ?????")  # as in children/child.py
_NEWS = struct.Struct("<IiQ")
_SANDBOXES = ("sandbox", "userns")  # modes in which each child has namespaces of its own
_STARTED = -(1 << 31)  # instead of a wait status: the number is its pid
_START_TIMEOUT_S = 20.0
_N_USERS = 1024  # of one launcher
_FIRST_USER, _N_RANGES = 1_900_000_000, 50_000  # above what distributions, containers and directories hand out
_log = structlog.get_logger(__name__)


def base_environment() -> dict[str, str]:
    """Return what a job gets of the host's environment: PATH, TZ, LANG and the proxies; HOME and TMPDIR are its own."""
    kept = ("TZ", "LANG", "LC_ALL", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    env = {name: os.environ[name] for name in kept if name in os.environ}
    env.setdefault("LANG", "C.UTF-8")
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "HOME": "/tmp", "TMPDIR": "/tmp", "USER": "job", **env}  # noqa: S108 - private to each job


class Launcher:
    """A zygote and its children. A zygote that dies is replaced at the next spawn."""

    def __init__(
        self,
        *,
        python: str,
        site_dirs: Sequence[Path] = (),
        isolation: Isolation = Isolation.SANDBOX,
        readonly: Sequence[Path] = (),
        hidden: Sequence[Path] = (),
        preload: Sequence[str] = (),
        scratch: Path,
    ) -> None:
        """Prepare; nothing runs before `start`.

        python: the interpreter of the zygote. site_dirs: folders of packages for Python jobs. readonly: what else
        children may see (language runtimes, caches; later content of these folders shows). hidden: existing paths never
        to be seen, also inside of those. preload: modules of site_dirs or children/ that are imported once, before any
        fork. scratch: a folder of ours for what needs a place on disk.
        """
        self.isolation_text = str(isolation)
        self._python = python
        self._site_dirs = [str(path) for path in site_dirs]
        self._isolation = isolation
        self._readonly = [str(path) for path in (*readonly, _ZYGOTE.parent)]
        self._hidden = [str(path) for path in hidden]
        self._preload = list(preload)
        self._scratch = scratch
        self._folders = scratch / f"jobs-{secrets.token_hex(4)}"  # of jobs that have no /tmp of their own
        self._ids = itertools.count(1)
        self._mode = ""  # of the running zygote: sandbox, userns, bubblewrap, process, none
        self._zygote: _Zygote | None = None
        self._starting = asyncio.Lock()
        self._users: deque[int] = deque()  # that children may become
        self._own_users = False  # whether they do
        self._first_user = _first_user()
        self._memory = MemoryGroups.find()
        self._sampler = PeakSampler()
        self._closed = False

    async def start(self) -> None:
        """Start the zygote; raises RuntimeUnavailableError where it can't, or where REQUIRED isolation is refused."""
        await self._running()

    async def close(self) -> None:
        """Kill all children, end the zygote, leave nothing behind."""
        self._closed = True
        if self._zygote is not None:
            await self._zygote.close()
        self._sampler.close()
        self._memory.close()
        shutil.rmtree(self._folders, ignore_errors=True)

    async def spawn(self, spawn: Spawn) -> Child:
        """Start a child."""
        zygote = await self._running()
        limit = spawn.limits.memory_bytes
        group = self._memory.make(limit) if limit else None
        child = self._new_child(group, limit)
        await zygote.spawn(child, _limits(spawn, grouped=group is not None))
        if spawn.argv:
            child.begin(_program_frame(spawn))
            self._sampler.watch(child)
        return child

    def _new_child(self, group: MemoryGroup | None = None, limit: int | None = None) -> Child:
        child_id = next(self._ids)
        if self._own_users and not self._users:
            raise RuntimeUnavailableError(
                f"{_N_USERS} jobs run here at once, as many as there are users for: use more hosts"
            )
        uid = self._users.popleft() if self._own_users else -1
        child = Child(child_id, uid=uid, group=group, sampler=self._sampler, memory_limit=limit)
        child.on_gone = lambda: self._give_back(child_id, uid)
        return child

    def _give_back(self, child_id: int, uid: int) -> None:
        if uid >= 0:
            self._users.append(uid)
        if self._mode not in _SANDBOXES:
            shutil.rmtree(self._folders / str(child_id), ignore_errors=True)

    async def _running(self) -> _Zygote:
        if self._zygote is not None and self._zygote.alive:
            return self._zygote
        async with self._starting:
            if self._closed:
                raise RuntimeUnavailableError("this launcher is closed")
            if self._zygote is None or not self._zygote.alive:
                self._zygote = await self._first_that_works()
        return self._zygote

    async def _first_that_works(self) -> _Zygote:
        """Start a zygote with the best isolation that the kernel grants, and say which and why."""
        refused: list[str] = []
        for mode in [self._mode] if self._mode else _modes(self._isolation):
            zygote = _Zygote()
            why = (
                self._out_of_reach(mode)
                or await zygote.start(self._python, self._setup(mode), await self._around(mode))
                or await self._try_out(zygote, mode)
            )
            if why is None:
                self._mode = mode
                self.isolation_text = "; ".join(filter(None, [_describe(mode, refused), zygote.lacks]))
                return zygote
            await zygote.close()
            refused.append(f"{mode}: {why}")
        raise RuntimeUnavailableError(
            f"can't run jobs under isolation {self._isolation}: {'; '.join(refused)}. "
            "Grant the right to make namespaces (root, or user namespaces), or set MILLHAND_ISOLATION to less."
        )

    async def _try_out(self, zygote: _Zygote, mode: str) -> str | None:
        """Run a child that does nothing; return why it didn't work."""
        self._own_users = mode in ("sandbox", "process") and os.geteuid() == 0
        self._users = deque(range(self._first_user, self._first_user + _N_USERS))
        child = self._new_child()
        await zygote.spawn(child, _limits(Spawn()))
        child.close_channel()
        exit_ = await child.ended()
        return exit_.lost or (None if exit_.code == 0 else f"a trial child ended with {exit_.code or exit_.signal}")

    def _out_of_reach(self, mode: str) -> str | None:
        """Say why users of their own can't run Python where no namespace shows it to them, or None where they can."""
        closed = closed_folder(self._python) if mode == "process" and os.geteuid() == 0 else None
        return closed and (
            f"each job is a user of its own, and Python lies in {closed}, which is closed to others: "
            f"`chmod o+x {closed}`, or use a Python that lies elsewhere"
        )

    async def _around(self, mode: str) -> list[str]:
        """Return what the zygote is started by, where it is not by us."""
        program = bubblewrap.find()
        if mode != "bubblewrap" or program is None:
            return []
        shown = [*self._readonly, *self._site_dirs]
        return await bubblewrap.wrapping(
            program, self._python, readonly=shown, hidden=self._hidden, folder=str(self._folders)
        )

    def _setup(self, mode: str) -> bytes:
        root = self._scratch / "root"
        for folder in (root, self._folders):
            folder.mkdir(parents=True, exist_ok=True)
        self._folders.chmod(0o711)
        return json.dumps({
            "mode": "process" if mode == "bubblewrap" else mode,
            "env": base_environment(),
            "root": str(root),
            "folders": str(self._folders),
            "site_dirs": self._site_dirs,
            "path_files": [path for path in self._site_dirs if any(Path(path).glob("*.pth"))],
            "readonly": self._readonly,
            "hidden": self._hidden,
            "preload": self._preload,
            "uids": (self._first_user, _N_USERS),
        }).encode()  # fmt: skip


class _Zygote:
    """One running zygote process: the socket to it, and which children it has."""

    def __init__(self) -> None:
        self.alive = False
        self.lacks = ""  # what its isolation falls short of, in words
        self._children: dict[int, Child] = {}
        self._channel, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, python: str, setup: bytes, around: Sequence[str] = ()) -> str | None:
        """Start the process and wait until it is ready; return why it refused, or None.

        around: the command that starts it, if that is not to be us.
        """
        with self._theirs as theirs:
            self._process = await asyncio.create_subprocess_exec(
                *around, python, "-I", "-S", str(_ZYGOTE), str(theirs.fileno()), pass_fds=[theirs.fileno()],
                env={"LC_ALL": "C.UTF-8", "LD_BIND_NOW": "1"},  # symbols are looked up once, not in each child
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self._channel.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await loop.sock_sendall(self._channel, setup)
                answer = msgspec.json.decode(await loop.sock_recv(self._channel, 65536), type=dict[str, object])
        except (OSError, TimeoutError, msgspec.DecodeError) as error:
            await self.close()
            if around:
                return f"{around[0]} can't be used; its stderr says why"
            raise RuntimeUnavailableError(
                f"the launcher of {python} did not start ({error!r}); its stderr says why"
            ) from error
        if "refused" in answer:
            return str(answer["refused"])
        self.lacks = str(answer.get("lacks") or "")
        self.alive = True
        loop.add_reader(self._channel.fileno(), self._receive)
        return None

    async def spawn(self, child: Child, limits: bytes) -> None:
        """Have a child forked."""
        theirs = child.open()
        try:
            await self._send(_REQUEST.pack(b"S", child.id, child.uid) + limits, theirs)
        except OSError as error:
            child.lose(f"its launcher died: {error}")
        else:
            self._children[child.id] = child
            child.launcher_pid = self._process.pid if self._process else 0
            child.on_signal = lambda number: self._signal(child.id, number)
        finally:
            for fd in set(theirs):
                os.close(fd)

    async def _send(self, message: bytes, fds: Iterable[int]) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        while True:
            try:
                self._channel.sendmsg([message], ancillary)
            except BlockingIOError:
                await _writable(self._channel.fileno())
            else:
                return

    def _signal(self, child_id: int, number: int) -> None:
        if child_id in self._children:
            with contextlib.suppress(OSError):  # it dies: then so do its children
                self._channel.send(_REQUEST.pack(b"K", child_id, number))

    def _receive(self) -> None:
        try:
            message = self._channel.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._lost()
        for child_id, status, number in _NEWS.iter_unpack(message):
            if status == _STARTED:
                self._children[child_id].pid = number
            else:
                self._children.pop(child_id).reaped(_exit(status, number))

    def _lost(self) -> None:
        self.alive = False
        asyncio.get_running_loop().remove_reader(self._channel.fileno())
        for child in self._children.values():
            child.lose("its launcher died")
        self._children.clear()

    async def close(self) -> None:
        if self.alive:
            self._lost()
        self._theirs.close()
        self._channel.close()  # it sees the end and takes its children along
        if self._process is not None:
            try:
                async with asyncio.timeout(5):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        loop.remove_writer(fd)
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(fd, wake)
    await ready


def _limits(spawn: Spawn, *, grouped: bool = False) -> bytes:
    """Return what a child may and how it is to begin, as children/child.py reads it."""
    limits = spawn.limits
    data_bytes = 0 if grouped else limits.memory_bytes or 0
    return _LIMITS.pack(
        limits.tmp_bytes, limits.processes, limits.open_files, data_bytes,
        limits.network, spawn.init, spawn.rehearse, bool(spawn.argv), grouped,
    )  # fmt: skip


def _program_frame(spawn: Spawn) -> bytes:
    """Return the first frame of a child that becomes a program: the length of a JSON object, the object, the files."""
    files = [(name, len(data)) for name, data in spawn.files.items()]
    order = msgspec.json.encode({"argv": spawn.argv, "env": spawn.env, "files": files})
    return encode(Frame.SPAWN, b"".join([len(order).to_bytes(4, "little"), order, *spawn.files.values()]))


def _exit(status: int, peak_kb: int) -> Exit:
    if status < 0:
        return Exit(lost=f"can't fork: {os.strerror(-status)}")
    if os.WIFSIGNALED(status):
        return Exit(signal=os.WTERMSIG(status), memory_peak_kb=peak_kb)
    return Exit(code=os.WEXITSTATUS(status), memory_peak_kb=peak_kb)


def _modes(isolation: Isolation) -> list[str]:
    """Return the modes of a zygote to try, best first."""
    if isolation in (Isolation.NONE, Isolation.PROCESS):
        return [str(isolation)]
    root = os.geteuid() == 0
    sandboxes = ["sandbox", "userns"] if root else ["userns"]
    if isolation is Isolation.REQUIRED:
        return sandboxes
    return [*sandboxes, "process"] if root or bubblewrap.find() is None else [*sandboxes, "bubblewrap", "process"]


def _describe(mode: str, refused: list[str]) -> str:
    name = "sandbox" if mode == "userns" else mode
    return name if not refused or mode == "userns" else f"{name}: {'; '.join(refused)}"


def _first_user() -> int:
    """Return the first of a range of user ids that nothing else uses, different for each host on a machine."""
    top = max((int(line.split()[0]) + int(line.split()[2]) for line in _lines("/proc/self/uid_map")), default=65536)
    if top > _FIRST_USER + _N_USERS * _N_RANGES:
        return _FIRST_USER + _N_USERS * secrets.randbelow(_N_RANGES)
    return 61_184  # a narrow map, as in rootless containers: the range that systemd keeps for such users


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def closed_folder(program: str) -> str | None:
    """Return the outermost folder on the way to a program that is closed to other users, or None."""
    for folder in reversed(Path(program).resolve().parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return str(folder)
    return None


__all__ = ["Child", "Exit", "Launcher", "Spawn", "base_environment"]
