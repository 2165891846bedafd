"""What is particular to TypeScript, on Bun and on Deno alike."""

from __future__ import annotations

import pytest

from millhand.core.errors import RuntimeUnavailableError
from millhand.core.script import Language
from millhand.runtimes.contract import FailureKind, Limits, Stopped
from millhand.runtimes.registry import Runtimes
from tests.support import runs
from tests.support.runs import Ran

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(params=[Language.BUN, Language.DENO])
def language(request, runtimes):
    """Return each of the two languages."""
    try:
        runtimes.get(request.param)
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))
    return request.param


async def ts(runtimes: Runtimes, language: Language, code: str, args: dict[str, object] | None = None, **more) -> Ran:
    return await runs.run(runtimes.get(language), language, code, args, **more)


async def test_arguments_go_by_the_order_of_the_signature(runtimes, language):
    """Arguments are found by name; missing ones take their default, null stays null."""
    code = "export function main(b: string, a = 'default', c?: number) { return [b, a, c === null, c === undefined] }"
    ran = await ts(runtimes, language, code, {"c": None, "b": "B", "unknown": 1})
    assert ran.result == ["B", "default", True, False]


async def test_dates_are_dates(runtimes, language):
    """A parameter of type Date is one; it comes back as ISO text."""
    code = "export function main(at: Date) { return [at.getUTCFullYear(), at] }"
    assert (await ts(runtimes, language, code, {"at": "2024-05-06T07:08:09Z"})).result == [
        2024,
        "2024-05-06T07:08:09.000Z",
    ]


async def test_values_without_json_become_the_nearest(runtimes, language):
    """Big integers become text, not-a-number null, undefined is left out."""
    code = "export const main = () => ({ big: 2n ** 70n, nan: NaN, missing: undefined })"
    assert (await ts(runtimes, language, code)).result == {"big": str(2**70), "nan": None}


async def test_returning_nothing_is_null(runtimes, language):
    """A function without a result has the result null."""
    assert (await ts(runtimes, language, "export async function main() {}")).result is None


async def test_both_streams_are_logged_in_order(runtimes, language):
    """What goes to stdout and stderr is logged, in the order in which it was written."""
    ran = await ts(
        runtimes, language, "export function main() { console.log('one'); console.error('two'); console.log('three') }"
    )
    assert ran.log == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    "write", ["console.log(text)", "process.stdout.write(text + '\\n')", "process.stderr.write(text + '\\n')"]
)
async def test_no_output_is_lost(runtimes, language, write):
    """Far more than a pipe holds, written just before the end, is all in the log."""
    code = f"""import process from 'node:process';
export function main(text: string) {{ {write}; console.log('end'); }}"""
    ran = await ts(runtimes, language, code, {"text": "x" * 2_000_000})
    assert ran.result is None
    assert len(ran.log) == 2_000_005
    assert ran.log.endswith("x\nend\n")


async def test_errors_have_user_frames_only(runtimes, language):
    """An error has name, message, its own properties, and a stack that names the script and none of our files."""
    code = """
class Refused extends Error {
  code = 7;
  constructor(message: string) { super(message); this.name = "Refused" }
}
function inner() { throw new Refused("not today") }
export function main() { inner() }
"""
    error = (await ts(runtimes, language, code, path="f/folder/script")).error
    assert (error["name"], error["message"], error["extra"]) == ("Refused", "not today", {"code": 7})
    assert "inner (f/folder/script.ts:6:" in error["stack"]
    assert "serve.ts" not in error["stack"]
    assert "_main.ts" not in error["stack"]


async def test_thrown_text_is_the_message(runtimes, language):
    """What is thrown without being an error becomes the message of one."""
    assert (await ts(runtimes, language, "export function main() { throw 'no' }")).error["message"] == "no"


async def test_errors_outside_of_main_fail_the_job(runtimes, language):
    """A rejected promise that nobody awaits fails the job with its error."""
    code = "export async function main() { Promise.reject(new Error('lost')); await new Promise((go) => setTimeout(go, 60_000)) }"
    assert (await ts(runtimes, language, code)).error["message"] == "lost"


async def test_a_promise_that_nothing_settles_fails_the_job(runtimes, language):
    """A function that waits for nothing doesn't hang: the process ends, and the error says what that means."""
    ran = await ts(runtimes, language, "export async function main() { await new Promise(() => {}) }")
    assert "ended before its main function returned" in ran.error["message"]


async def test_an_exit_code_fails_the_job(runtimes, language):
    """A script that exits by itself has no result."""
    exit_ = "process.exit(3)" if language is Language.BUN else "Deno.exit(3)"
    assert (await ts(runtimes, language, f"export function main() {{ {exit_} }}")).error["exit_code"] == 3


async def test_syntax_errors_have_their_line(runtimes, language):
    """Code that can't be read fails with the line."""
    error = (await ts(runtimes, language, "const a = 1;\nexport function main( { return }")).error
    assert "line 2" in error["message"] or ":2:" in error["message"]


async def test_a_missing_main_is_told(runtimes, language):
    """A script without the function that should run says which one it lacks."""
    assert "no function main" in (await ts(runtimes, language, "export function other() {}")).error["message"]


async def test_another_entrypoint(runtimes, language):
    """Another function than main can be run."""
    code = "export function main() { return 1 }\nexport function other(x: number) { return x }"
    assert (await ts(runtimes, language, code, {"x": 2}, entrypoint="other")).result == 2


async def test_scripts_import_each_other(runtimes, language):
    """Relative and absolute script paths resolve, with and without .ts."""
    code = """
import { near } from "./near.ts";
import { bare } from "./near";
import { far } from "/f/other/far.ts";
import { up } from "../other/far";
export const main = () => [near, bare, far, up];
"""
    modules = {
        "f/folder/near": 'import { far } from "../other/far.ts"; export const near = 1 + far; export const bare = "b";',
        "f/other/far": "export const far = 10, up = 20;",
    }
    assert (await ts(runtimes, language, code, path="f/folder/script", modules=modules)).result == [11, "b", 10, 20]


async def test_npm_packages(runtimes, language):
    """An imported package is locked, installed and found; a second run uses what is there."""
    name = "is-number@7.0.0" if language is Language.BUN else "npm:is-number@7.0.0"
    code = f"import isNumber from '{name}';\nexport const main = (x: any) => isNumber(x);"
    first = await ts(runtimes, language, code, {"x": 5})
    heard = runs.Heard()
    lock = await runtimes.get(language).lock(runs.execution(language, code), heard)
    second = await ts(runtimes, language, code, {"x": "five"}, lock=lock, path="f/folder/script")
    assert (first.result, second.result, second.log) == (True, False, "")
    assert "is-number" in lock


async def test_generators_stream(runtimes, language):
    """The pieces of a generator go to the result stream as they come; what it returns is the result."""
    code = "export async function* main() { yield 'one '; yield { two: 2 }; return 'end' }"
    ran = await ts(runtimes, language, code)
    assert (ran.pieces, ran.result) == (["one ", '{"two":2}'], "end")


async def test_readable_streams_stream(runtimes, language):
    """Bytes of a stream are decoded across their pieces."""
    code = """export const main = () => new ReadableStream({ start(to) {
  to.enqueue(new Uint8Array([0x61, 0xc3])); to.enqueue(new Uint8Array([0xa9])); to.close();
} })"""
    ran = await ts(runtimes, language, code)
    assert ("".join(ran.pieces), ran.result) == ("aé", None)


async def test_large_values_go_both_ways(runtimes, language):
    """Values far larger than a pipe holds come through."""
    ran = await ts(runtimes, language, "export const main = (text: string) => text + text", {"text": "x" * 3_000_000})
    assert len(ran.result) == 6_000_000


async def test_the_environment_is_the_jobs(runtimes, language):
    """The script sees the job's variables and none of the worker's."""
    code = "import process from 'node:process';\nexport const main = () => [process.env.WM_WORKSPACE, process.env.DATABASE_URL ?? null]"
    assert (await ts(runtimes, language, code)).result == ["main", None]


async def test_an_endless_loop_can_be_stopped(runtimes, language):
    """Code that never yields ends when the job is canceled."""
    code = "export function main() { console.log('ready'); while (true); }"
    ran = await runs.run_and_stop(runtimes.get(language), language, code, after="ready")
    assert isinstance(ran.outcome, Stopped)


async def test_garbage_on_the_channel_is_told(runtimes, language):
    """Who writes to the descriptor of the result gets a clear failure."""
    write = "fs.writeSync(4, 'garbage garbage')"
    if language is Language.DENO:
        write = "fs.writeSync(fs.openSync('/proc/self/fd/4', 'w'), 'garbage garbage')"
    ran = await ts(runtimes, language, f"import fs from 'node:fs';\nexport const main = () => {{ {write} }}")
    assert ran.outcome.kind is FailureKind.PROTOCOL


async def test_running_out_of_memory_is_told(runtimes, language):
    """A script over its memory limit is ended and labelled as such."""
    code = "export function main() { const all = []; while (true) all.push(new Array(1e6).fill(1.5)) }"
    ran = await ts(runtimes, language, code, limits=Limits(memory_bytes=300 << 20))
    assert ran.outcome.kind is FailureKind.OOM


async def test_nativets_runs_on_bun(runtimes):
    """Native TypeScript runs, fetch and all, under its own name."""
    try:
        runtime = runtimes.get(Language.NATIVETS)
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))
    ran = await runs.run(runtime, Language.NATIVETS, "export const main = (n: number) => [n, typeof fetch]", {"n": 1})
    assert ran.result == [1, "function"]
