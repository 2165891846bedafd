"""The reference pages say what the program does."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import typer.main

from millhand.cli.main import app
from millhand.server.app import create_app
from millhand.server.settings import ServerSettings
from millhand.store.pool import Database

ROOT = Path(__file__).parents[2]
COMMANDS = typer.main.get_command(app).commands
SETTINGS = (ROOT / "docs/reference-settings.md").read_text()
REFERENCE = (ROOT / "docs/reference-cli.md").read_text()
FOR_OURSELVES = {"MILLHAND_LIFELINE_FD", "MILLHAND_LISTEN_FD"}  # between `up` and its parts
READ = re.compile(
    r"""(?:environ(?:ment)?(?:\.get|\.pop)?|read|_number|_limit)[(\[](?:environment, )?\s*"([A-Z][A-Z_]+)\""""
)


def read_variables() -> set[str]:
    found = set()
    for part in (
        "server/settings.py",
        "worker/settings.py",
        *(f"cli/{path.name}" for path in (ROOT / "src/millhand/cli").glob("*.py")),
    ):
        found.update(READ.findall((ROOT / "src/millhand" / part).read_text()))
    return found - FOR_OURSELVES - {"PATH", "XDG_DATA_HOME"}


def test_every_setting_is_described():
    """Each variable that the code reads stands in the page, and no other does."""
    described = set(
        re.findall(
            r"`([A-Z][A-Z_]{3,})`",
            "\n".join(line.split("|")[1] for line in SETTINGS.splitlines() if line.startswith("| `")),
        )
    )
    assert read_variables() <= described
    assert described - read_variables() <= {"MILLHAND_WORKSPACE"}  # typer reads that one


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_described(name):
    """Each command has its heading, and its usage names each option it has."""
    command = COMMANDS[name]
    assert re.search(rf"^## .*millhand {name}\b", REFERENCE, re.MULTILINE)
    for parameter in command.params:
        if parameter.param_type_name == "option" and not parameter.hidden:
            assert parameter.opts[0] in REFERENCE or parameter.opts[-1] in REFERENCE, parameter.opts


def routes() -> str:
    """Return the table of all routes, from the code."""
    app = create_app(Database("postgresql://unused", application_name="docs"), ServerSettings())
    lines = ["| | route | |", "|---|---|---|"]
    for path, item in sorted(app.openapi_schema.paths.items()):
        for method in ("get", "post", "put", "patch", "delete"):
            operation = getattr(item, method)
            if operation is not None:
                says = (operation.description or "").split("\n")[0]
                lines.append(f"| {method.upper()} | `{path.removeprefix('/api')}` | {says} |")
    return "\n".join(lines) + "\n"


def test_api_reference_golden():
    """The table of routes is what the server has."""
    page = ROOT / "docs/reference-api.md"
    head, heading, table = page.read_text().partition("## Routes\n\n")
    if os.environ.get("GOLDEN") == "write":
        page.write_text(head + heading + routes())
        table = routes()
    assert table == routes(), "routes changed: make golden"
