"""What the command line says of itself, and to those who hold it wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import typer.main

from millhand.cli.main import app
from tests.support.golden import assert_golden

COMMANDS = typer.main.get_command(app).commands


def millhand(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1", "PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    command = [sys.executable, "-m", "millhand", *arguments]
    return subprocess.run(command, env=plain | environment, capture_output=True, text=True, check=False, timeout=60)


def page(name: str, command) -> str:
    """Return the words of a command's help; how they are laid out is the library's affair."""
    lines = [f"millhand {name}", f"  {' '.join((command.help or '').split())}"]
    for parameter in command.params:
        names = (
            ", ".join(parameter.opts)
            if parameter.param_type_name == "option"
            else parameter.metavar or parameter.name.upper()
        )
        hidden = getattr(parameter, "hidden", False)
        lines += [] if hidden else [f"  {names}: {parameter.help}"]
    return "\n".join(lines) + "\n"


def test_help_golden():
    """Names, options and words of help change only on purpose."""
    assert_golden("help.txt", "\n".join(page(name, command) for name, command in sorted(COMMANDS.items())))


def test_help_is_shown():
    """`millhand` alone and --help list every command."""
    done = millhand("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)


def test_version():
    """--version prints the version and nothing else."""
    assert millhand("--version").stdout.startswith("millhand ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("frobnicate",), "No such command"),
        (("up", "--port", "99999"), "65535"),
        (("up", "--workers", "0"), "equal to 1"),
        (("run",), "TARGET"),
        (("run", "gone.py"), "there is no file 'gone.py'"),
        (("run", "../../etc/passwd/x"), "path is u/<user>/<name>"),
        (("run", "u/admin/x", "--timeout", "-1"), "--timeout"),
        (("push", "gone.py", "--path", "u/admin/x"), "can't read gone.py"),
        (("cancel", "not-an-id"), "is not a job id"),
        (("logs", "not-an-id"), "is not a job id"),
        (("worker",), "set DATABASE_URL"),
        (("server",), "set DATABASE_URL"),
        (("migrate",), "set DATABASE_URL"),
    ],
)
def test_bad_usage_exits_2(arguments, says, tmp_path):
    """Whoever holds it wrong is told how to hold it, without a stack trace, and with exit code 2."""
    done = millhand(*arguments, MILLHAND_DATA_DIR=str(tmp_path), MILLHAND_URL="http://127.0.0.1:1", MILLHAND_TOKEN="x")
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (("jobs",), {}, "millhand is not up on"),
        (("jobs",), {"MILLHAND_URL": "http://127.0.0.1:1"}, "MILLHAND_TOKEN is not"),
        (("jobs",), {"MILLHAND_URL": "http://127.0.0.1:1", "MILLHAND_TOKEN": "x"}, "can't reach http://127.0.0.1:1"),
        (("jobs",), {"MILLHAND_URL": "nonsense", "MILLHAND_TOKEN": "x"}, "is no address of a server"),
        (("migrate",), {"DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "can't migrate"),
        (("migrate",), {"DATABASE_URL": "nonsense"}, "can't migrate"),
        (("server",), {"DATABASE_URL": "nonsense", "MILLHAND_OBJECT_STORE": "s3:/logs"}, "give s3://BUCKET/PREFIX"),
    ],
)
def test_what_can_not_be_done_exits_1(arguments, environment, says, tmp_path):
    """What can't be done is said in a line that names what to do, and the exit code is 1."""
    done = millhand(*arguments, MILLHAND_DATA_DIR=str(tmp_path), **environment)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
