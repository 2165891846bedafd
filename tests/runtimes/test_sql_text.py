"""Cutting SQL scripts into statements."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millhand.runtimes import sql_text

QUOTED = [
    "'a;b'", "'it''s; x'", "E'it\\'s; x'", '"odd; name"', "$$ a; b $$", "$tag$ a; $$ b; $tag$", "-- a; b\n", "/* a; /* b; */ c; */",
    "(select 1; select 2)", "U&'\\0041;'", "x'1f;'",
]  # fmt: skip


def texts(code: str) -> list[str]:
    return [statement.text for statement in sql_text.split(code)]


@pytest.mark.parametrize("quoted", QUOTED)
def test_semicolons_inside_end_nothing(quoted):
    """Semicolons in strings, names, dollar quotes, comments and parentheses belong to their statement."""
    assert texts(f"select {quoted} from a; select 2") == [f"select {quoted} from a", "select 2"]


def test_blank_statements_are_none():
    """White space and comments between semicolons are no statements."""
    assert texts(" ; -- nothing\n;; /* nothing */ ; select 1 ;") == ["select 1"]


def test_routine_bodies_are_whole():
    """A routine body of several statements (BEGIN ATOMIC … END) is one statement; a plain BEGIN is one of its own."""
    routine = "create or replace function f() returns int begin atomic select case when true then 1 end; select 2; end"
    assert texts(f"{routine}; begin; select 3; end; select 4") == [routine, "begin", "select 3", "end", "select 4"]


def test_parameters_are_numbered_anew():
    """Each statement has its own parameters from $1 on, and knows which ones of the script they are."""
    first, second = sql_text.split("select $2, $1, $2; select $3 || '$1'", {1: "int", 2: "text", 3: "text"})
    assert (first.sql, first.uncast, first.params) == (
        "select $1::text, $2::int, $1::text",
        "select $1, $2::int, $1",
        (2, 1),
    )
    assert (second.sql, second.params) == ("select $1::text || '$1'", (3,))


def test_dollars_in_names_are_no_parameters():
    """A dollar inside of an identifier is part of it."""
    assert sql_text.split("select a$1 from b$2$c$2$")[0].params == ()


@given(st.text(alphabet="select';$\"-/*E\\a1()\n ", max_size=60))
def test_nothing_is_lost(code):
    """Whatever the code, its statements in order are the code without the semicolons between them."""
    rest = code
    for statement in sql_text.split(code):
        position = rest.find(statement.text)
        assert position >= 0
        rest = rest[position + len(statement.text) :]


def test_the_collection_has_a_default():
    """All rows of the last statement are collected where no line says otherwise."""
    assert sql_text.result_collection("select 1") == "last_statement_all_rows"
    assert (
        sql_text.result_collection("--result_collection = all_statements_first_row \nselect 1")
        == "all_statements_first_row"
    )
