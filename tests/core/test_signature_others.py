"""Signatures of Bash, Go and SQL scripts, and what holds for all languages."""

import contextlib

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millhand.core.errors import BadRequestError
from millhand.core.script import Language
from millhand.core.signature import MissingMainError, parse_signature


def params(language: Language, code: str) -> list[tuple[str, str, bool]]:
    return [(param.name, param.kind, param.required) for param in parse_signature(language, code).params]


def test_bash_headers():
    """Lines that name positional parameters are the signature, in the order of the positions."""
    code = '#!/bin/bash\nsecond="${2:-a b}"  # words\nfirst="$1"\nthird=$3\nlast="${4:-}"\nother="$FOO"\necho "$5"\n'
    found = parse_signature(Language.BASH, code)
    assert [(param.name, param.required, param.default) for param in found.params if param.has_default] == [
        ("second", False, "a b"),
        ("last", False, ""),
    ]
    assert [param.name for param in found.params] == ["first", "second", "third", "last"]
    assert found.json_schema()["required"] == ["first", "third"]


def test_bash_without_headers():
    """A script that names nothing takes nothing."""
    assert params(Language.BASH, "echo hi") == []


def test_bash_gap():
    """A forgotten position is told."""
    with pytest.raises(BadRequestError, match=r"names \$3 but not \$2"):
        parse_signature(Language.BASH, 'a="$1"\nc="$3"')


def test_go_function():
    """Types of parameters and results are read, those declared in the file too."""
    code = """package inner
import "time"
type Row struct {
	ID    int `json:"id"`
	Note  string `json:"note,omitempty"`
	inner *Row
}
func main(a, b string, n int, ok bool, at time.Time, raw []byte, row Row, opt *float64,
	m map[string]any, rows []struct{ X int }) (map[string]any, error) { return nil, nil }
"""
    found = parse_signature(Language.GO, code)
    assert [(param.name, param.kind, param.type_text) for param in found.params][:8] == [
        ("a", "str", "string"),
        ("b", "str", "string"),
        ("n", "int", "int"),
        ("ok", "bool", "bool"),
        ("at", "datetime", "time.Time"),
        ("raw", "bytes", "[]byte"),
        ("row", "dict", "Row"),
        ("opt", "float", "*float64"),
    ]
    assert found.results == ("map[string]any", "error")
    schema = found.json_schema()
    assert "opt" not in schema["required"]
    assert schema["properties"]["row"]["required"] == ["id"]
    assert schema["properties"]["rows"]["items"]["properties"] == {"X": {"type": "integer"}}


@pytest.mark.parametrize(
    ("results", "found"),
    [("", ()), ("string", ("string",)), ("(res any, err error)", ("any", "error")), ("error", ("error",))],
)
def test_go_results(results, found):
    """All ways to write results are read."""
    assert parse_signature(Language.GO, f"package inner\nfunc main() {results} {{ }}").results == found


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("package inner\nfunc other() {}", r"no function main \(it has other\)"),
        ("package inner\nfunc main(string) {}", "parameter `string` has no name"),
        ("package inner\nfunc main[T any](a T) {}", "type parameters"),
        ("package inner\nfunc main(a string {}", "syntax error on line 2"),
        ("package inner\n\nfunc main(a []) {}", "syntax error on line 3"),
    ],
)
def test_go_mistakes(code, message):
    """Each mistake in the head of main has its own words."""
    with pytest.raises(BadRequestError, match=message):
        parse_signature(Language.GO, code)


def test_sql_headers():
    """Header comments give numbered parameters names, types and defaults; a database has to be passed along."""
    code = """-- $1 name (text) = 'it''s'
-- $2 n (int) = 3
-- $3 ids (bigint[])
-- $4 at (timestamp with time zone)
-- $5 code (varchar(10)) = null
select $1, $2, $3, $4, $5
"""
    found = parse_signature(Language.POSTGRESQL, code)
    assert [(param.name, param.kind, param.type_text) for param in found.params] == [
        ("database", "resource", "postgresql"),
        ("name", "str", "text"),
        ("n", "int", "int"),
        ("ids", "list", "bigint[]"),
        ("at", "datetime", "timestamp with time zone"),
        ("code", "str", "varchar(10)"),
    ]
    properties = found.json_schema()["properties"]
    assert (properties["name"]["default"], properties["n"]["default"], properties["code"]["default"]) == (
        "it's",
        3,
        None,
    )
    assert found.json_schema()["required"] == ["database", "ids", "at"]


def test_sql_that_names_its_database():
    """With a line `-- database …` nobody has to pass one."""
    assert params(Language.POSTGRESQL, "-- database u/admin/db\nselect 1") == []


def test_sql_without_headers():
    """Parameters that are only used are named by their number and typed by their cast."""
    code = "-- database datatable://main\nselect $1::int from x, '$7', $$ $8 $$, \"$9\" /* $10 */ where $2 = 1 -- $11"
    assert params(Language.POSTGRESQL, code) == [("arg1", "int", True), ("arg2", "str", True)]


def test_sql_gap():
    """A number that was left out is told."""
    with pytest.raises(BadRequestError, match=r"up to \$3 but no \$2"):
        parse_signature(Language.POSTGRESQL, "select $1, $3")


@pytest.mark.parametrize("language", list(Language))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    code=st.one_of(
        st.text(), st.from_regex(r"(export |def |func )?(async )?(function )?main\([^{}]{0,60}\)[:{ ].{0,40}")
    )
)
def test_any_text_gives_a_signature_or_a_bad_request(language, code):
    """Whatever somebody sends as code, the worst that comes of it is a message to them."""
    try:
        schema = parse_signature(language, code).json_schema()
    except BadRequestError:
        return
    assert set(schema["required"]) <= set(schema["properties"])
    msgspec.json.encode(schema)


@pytest.mark.parametrize(
    ("language", "code"),
    [
        (Language.PYTHON3, f"def main(a: Literal[{10**30}] = {10**30}, b='\\ud83d', c=1e999, d={{1: 2}}, e=...): ..."),
        (
            Language.BUN,
            f'export function main(a: {10**30} = {10**30}, b = "\\ud83d", c = 1e999, d = 0xfffffffffffffffffffff) {{}}',
        ),
        (Language.POSTGRESQL, f"-- $1 a (bigint) = {10**30}\n-- $2 b (jsonb) = 1e999\nselect 1"),
    ],
)
def test_values_that_json_cannot_carry(language, code):
    """Defaults that JSON has no words for are dropped; the schema can always be sent."""
    msgspec.json.encode(parse_signature(language, code).json_schema())


@pytest.mark.parametrize("language", list(Language))
@pytest.mark.parametrize(
    "piece", ["'", "''\n", "/*", "$a$", "-- $1 a (", "-- $1 a (b) = ", '"', "$1::a ", 'a="${1:-', "(", "`${", "//"]
)
def test_long_nonsense_is_read_in_time(language, piece):
    """No text makes a reader go over it again and again."""
    with contextlib.suppress(BadRequestError):
        parse_signature(language, piece * 2_000)
    with contextlib.suppress(BadRequestError):
        parse_signature(language, piece + " " * 10_000 + "x")


def test_missing_main_is_told_apart():
    """A library, which has no main on purpose, can be told from code that can't be read."""
    with pytest.raises(MissingMainError):
        parse_signature(Language.PYTHON3, "def helper(): ...")
