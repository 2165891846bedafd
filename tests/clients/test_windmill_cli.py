"""The public API's own command line (npm `windmill-cli`), unmodified: log in, push a script, run it, look at its jobs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.npm import package
from tests.support.stack import PATIENCE_S, Stack

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("up")]

VERSION = "1.819.0"
METADATA = """\
summary: greets
description: ""
lock: ""
kind: script
schema:
  $schema: https://json-schema.org/draft/2020-12/schema
  type: object
  properties:
    name: {type: string}
  required: [name]
"""


class Cli:
    """`wmill`, in a project directory, with a configuration of its own."""

    def __init__(self, program: Path, place: Path) -> None:
        self.project = place / "project"
        (self.project / "u" / "admin").mkdir(parents=True)
        self._program = program
        self._env = {**os.environ, "WMILL_CONFIG_DIR": str(place / "config"), "NO_COLOR": "1"}

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command that must end with this code; return what it wrote to stdout."""
        ended = subprocess.run(
            [self._program, *arguments], cwd=self.project, env=self._env, stdin=subprocess.DEVNULL, check=False,
            capture_output=True, text=True, timeout=PATIENCE_S,
        )  # fmt: skip
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout


@pytest.fixture(scope="module")
def wmill(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """Return the command line, logged in by a token, in a project with one script."""
    program = package("windmill-cli", VERSION) / "node_modules" / ".bin" / "wmill"
    cli = Cli(program, tmp_path_factory.mktemp("wmill"))
    assert "Added workspace" in cli("workspace", "add", "here", "main", f"{stack.url}/", "--token", stack.token)
    (cli.project / "wmill.yaml").write_text('defaultTs: bun\nincludes: ["u/**"]\n')
    (cli.project / "u" / "admin" / "greet.py").write_text(
        "def main(name: str):\n    print('greeting')\n    return f'hello {name}'\n"
    )
    (cli.project / "u" / "admin" / "greet.script.yaml").write_text(METADATA)
    assert "pushed" in cli("script", "push", "u/admin/greet.py")
    return cli


def test_it_knows_who_and_where(wmill: Cli):
    """Who is logged in, and the version of the server."""
    assert "admin@millhand.local" in wmill("workspace", "whoami")
    assert "Backend Version: CE v" in wmill("version")


def test_it_pushes(wmill: Cli):
    """What is deployed already is left alone; what has changed becomes a new version."""
    script = wmill.project / "u" / "admin" / "greet.py"
    assert "is up to date" in wmill("script", "push", "u/admin/greet.py")
    assert "u/admin/greet" in wmill("script", "list", "--json")

    script.write_text(script.read_text() + "# changed\n")
    assert "is up to date" not in wmill("script", "push", "u/admin/greet.py")
    assert "# changed" in json.loads(wmill("script", "get", "u/admin/greet", "--json"))["content"]


def test_it_runs(wmill: Cli):
    """With log and result, with the result alone, without deploying; a failure is a failure of the command."""
    shown = wmill("script", "run", "u/admin/greet", "-d", '{"name": "you"}')
    assert "greeting" in shown
    assert '"hello you"' in shown
    assert json.loads(wmill("script", "run", "u/admin/greet", "-s", "-d", '{"name": "you"}')) == "hello you"
    assert '"hello me"' in wmill("script", "preview", "u/admin/greet.py", "-d", '{"name": "me"}')
    assert "not today" in wmill("script", "run", "u/admin/failing", code=1)


def test_it_looks_at_jobs(wmill: Cli):
    """Lists jobs, shows one with log and result, runs it again, cancels it."""
    wmill("script", "run", "u/admin/greet", "-s", "-d", '{"name": "us"}')
    job_id = json.loads(wmill("job", "list", "--json", "--script-path", "u/admin/greet"))[0]["id"]

    assert "u/admin/greet" in wmill("job", "get", job_id)
    assert "greeting" in wmill("job", "logs", job_id)
    assert json.loads(wmill("job", "result", job_id)) == "hello us"
    assert "canceled" in wmill("job", "cancel", job_id)
    wmill("job", "rerun", job_id)
    assert len(json.loads(wmill("job", "list", "--json", "--script-path", "u/admin/greet"))) > 1
    assert "python3" in wmill("queues")
