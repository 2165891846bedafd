"""The loader of named statements."""

import pytest

from millhand.store import sql_files


def test_statements_are_attributes():
    """Each `-- name:` line opens a statement, whose comments stay with it and whose semicolon goes."""
    parsed = sql_files.parse("-- about\n\n-- name: one\n-- why\nselect 1;\n\n-- name: two\nselect 2\n")

    assert parsed == {"one": "-- why\nselect 1", "two": "select 2"}


@pytest.mark.parametrize("text", ["select 1", "-- name: a\nselect 1\n-- name: a\nselect 2"])
def test_stray_and_doubled_statements_are_refused(text):
    """SQL without a name, and a name that stands twice, are mistakes of ours that show at import."""
    with pytest.raises(ValueError, match=r"stands"):
        sql_files.parse(text)


def test_an_unknown_name_says_where_it_was_looked_for():
    """A misspelt statement names its file."""
    statements = sql_files.load("queue")

    with pytest.raises(AttributeError, match=r"queue.sql has no statement named 'clam_jobs'"):
        _ = statements.clam_jobs
    assert "claim_jobs" in dir(statements)
