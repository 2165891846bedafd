"""Runs one Python job in the process it is in: waits for the job's frame, calls its function, answers, exits."""

import _signal
import _thread
import atexit
import builtins
import ctypes
import gc
import io
import json
import marshal
import os
import resource
import select
import struct
import sys

import convert
from child import IN, frame, read_frame, write, write_frame
from environment import Environment

LENGTHS = struct.Struct("<IIII?")  # how many variables come with their places; the lengths of environment, byte-code,
# source; whether to send the byte-code. What follows: places, environment, byte-code, source, and JSON.
FOREIGN_ARGUMENT = "<function call>"  # how clients write a default they can't show; stands for "not given"
MAX_RESULT_BYTES = 500 << 20
_CODE = "def main(x: int = 1, *, y=2): return {1: [x, 1.5, str(y)]}"
_REST = b'{"path": null, "args": {"x": 1}, "entrypoint": null, "modules": {}}'
_ENV = b"".join([b"WM_%02d=value\0" % number for number in range(25)])
_BEGINNINGS = b"".join([(number * len(_ENV) // 25).to_bytes(4, "little") for number in range(25)])
REHEARSAL = LENGTHS.pack(25, len(_ENV), 0, len(_CODE), False) + _BEGINNINGS + _ENV + _CODE.encode() + _REST
_PLACES = [struct.Struct("<%dI" % number) for number in range(40)]  # of as many variables as most jobs have
GENERATOR = type(each for each in ())
_pid = [0]  # of the job, once there is one
_answered = []  # anything, once the job's function has returned or raised


class Script:
    """A script's source as a module; also the loader of that module, so that tracebacks show its lines."""

    def __init__(self, path, source, compiled=b""):
        self.source, self.compiled = source, compiled
        self.name = module_name(path) if path else "script"
        self.filename = (path or "script") + ".py"

    def get_source(self, _name):
        return self.source

    def create_module(self, _spec):
        return None

    def exec_module(self, module):
        module.__file__ = os.getcwd() + "/" + self.filename
        exec(self.code(), module.__dict__)

    def code(self):
        """Return the byte-code, compiled now where it wasn't before."""
        if self.compiled:
            return marshal.loads(self.compiled)
        return compile(self.source, self.filename, "exec", dont_inherit=True)

    def load(self):
        module = type(sys)(self.name)
        module.__loader__ = self
        module.__package__ = self.name.rpartition(".")[0]
        sys.modules[self.name] = module
        self.exec_module(module)
        return module


class ScriptFinder:
    """Finds other scripts as modules: `from f.folder.name import x`."""

    def __init__(self, sources):
        self.scripts = {module_name(path): Script(path, source) for path, source in sources.items()}
        self.packages = {"f", "u"}
        for name in self.scripts:
            while "." in name:
                name = name.rpartition(".")[0]
                self.packages.add(name)

    def find_spec(self, name, _path=None, _target=None):
        from _frozen_importlib import ModuleSpec

        if name in self.scripts:
            return ModuleSpec(name, self.scripts[name], origin=self.scripts[name].filename)
        if name in self.packages:
            return ModuleSpec(name, None, is_package=True)
        return None


def module_name(path):
    """Return the name under which a script is imported: f/folder/my-script → f.folder.my_script."""
    parts = []
    for part in path.split("/"):
        word = "".join(char if char.isalnum() or char == "_" else "_" for char in part)
        parts.append("_" + word if word[:1].isdigit() else word)
    return ".".join(parts)


class Server:
    """Runs the job that comes next. Made in the zygote, so that what needs no job is done once and not in each child.

    A page that a child is the first to write to costs it microseconds: nothing is imported or made here without need.
    """

    def __init__(self, path_files):
        self.path_files = path_files  # folders of packages with .pth files
        self.environment = Environment()
        self.channel = select.poll()
        self.channel.register(IN, select.POLLIN)
        sys.stdout = sys.__stdout__ = _unbuffered(1, "<stdout>", "strict")
        sys.stderr = sys.__stderr__ = _unbuffered(2, "<stderr>", "backslashreplace")
        sys.modules["__main__"] = type(sys)("__main__")
        builtins.exit = builtins.quit = sys.exit
        builtins.print = _printer(builtins.print)
        _signal.signal(_signal.SIGTERM, _terminate)
        _default_end_for_forks()
        for _ in range(20):  # the interpreter adapts its byte-code now, not in each child
            self._rehearse()

    def serve(self, may_rehearse, folder):
        """Run one job and end the process. folder: whether it has one of its own in place of /tmp."""
        if folder:
            self.environment.look_again()
        gc.enable()
        _pid[0] = os.getpid()
        if may_rehearse and not self.channel.poll(0):
            self._rehearse()  # while nobody waits: the job then finds the pages it writes to as its own
        payload = read_frame(ord("J"))
        if payload is None:
            os._exit(0)
        kind, answer = self._answer(payload)
        _answered.append(True)
        _flush()
        if len(answer) > MAX_RESULT_BYTES:
            kind, answer = "X", _too_large(len(answer))
        _deliver(kind, answer)

    def _answer(self, payload):
        try:
            job = self._unpack(payload)
            for folder in self.path_files:
                __import__("site").addsitedir(folder)
            answer = _run(job)
            _finish()
        except BaseException as error:
            return _failed(error)
        return "V", answer

    def _unpack(self, payload):
        n_variables, n_env, n_compiled, n_code, wanted = LENGTHS.unpack_from(payload)
        env_start = LENGTHS.size + 4 * n_variables
        env_end = env_start + n_env
        compiled_end = env_end + n_compiled
        code_end = compiled_end + n_code
        self.environment.add(
            payload[env_start:env_end], struct.unpack_from("<%dI" % n_variables, payload, LENGTHS.size)
        )
        job = convert.from_json(payload[code_end:])
        source = payload[compiled_end:code_end].decode()
        job["script"] = script = Script(job["path"], source, payload[env_end:compiled_end])
        if wanted:
            script.compiled = marshal.dumps(script.code())
            write_frame("K", script.compiled)
        return job

    def _rehearse(self):
        """Run a job that does nothing."""
        _run(self._unpack(REHEARSAL))
        _peak_kb()
        self.environment.restore()
        del sys.modules["script"]
        sys.argv = [""]


def _places(number):
    return _PLACES[number] if number < len(_PLACES) else struct.Struct("<%dI" % number)


def _unbuffered(fd, name, errors):
    raw = io.FileIO(fd, "w", closefd=False)
    raw.name = name
    return io.TextIOWrapper(raw, "utf-8", errors, newline="\n", write_through=True)


def _printer(write_pieces):
    """Return a `print` that writes once: the built-in writes each value, space and line end alone, and each wakes the host."""

    def print(*values, sep=" ", end="\n", file=None, flush=False):
        out = sys.stdout if file is None else file
        if out is not sys.__stdout__ and out is not sys.__stderr__ or not (type(sep) is type(end) is str):
            return write_pieces(*values, sep=sep, end=end, file=file, flush=flush)
        out.write(sep.join([str(value) for value in values]) + end)

    print.__doc__ = write_pieces.__doc__
    return print


def _terminate(_number, _frame):
    """Somebody wants the job to end: let `finally` blocks run, in subprocesses too."""
    if _answered:
        return
    if os.getpid() == 1:
        try:
            os.kill(-1, _signal.SIGTERM)
        except ProcessLookupError:
            pass
    raise SystemExit(143)


def _default_end_for_forks():
    """Have processes that a job forks end at TERM as any other does, at once.

    A handler in Python runs between two steps of its code: a process that is about to wait for ever would do so. And Python
    forgets a signal that comes while it forks. A pool that is closed as soon as it was made then waits for its workers.
    """
    masks = {}  # by thread

    def before():
        if _pid[0]:
            masks[_thread.get_ident()] = _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGTERM])

    def after_in_child():
        if _pid[0] and _signal.getsignal(_signal.SIGTERM) is _terminate:
            _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
        after()

    def after():
        if _pid[0]:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, masks.pop(_thread.get_ident()))

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=after_in_child)


def _run(job):
    """Import the script, call its function, return the result as JSON."""
    sys.argv = [job["path"] or "script"]
    if job["modules"]:
        sys.meta_path.append(ScriptFinder(job["modules"]))
    module = job["script"].load()
    name = job["entrypoint"] or "main"
    function = getattr(module, name, None)
    if not callable(function):
        raise MissingFunction("the script has no function %s; define one: def %s(): ..." % (name, name))
    given = job["args"]
    if FOREIGN_ARGUMENT in given.values():
        given = {key: value for key, value in given.items() if value != FOREIGN_ARGUMENT}
    positional, named = convert.arguments(function, given)
    return convert.to_json(_drain(function(*positional, **named)))


class MissingFunction(Exception):
    """The script lacks the function to be called."""


def _drain(result):
    """Await what is awaitable, send the pieces of a generator; return the value in the end."""
    if isinstance(result, GENERATOR):
        while True:
            try:
                piece = next(result)
            except StopIteration as stop:
                return stop.value
            _send_piece(piece)
    if hasattr(result, "__aiter__"):
        return __import__("asyncio").run(_drain_async(result))
    if hasattr(result, "__await__"):
        return __import__("asyncio").run(_await(result))
    return result


async def _await(result):
    value = await result
    return await _drain_async(value) if hasattr(value, "__aiter__") else value


async def _drain_async(pieces):
    async for piece in pieces:
        _send_piece(piece)


def _send_piece(piece):
    if isinstance(piece, str):
        data = convert.without_nul(piece).encode("utf-8", "replace")
    else:
        data = bytes(piece) if isinstance(piece, (bytes, bytearray)) else convert.to_json(piece)
    write_frame("C", data)


def _finish():
    """End as an interpreter ends: wait for threads, run what was registered for the exit."""
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()


def _flush():
    """Have everything written that was printed: our own streams have, what a job put in their place may not."""
    for stream, ours in ((sys.stdout, sys.__stdout__), (sys.stderr, sys.__stderr__)):
        if stream is not ours:
            try:
                stream.flush()
            except Exception:
                pass  # closed, or no stream at all


def _peak_kb():
    """Return the most memory that this process or one it waited for has used. The module `resource` has more to say, and to touch."""
    peak = 0
    for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        _getrusage(whose, _usage)
        peak = max(peak, _usage[_MAXRSS])
    return peak


_getrusage = ctypes.PyDLL(None).getrusage
_usage = (ctypes.c_long * 36)()  # struct rusage, and room for a longer one
_MAXRSS = 4  # after two times of two words each


def _deliver(kind, answer):
    """Send the answer and end."""
    try:
        write(frame("M", b"%d" % _peak_kb()) + frame(kind, answer))
    except OSError as error:
        os.write(2, ("the result can't be delivered: the job closed descriptor 4 (%s)\n" % error).encode())
        os._exit(1)
    os._exit(0 if kind == "V" else 1)


def _failed(error):
    """Return the answer for a job that raised."""
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return "V", b"null"
    try:
        return "X", _describe(error)
    except BaseException as worse:  # no memory left, or a __str__ that raises
        return "X", json.dumps(
            {"name": type(error).__name__, "message": type(worse).__name__ + " while describing it"}
        ).encode()


def _describe(error):
    import traceback

    report = traceback.TracebackException.from_exception(error)
    _only_user_frames(report, set(), traceback.StackSummary)
    if isinstance(error, SystemExit):
        message = "exit code %s" % (error.code,)
    else:
        message = str(error)
    stack = "" if isinstance(error, MissingFunction) else "".join(report.format())
    fields = {"name": type(error).__name__, "message": message, "stack": stack}
    extra = {key: value for key, value in getattr(error, "__dict__", {}).items() if not key.startswith("_")}
    if extra:
        fields["extra"] = extra
    return convert.to_json(fields)


def _only_user_frames(report, seen, summary):
    if report is None or id(report) in seen:
        return
    seen.add(id(report))
    ours = os.path.dirname(__file__)
    kept = [frame for frame in report.stack if os.path.dirname(frame.filename) != ours]
    report.stack = summary.from_list(kept)
    _only_user_frames(report.__cause__, seen, summary)
    _only_user_frames(report.__context__, seen, summary)


def _too_large(size):
    return json.dumps(
        {
            "name": "ResultTooLarge",
            "message": "the result has %d bytes of JSON; at most %d are allowed: write it to a file or a bucket"
            % (size, MAX_RESULT_BYTES),
        }
    ).encode()
