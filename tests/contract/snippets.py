"""The same small jobs in every language, for the tests that hold for all of them."""

from __future__ import annotations

from typing import Any

import msgspec

from millhand.core.script import Language


class Snippets(msgspec.Struct, frozen=True, kw_only=True):
    """One language's way to do what every language can."""

    add: str  # takes `a` and `b`, returns a + b
    sum: Any = 3  # of 1 and 2, as `add` returns it
    say: str  # writes the lines "one", "two", "three", the second to stderr
    fail: str  # fails with the message "no luck"
    wait: str  # says "ready", then waits for an hour
    environment: str  # returns the value of WM_WORKSPACE
    workspace: Any = "main"  # as `environment` returns it
    stream: str | None = None  # streams "a" and "b"; None where the language can't
    exit: str | None = None  # ends its process with code 5
    escape: str | None = (
        None  # starts a process in a session of its own that sleeps for the seconds in `a`, and returns
    )


PYTHON = Snippets(
    add="def main(a: int, b: int):\n    return a + b",
    say="import sys\ndef main():\n    print('one')\n    print('two', file=sys.stderr)\n    print('three')",
    fail="def main():\n    raise ValueError('no luck')",
    wait="import time\ndef main():\n    print('ready')\n    time.sleep(3600)",
    environment="import os\ndef main():\n    return os.environ['WM_WORKSPACE']",
    stream="def main():\n    yield 'a'\n    yield 'b'",
    exit="import os\ndef main():\n    os._exit(5)",
    escape="import subprocess\ndef main(a: float):\n    subprocess.Popen(['sleep', str(a)], start_new_session=True)",
)

BASH = Snippets(
    add='a="$1"\nb="$2"\necho $((a + b))',
    sum="3",
    say="echo one; echo two >&2; echo three",
    fail="echo no luck; exit 1",
    wait="echo ready; sleep 3600",
    environment='echo "$WM_WORKSPACE"',
    stream="echo 'WM_STREAM: a'; echo 'WM_STREAM: b'",
    exit="exit 5",
    escape='a="$1"\nsetsid sleep "$a" &',
)

TYPESCRIPT = Snippets(
    add="export function main(a: number, b: number) { return a + b }",
    say="export function main() { console.log('one'); console.error('two'); console.log('three') }",
    fail="export function main() { throw new Error('no luck') }",
    wait="export async function main() { console.log('ready'); await new Promise((go) => setTimeout(go, 3600_000)) }",
    environment="import process from 'node:process';\nexport const main = () => process.env.WM_WORKSPACE",
    stream="export async function* main() { yield 'a'; yield 'b' }",
    exit="import process from 'node:process';\nexport function main() { process.exit(5) }",
    escape="import { spawn } from 'node:child_process';\n"
    "export function main(a: number) { spawn('sleep', [String(a)], { detached: true, stdio: 'ignore' }) }",
)

GO = Snippets(
    add="package inner\nfunc main(a int, b int) int { return a + b }\n",
    say='package inner\nimport (\n\t"fmt"\n\t"os"\n)\n'
    'func main() { fmt.Println("one"); fmt.Fprintln(os.Stderr, "two"); fmt.Println("three") }\n',
    fail='package inner\nimport "errors"\nfunc main() error { return errors.New("no luck") }\n',
    wait='package inner\nimport (\n\t"fmt"\n\t"time"\n)\nfunc main() { fmt.Println("ready"); time.Sleep(time.Hour) }\n',
    environment='package inner\nimport "os"\nfunc main() string { return os.Getenv("WM_WORKSPACE") }\n',
    stream='package inner\nimport "fmt"\nfunc main() { fmt.Println("WM_STREAM: a"); fmt.Println("WM_STREAM: b") }\n',
    exit='package inner\nimport "os"\nfunc main() { os.Exit(5) }\n',
    escape='package inner\nimport (\n\t"fmt"\n\t"os/exec"\n\t"syscall"\n)\n'
    'func main(a float64) error {\n\tcommand := exec.Command("sleep", fmt.Sprint(a))\n'
    "\tcommand.SysProcAttr = &syscall.SysProcAttr{Setsid: true}\n\treturn command.Start()\n}\n",
)  # fmt: skip

POSTGRESQL = Snippets(
    add="-- database datatable://main\n-- $1 a (int)\n-- $2 b (int)\n-- result_collection=last_statement_first_row_scalar\n"
    "select $1 + $2",
    say="-- database datatable://main\ndo $$ begin raise notice 'one'; raise notice 'two'; raise notice 'three'; end $$",
    fail="-- database datatable://main\ndo $$ begin raise exception 'no luck'; end $$",
    wait="-- database datatable://main\ndo $$ begin raise notice 'ready'; end $$; select pg_sleep(3600)",
    environment="-- database datatable://main\nselect 1 as one",
    workspace=[{"one": 1}],  # SQL has no environment
)

ALL: dict[Language, Snippets] = {
    Language.PYTHON3: PYTHON,
    Language.BASH: BASH,
    Language.BUN: TYPESCRIPT,
    Language.NATIVETS: TYPESCRIPT,
    Language.DENO: TYPESCRIPT,
    Language.GO: GO,
    Language.POSTGRESQL: POSTGRESQL,
}
