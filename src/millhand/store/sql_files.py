"""Loads named SQL statements from `store/sql/<aggregate>.sql`. SQL is written there, and only there."""

from __future__ import annotations

import re
from importlib import resources

_HEADER = re.compile(r"^-- name: (?P<name>[a-z][a-z0-9_]*)[ \t]*$", re.MULTILINE)


class Statements:
    """The statements of one file, each an attribute by its name."""

    def __init__(self, aggregate: str, statements: dict[str, str]) -> None:
        self._aggregate = aggregate
        self._statements = statements

    def __getattr__(self, name: str) -> str:
        try:
            return self._statements[name]
        except KeyError:
            raise AttributeError(f"store/sql/{self._aggregate}.sql has no statement named {name!r}") from None

    def __dir__(self) -> list[str]:
        return sorted(self._statements)


def load(aggregate: str) -> Statements:
    """Read `sql/<aggregate>.sql`; raises ValueError where a name stands twice or text precedes the first name."""
    text = resources.files("millhand.store").joinpath("sql", f"{aggregate}.sql").read_text(encoding="utf-8")
    return Statements(aggregate, parse(text))


def parse(text: str) -> dict[str, str]:
    """Cut a file into its statements, by the `-- name: …` line that opens each."""
    preamble, *parts = _HEADER.split(text)
    if any(line.strip() and not line.startswith("--") for line in preamble.splitlines()):
        raise ValueError("SQL stands before the first `-- name:` line")
    names, bodies = parts[::2], parts[1::2]
    if len(set(names)) != len(names):
        raise ValueError(f"a statement's name stands twice in {names}")
    return {name: body.strip().removesuffix(";") for name, body in zip(names, bodies, strict=True)}
