"""What is particular to Go."""

from __future__ import annotations

import asyncio

import pytest

from millhand.core.errors import RuntimeUnavailableError
from millhand.core.script import Language
from millhand.runtimes.contract import Stopped
from tests.support import runs

# The first compilation anywhere includes the standard library: up to a minute on a busy machine.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]


@pytest.fixture
def go(runtimes):
    """Return a function that runs Go code."""
    try:
        runtime = runtimes.get(Language.GO)
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))

    async def run(code: str, **args: object) -> runs.Ran:
        return await runs.run(runtime, Language.GO, code, args)

    return run


@pytest.fixture
def runtime(runtimes, go):
    """Return the runtime of Go."""
    return runtimes.get(Language.GO)


async def test_arguments_and_result(go):
    """Arguments are read into the parameters' types, structs included; the result is written as JSON."""
    code = """package inner
type Point struct { X int `json:"x"` }
func main(name string, point Point, list []float64, missing *int) (map[string]any, error) {
	return map[string]any{"name": name, "x": point.X, "n": len(list), "missing": missing == nil}, nil
}
"""
    ran = await go(code, name="a", point={"x": 3}, list=[1, 2.5])
    assert ran.result == {"name": "a", "x": 3, "n": 2, "missing": True}


async def test_any_package_name_will_do(go):
    """A script may call its package main, and import the standard library."""
    code = 'package main\nimport (\n\t"fmt"\n\t"os"\n)\nfunc main() string {\n\tfmt.Println("hi")\n\treturn os.Getenv("WM_WORKSPACE")\n}\n'
    ran = await go(code)
    assert (ran.result, ran.log) == ("main", "hi\n")


async def test_several_results_are_a_list(go):
    """Results besides the error come as a list, no result as null."""
    assert (await go('package inner\nfunc main() (int, string, error) { return 1, "two", nil }\n')).result == [1, "two"]
    assert (await go("package inner\nfunc main() {}\n")).result is None


async def test_a_returned_error_fails_the_job(go):
    """The last result, of type error, is the job's error."""
    code = 'package inner\nimport "errors"\nfunc main() (int, error) { return 0, errors.New("no luck") }\n'
    assert (await go(code)).error == {"name": "Error", "message": "no luck"}


async def test_a_panic_has_user_frames(go):
    """A panic fails the job with the places in the script that led there."""
    code = "package inner\nfunc pick(list []int) int {\n\treturn list[5]\n}\nfunc main() int { return pick(nil) }\n"
    error = (await go(code)).error
    assert (error["name"], "index out of range" in error["message"]) == ("panic", True)
    assert "inner/main.go:3" in error["stack"]
    assert "go_main" not in error["stack"]


async def test_an_argument_of_the_wrong_type_is_told(go):
    """An argument that doesn't fit its parameter is named."""
    assert "argument n" in (await go("package inner\nfunc main(n int) int { return n }\n", n="x")).error["message"]


async def test_compile_errors_are_told(runtime):
    """What the compiler says is the error, with the script's line numbers."""
    said = await runs.lock_error(runtime, Language.GO, "package inner\n\nfunc main() int { return missing }\n")
    assert "inner/main.go:3:" in said
    assert "undefined: missing" in said


async def test_a_missing_main_is_told(go):
    """A script without main says so."""
    assert "no function main" in (await go("package inner\nfunc other() {}\n")).error["message"]


async def test_an_exit_code_fails_the_job(go):
    """A script that exits by itself has no result."""
    assert (await go('package inner\nimport "os"\nfunc main() { os.Exit(4) }\n')).error["exit_code"] == 4


async def test_a_second_run_does_not_compile(runtime):
    """One binary serves all runs of the same code, also when several ask for it at once."""
    code = "package inner\nfunc main(n int) int { return n * 3 }\n"
    ran = await asyncio.gather(*(runs.run(runtime, Language.GO, code, {"n": n}) for n in range(4)))
    assert [one.result for one in ran] == [0, 3, 6, 9]
    assert len({one.log for one in ran}) == 1


async def test_it_can_be_stopped(runtime):
    """A running binary ends when its job is canceled."""
    code = 'package inner\nimport "time"\nfunc main() { println("ready"); time.Sleep(time.Hour) }\n'
    assert isinstance((await runs.run_and_stop(runtime, Language.GO, code, after="ready")).outcome, Stopped)
