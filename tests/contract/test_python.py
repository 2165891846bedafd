"""What is particular to Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from millhand.core.script import Language
from millhand.runtimes.contract import FailureKind, Limits, Success
from millhand.runtimes.registry import Runtimes
from tests.support import runs
from tests.support.runs import Ran

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def py(runtimes: Runtimes, code: str, args: dict[str, Any] | None = None, **more: Any) -> Ran:
    more.setdefault("lock", "")
    return await runs.run(runtimes.get(Language.PYTHON3), Language.PYTHON3, code, args, **more)


async def test_typed_arguments(runtimes):
    """Bytes come from base64, dates and times from their text, also in unions and annotations that are text."""
    code = """
from __future__ import annotations
import datetime
from datetime import date
def main(a: bytes, b: datetime.datetime, c: date | None, d: "date", e: str, f: list[bytes], g: bytes = b"x"):
    return [a == b"hi", b.isoformat(), str(c), str(d), e, f, g == b"x"]
"""
    args = {
        "a": "aGk=",
        "b": "2024-05-06T07:08:09Z",
        "c": "2024-05-06",
        "d": "06/05/2024",
        "e": "2024-05-06",
        "f": ["aGk="],
    }
    expected = [True, "2024-05-06T07:08:09+00:00", "2024-05-06", "2024-05-06", "2024-05-06", ["aGk="], True]
    assert (await py(runtimes, code, args)).result == expected


async def test_missing_and_unknown_arguments(runtimes):
    """What is missing has its default, else is None; what main doesn't know is left out; a shown default is no value."""
    code = "def main(a, b=2, *, c=3, d=4):\n    return [a, b, c, d]"
    assert (await py(runtimes, code, {"c": 30, "d": "<function call>", "e": 1})).result == [None, 2, 30, 4]


async def test_all_arguments(runtimes):
    """A main with ** takes all arguments; positional-only ones are found by name."""
    code = "def main(a, /, b, **rest):\n    return [a, b, rest]"
    assert (await py(runtimes, code, {"a": 1, "b": 2, "c": 3})).result == [1, 2, {"c": 3}]


async def test_callables_and_decorated_functions(runtimes):
    """A main may be decorated, or any callable."""
    decorated = """
import functools
def twice(function):
    @functools.wraps(function)
    def run(*args, **kwargs):
        return [function(*args, **kwargs)] * 2
    return run
@twice
def main(a: bytes):
    return len(a)
"""
    assert (await py(runtimes, decorated, {"a": "aGk="})).result == [2, 2]
    partial = "import functools\ndef add(a, b):\n    return a + b\nmain = functools.partial(add, b=1)"
    assert (await py(runtimes, partial, {"a": 1})).result == 2


async def test_another_entrypoint(runtimes):
    """Another function than main can be asked for."""
    assert (await py(runtimes, "def other(x):\n    return x", {"x": 1}, entrypoint="other")).result == 1


async def test_a_missing_main(runtimes):
    """A script without main fails and says what to write."""
    ran = await py(runtimes, "x = 1")
    assert ran.outcome.kind is FailureKind.ERROR
    assert "define one: def main()" in ran.error["message"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("float('nan')", None),
        ("[1.5, float('inf'), {'NaN': 'NaN'}]", [1.5, None, {"NaN": "NaN"}]),
        ("b'hi'", "aGk="),
        ("{1: 'a', None: 'b', True: 'c', (1, 2): 'd'}", {"1": "c", "null": "b", "(1, 2)": "d"}),
        ("{'a', }", ["a"]),
        ("datetime.datetime(2024, 5, 6, 7, 8)", "2024-05-06T07:08:00"),
        ("decimal.Decimal('1.10')", "1.10"),
        ("uuid.UUID(int=1)", "00000000-0000-0000-0000-000000000001"),
        ("Point(1, b'hi')", {"x": 1, "y": "aGk="}),
        ("Color.RED", "red"),
        ("pathlib.Path('/a')", "/a"),
        ("Frame()", [{"a": 1, "b": None}]),
        ("Array()", [1, [2]]),
        ("'a\\x00b\\ud800'", "ab?"),
        ("{'k\\x00': 'é'}", {"k": "é"}),
        ("range(3)", [0, 1, 2]),
        ("2 ** 70", 2**70),
        ("object.__doc__ and None", None),
    ],
)
async def test_results(runtimes, expression, expected):
    """Whatever main returns becomes the nearest JSON; numbers that JSON lacks become null, and only those."""
    code = f"""
import dataclasses, datetime, decimal, enum, pathlib, uuid
@dataclasses.dataclass
class Point:
    x: int
    y: bytes
class Color(enum.Enum):
    RED = "red"
class Frame:
    def to_dict(self, orient):
        return [{{"a": 1, "b": float("nan")}}]
class Array:
    def tolist(self):
        return [1, [2]]
def main():
    return {expression}
"""
    assert (await py(runtimes, code)).result == expected


async def test_a_result_that_contains_itself(runtimes):
    """A result without end fails with a clear error."""
    ran = await py(runtimes, "def main():\n    x = []\n    x.append(x)\n    return x")
    assert ran.error["name"] == "ValueError"


async def test_a_large_result(runtimes):
    """Arguments and results larger than a pipe go through."""
    text = "x" * 3_000_000
    assert (await py(runtimes, "def main(a):\n    return a", {"a": text})).result == text


async def test_an_async_main(runtimes):
    """A coroutine is awaited."""
    code = "import asyncio\nasync def main(x):\n    await asyncio.sleep(0)\n    return x"
    assert (await py(runtimes, code, {"x": 1})).result == 1


async def test_generators(runtimes):
    """Pieces of generators are streamed, text as it is, the rest as JSON; what they return is the result."""
    ran = await py(runtimes, "def main():\n    yield 'a'\n    yield {'b': 1}\n    return 'end'")
    assert (ran.pieces, ran.result) == (["a", '{"b":1}'], "end")
    ran = await py(runtimes, "async def main():\n    yield 'a'\n    yield b'b'")
    assert (ran.pieces, ran.result) == (["a", "b"], None)


async def test_errors(runtimes):
    """An error has name, message, the user's frames with their lines, and the exception's attributes."""
    code = """
class Refused(Exception):
    def __init__(self, message):
        super().__init__(message)
        self.code = 42
def inner():
    raise Refused("no such thing")
def main():
    inner()
"""
    ran = await py(runtimes, code, path="f/tools/refuse")
    assert (ran.error["name"], ran.error["message"], ran.error["extra"]) == ("Refused", "no such thing", {"code": 42})
    assert 'File "f/tools/refuse.py", line 9, in main\n    inner()' in ran.error["stack"]
    assert "python_main" not in ran.error["stack"]


async def test_a_syntax_error(runtimes):
    """A syntax error names the line."""
    ran = await py(runtimes, "def main(:\n    pass")
    assert ran.error["name"] == "SyntaxError"
    assert "def main(:" in ran.error["stack"]


async def test_exits(runtimes):
    """sys.exit(0) is a success without a result, another code a failure."""
    assert (await py(runtimes, "import sys\ndef main():\n    sys.exit()")).result is None
    assert (await py(runtimes, "def main():\n    exit(3)")).error["message"] == "exit code 3"


async def test_an_error_that_cannot_be_told(runtimes):
    """An exception whose text raises is still a failure with its name."""
    code = "class Odd(Exception):\n    def __str__(self):\n        raise RuntimeError\ndef main():\n    raise Odd"
    assert (await py(runtimes, code)).error["name"] == "Odd"


async def test_scripts_as_modules(runtimes):
    """A script imports others by path and relatively; their names follow their paths."""
    modules = {
        "f/tools/my-helper": "from .base import one\ndef two():\n    return one + 1",
        "f/tools/base": "one = 1",
        "u/admin/2nd": "three = 3",
    }
    code = """
from f.tools.my_helper import two
from .base import one
import u.admin._2nd
def main():
    return [one, two(), u.admin._2nd.three, __name__]
"""
    ran = await py(runtimes, code, path="f/tools/main-one", modules=modules)
    assert ran.result == [1, 2, 3, "f.tools.main_one"]


async def test_threads_and_exit_functions(runtimes):
    """A run waits for its threads, and runs what was registered for its end, before its result counts."""
    code = """
import atexit, threading, time
def main():
    atexit.register(print, "exit")
    threading.Thread(target=lambda: (time.sleep(0.05), print("thread"))).start()
    return 1
"""
    ran = await py(runtimes, code)
    assert (ran.result, ran.log) == (1, "thread\nexit\n")


async def test_broken_text_in_the_log(runtimes):
    """NULs are dropped and broken characters replaced; a character in two writes stays whole."""
    code = """
import os, time
def main():
    os.write(1, b"a\\x00b\\xff\\xc3")
    time.sleep(0.02)
    os.write(1, b"\\xa9\\n")
"""
    assert (await py(runtimes, code)).log == "ab\ufffdé\n"


async def test_multiprocessing(runtimes):
    """Worker processes and their semaphores work inside of a job."""
    code = "import multiprocessing as mp\ndef main():\n    with mp.get_context('fork').Pool(2) as pool:\n        return pool.map(abs, [-1, -2])"
    assert (await py(runtimes, code)).result == [1, 2]


async def test_a_forked_process_ends_at_term(runtimes):
    """Also at one that comes while it is being forked; what the job catches itself, it catches."""
    code = """
import os, signal, time
def main():
    ends = set()
    for _ in range(300):
        pid = os.fork()
        if pid == 0:
            time.sleep(100)
        os.kill(pid, signal.SIGTERM)
        ends.add(os.waitpid(pid, 0)[1])
    signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(tell, b"x")
        time.sleep(100)
    os.read(ready, 1)
    os.kill(pid, signal.SIGTERM)
    own = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return [sorted(ends), own, signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
"""
    assert (await py(runtimes, code)).result == [[15], 7, False]


async def test_no_module_of_ours_is_in_the_way(runtimes):
    """A job that imports a module finds it, or doesn't: nothing of ours stands in for it."""
    code = """
import os, sys
def main():
    own = set(os.listdir(os.path.dirname(sys.modules["bash_main"].__file__)))
    found = []
    for name in sorted({file.removesuffix(".py") for file in own if file.endswith(".py")} - {"bash_main"}):
        try:
            found.append(__import__(name).__name__)
        except ImportError:
            pass
    return [len(own) > 5, found]
"""
    assert (await py(runtimes, code)).result == [True, []]


async def test_jobs_start_alike(runtimes):
    """Two jobs get different random numbers, and the same empty surroundings."""
    code = "import os, random, tempfile\ndef main():\n    return [random.random(), os.listdir('.'), tempfile.gettempdir(), os.getcwd()]"
    first, second = (await py(runtimes, code)).result, (await py(runtimes, code)).result
    assert first[0] != second[0]
    assert first[1:] == second[1:] == [[], "/tmp", "/tmp/job"]


async def test_packages(runtimes, tmp_path: Path):
    """A script with a third-party import runs in the environment of its lock, also in processes that it starts."""
    code = """
import subprocess, sys, iniconfig
def main():
    again = [sys.executable, "-c", "import iniconfig; print('found', flush=True)"]
    subprocess.run(again, check=True)
    return iniconfig.__name__
"""
    ran = await py(runtimes, code, lock=None)
    assert ran.result == "iniconfig"
    assert "found\n" in ran.log


async def test_limits_have_their_own_children(runtimes):
    """A run under other limits than usual gets a child made for them."""
    code = "import resource\ndef main():\n    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]"
    assert (await py(runtimes, code, limits=Limits(open_files=77))).result == 77
    assert isinstance((await py(runtimes, code)).outcome, Success)


async def test_the_environment_reaches_everything(runtimes):
    """`os.environ`, the C library and programs that a job starts see the same variables, also after changes."""
    code = """
import ctypes, os, subprocess
def main():
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    shell = lambda: subprocess.run(["sh", "-c", "echo $WM_WORKSPACE,$OWN,$HOME"], capture_output=True, text=True).stdout.strip()
    before = [os.environ["WM_WORKSPACE"], getenv(b"WM_WORKSPACE").decode(), getenv(b"HOME").decode(), shell()]
    os.environ["OWN"] = "é"
    del os.environ["WM_WORKSPACE"]
    return [*before, getenv(b"OWN").decode(), getenv(b"WM_WORKSPACE"), shell(), "WM_JOB_ID" in os.environ]
"""
    ran = await py(runtimes, code, env={"WM_WORKSPACE": "größe", "EMPTY": ""})
    assert ran.result == ["größe", "größe", "/tmp", "größe,,/tmp", "é", None, ",é,/tmp", False]


async def test_the_environment_however_it_is_read_first(runtimes):
    """It is whole for whoever reads it first, by whatever name and way."""
    first = [
        "os.environ['A']",
        "os.environb[b'A'].decode()",
        "os.getenv('A')",
        "dict(os.environ)['A']",
        "(os.environ | {})['A']",
    ]
    first += [
        "[v for n, v in os.environ.items() if n == 'A'][0]",
        "os.environ.pop('A')",
        "os.environ.setdefault('A', 'x')",
    ]
    first += ["subprocess.run(['sh', '-c', 'echo $A'], env=os.environ, capture_output=True, text=True).stdout.strip()"]
    for words in first:
        code = f"import os, subprocess\ndef main():\n    return [{words}, type(os.environ) is type(os.environb), 'HOME' in os.environ]"
        assert (await py(runtimes, code, env={"A": "b=c", "B": ""})).result == ["b=c", True, True]
    changed = "import os\ndef main():\n    os.environ['B'] = 'd'\n    return [os.environ['A'], os.environ['B'], len(os.environ)]"
    whole = "import os\ndef main():\n    return len(os.environ)"
    n_variables = (await py(runtimes, whole, env={"A": "a", "B": ""})).result
    assert (await py(runtimes, changed, env={"A": "a", "B": ""})).result == ["a", "d", n_variables]


async def test_a_known_variable_can_be_given_anew(runtimes):
    """A job's own PATH stands in place of the usual one, not beside it."""
    code = "import os, subprocess\ndef main():\n    return [os.environ['PATH'], subprocess.check_output('/usr/bin/env', text=True)]"
    path, listed = (await py(runtimes, code, env={"PATH": "/bin", "A": "a"})).result
    assert path == "/bin"
    assert sorted(line for line in listed.splitlines() if line.startswith(("PATH=", "A="))) == ["A=a", "PATH=/bin"]


async def test_chance_is_not_the_same_for_all(runtimes):
    """Jobs forked from one process draw different numbers."""
    code = "import random, uuid\ndef main():\n    return [random.random(), str(uuid.uuid4())]"
    drawn = [(await py(runtimes, code)).result for _ in range(3)]
    assert len({number for number, _ in drawn}) == len({text for _, text in drawn}) == 3


async def test_thousands_of_variables(runtimes):
    """An environment of any size arrives whole."""
    code = "import os\ndef main():\n    return [os.environ['V4999'], len([n for n in os.environ if n[0] == 'V'])]"
    ran = await py(runtimes, code, env={f"V{number}": f"value {number}" for number in range(5000)})
    assert ran.result == ["value 4999", 5000]


async def test_the_byte_code_of_the_last_run(runtimes):
    """A script that comes again runs from byte-code, with the same result, name and lines in its errors."""
    code = "def main(x: int):\n    if x > 2:\n        raise ValueError(__name__)\n    return x\n"
    for x in (0, 1, 2):
        assert (await py(runtimes, code, {"x": x}, path="f/some/again")).result == x
    error = (await py(runtimes, code, {"x": 3}, path="f/some/again")).error
    assert error["message"] == "f.some.again"
    assert 'File "f/some/again.py", line 3, in main' in error["stack"]
    assert "raise ValueError(__name__)" in error["stack"]
    changed = code.replace("return x", "return -x")
    assert [(await py(runtimes, changed, {"x": 1}, path="f/some/again")).result for _ in range(3)] == [-1, -1, -1]


async def test_byte_code_can_not_be_passed_off(runtimes):
    """What a job writes to the protocol's descriptor is never taken for the byte-code of its script."""
    code = """
import marshal, os, struct
def main(forge: bool):
    if forge:
        other = marshal.dumps(compile("def main(forge): return 'forged'", "x.py", "exec"))
        os.write(4, struct.pack("<IB", len(other) + 1, ord("K")) + other)
    return "mine"
"""
    assert [(await py(runtimes, code, {"forge": forge})).result for forge in (True, True, True, False)] == ["mine"] * 4


async def test_methods_as_main(runtimes):
    """A bound method is called by the names of its parameters, defaults and all."""
    code = """
class Shop:
    def sell(self, what, /, n=2, *, price=1.5):
        return [what, n, price]
main = Shop().sell
"""
    assert (await py(runtimes, code, {"what": "tea"})).result == ["tea", 2, 1.5]
    assert (await py(runtimes, code, {"what": "tea", "n": 3, "price": 2})).result == ["tea", 3, 2]
