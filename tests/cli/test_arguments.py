"""How words of a command line become a script's arguments."""

from __future__ import annotations

import io

import pytest

from millhand.cli.arguments import read_arguments
from millhand.cli.usage import UsageError

SCHEMA = {"properties": {"code": {"type": "string"}, "n": {"type": "integer"}}, "required": ["code"]}


def test_values_are_json_where_they_can_be_read_as_such():
    """Without a schema a value is JSON if it parses, else text."""
    given = read_arguments(("a=1", "b=x y", 'c={"d":[true]}', "e=", "f=a=b"), None, None)
    assert given == {"a": 1, "b": "x y", "c": {"d": [True]}, "e": "", "f": "a=b"}


def test_text_parameters_stay_text():
    """A parameter that the schema calls a string is never read as JSON."""
    assert read_arguments(("code=007", "n=7"), None, SCHEMA) == {"code": "007", "n": 7}


def test_json_and_words_go_together():
    """Words win over the object of --json."""
    assert read_arguments(("n=2",), '{"n": 1, "code": "x"}', SCHEMA) == {"n": 2, "code": "x"}


def test_dash_reads_stdin(monkeypatch):
    """--json - takes the object from stdin."""
    monkeypatch.setattr("sys.stdin", io.StringIO('{"code": "x"}'))
    assert read_arguments((), "-", SCHEMA) == {"code": "x"}


@pytest.mark.parametrize(
    ("words", "text", "says"),
    [
        (("novalue",), None, "is not NAME=VALUE"),
        (("=1",), None, "is not NAME=VALUE"),
        ((), "[1]", "not a JSON array"),
        ((), "null", "not a JSON null"),
        ((), "{", "--json takes one JSON object"),
        ((), None, "missing: code"),
        (("code=x", "naem=1"), None, "no such parameter: naem"),
    ],
)
def test_what_can_not_be_meant(words, text, says):
    """Each mistake is named, with what would be right."""
    with pytest.raises(UsageError, match=says):
        read_arguments(words, text, SCHEMA)


def test_a_script_that_takes_anything():
    """Unknown names pass where the script has a parameter for them."""
    assert read_arguments(("x=1",), None, {"properties": {}, "additionalProperties": True}) == {"x": 1}
