"""What is particular to SQL, against a real PostgreSQL."""

from __future__ import annotations

import asyncpg
import pytest

from millhand.core.script import Language
from millhand.runtimes.contract import Stopped
from tests.support import runs

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def sql(runtimes):
    """Return a function that runs SQL in the datatable."""

    async def run(code: str, **args: object) -> runs.Ran:
        args.setdefault("database", "datatable://main")
        return await runs.run(runtimes.get(Language.POSTGRESQL), Language.POSTGRESQL, code, args)

    return run


async def test_rows_are_objects_in_column_order(sql):
    """The rows of the last statement are the result."""
    ran = await sql("select 0 as first; select n, n * 2 as twice from generate_series(1, 2) n")
    assert ran.outcome.result == b'[{"n":1,"twice":2},{"n":2,"twice":4}]'


@pytest.mark.parametrize(
    ("collection", "result"),
    [
        ("last_statement_all_rows", [{"b": 1}, {"b": 2}]),
        ("last_statement_first_row", {"b": 1}),
        ("last_statement_all_rows_scalar", [1, 2]),
        ("last_statement_first_row_scalar", 1),
        ("all_statements_all_rows", [[{"a": "x"}], [{"b": 1}, {"b": 2}]]),
        ("all_statements_first_row", [{"a": "x"}, {"b": 1}]),
        ("all_statements_all_rows_scalar", [["x"], [1, 2]]),
        ("all_statements_first_row_scalar", ["x", 1]),
    ],
)
async def test_what_is_collected(sql, collection, result):
    """A header line chooses the statements, rows and columns of the result."""
    code = f"-- result_collection={collection}\nselect 'x' as a; select generate_series(1, 2) as b"
    assert (await sql(code)).result == result


async def test_nothing_found_is_null_or_empty(sql):
    """Without rows the result is an empty list; of a first row, null."""
    assert (await sql("select 1 where false")).result == []
    assert (await sql("-- result_collection=last_statement_first_row\nselect 1 where false")).result is None


async def test_an_unknown_collection_is_told(sql):
    """An unknown word is refused with the known ones."""
    assert "last_statement_all_rows" in (await sql("-- result_collection=some\nselect 1")).error["message"]


async def test_arguments_are_bound_with_their_types(sql):
    """Values of declared types arrive as such, however JSON writes them."""
    code = """-- result_collection=last_statement_first_row
-- $1 a_text (text)
-- $2 a_json (jsonb)
-- $3 a_moment (timestamptz)
-- $4 a_span (interval)
-- $5 a_list (int[])
-- $6 bytes (bytea)
-- $7 an_id (uuid)
-- $8 a_number (numeric)
-- $9 a_switch (bool)
-- $10 a_day (date)
-- $11 address (inet)
-- $12 absent (int)
-- $13 given = 5
select $1 t, $2 j, $3 m, $4 s, $5 l, $6 b, $7 i, $8 n, $9 o, $10 d, $11 a, $12 x, $13 g
"""
    ran = await sql(
        code, a_text="'; drop table x; --", a_json={"k": [1, None]}, a_moment="2024-01-02T03:04:05Z", a_span="1 day 2 hours",
        a_list=[1, None, 3], bytes="3q0=", an_id="12345678-1234-1234-1234-123456789012", a_number=1.1, a_switch="true",
        a_day="2024-02-03", address="10.0.0.1",
    )  # fmt: skip
    assert ran.result == {
        "t": "'; drop table x; --", "j": {"k": [1, None]}, "m": "2024-01-02T03:04:05+00:00", "s": "1 day 02:00:00",
        "l": [1, None, 3], "b": "3q0=", "i": "12345678-1234-1234-1234-123456789012", "n": 1.1, "o": True, "d": "2024-02-03",
        "a": "10.0.0.1", "x": None, "g": "5",
    }  # fmt: skip


async def test_undeclared_arguments_take_the_type_that_fits(sql):
    """A parameter without a declared type is what its place in the statement wants."""
    assert (await sql("select n from generate_series(1, 3) n where n = $1", arg1=2)).result == [{"n": 2}]
    assert (await sql("select jsonb_build_object('a', $1) o", arg1="z")).result == [{"o": {"a": "z"}}]


async def test_results_of_all_kinds_have_json(sql):
    """Each type is written as what is nearest in JSON; numbers that no double holds are text."""
    code = """-- result_collection=last_statement_first_row
select 1.50::numeric short, 12345678901234567890.123::numeric long, 'NaN'::numeric nan, 'infinity'::float8 infinite,
  '{"a":[1]}'::json j, array['{"x":1}'::jsonb] js, int4range(1, 5) r, row(1, 'x') rec, point(1, 2) p, B'101' bits,
  time '10:00' clock, timestamp '2020-01-01 10:00' stamp, '\\xdead'::bytea bytes, 2::int8 big, null nothing
"""
    assert (await sql(code)).result == {
        "short": 1.5, "long": "12345678901234567890.123", "nan": None, "infinite": None, "j": {"a": [1]}, "js": [{"x": 1}],
        "r": "[1,5)", "rec": [1, "x"], "p": [1.0, 2.0], "bits": "101", "clock": "10:00:00", "stamp": "2020-01-01T10:00:00",
        "bytes": "3q0=", "big": 2, "nothing": None,
    }  # fmt: skip


async def test_statements_share_a_connection(sql):
    """Statements run one after the other in one session: transactions and temporary tables hold."""
    code = """create temporary table t (id int); insert into t values (1); begin; insert into t values (2); rollback;
select id from t -- the end; truly
"""
    assert (await sql(code)).result == [{"id": 1}]


async def test_notices_are_logged(sql):
    """What the server raises as a notice is in the job's log."""
    assert (await sql("do $$ begin raise notice 'hello; %', 1; end $$")).log == "NOTICE: hello; 1\n"


async def test_errors_carry_what_the_server_says(sql):
    """An error has its class, message and code."""
    error = (await sql("select * from missing_table")).error
    assert (error["name"], error["sqlstate"]) == ("UndefinedTableError", "42P01")
    assert "missing_table" in error["message"]
    assert (await sql("select 1 / 0")).error["sqlstate"] == "22012"


async def test_an_unfit_argument_is_told(sql):
    """A value that can't be of its parameter's type is an error before anything runs."""
    assert "int4" in (await sql("-- $1 n (int)\nselect $1", n="many")).error["message"]


async def test_a_connection_by_its_parts(sql, postgres_server):
    """The database may be an object; a line in the code may name it instead."""
    parts = {
        "host": "127.0.0.1",
        "port": postgres_server.port,
        "user": "postgres",
        "password": "test",
        "dbname": "postgres",
    }
    assert (await sql("select 1 as one", database=parts)).result == [{"one": 1}]
    assert (await sql("-- database datatable://main\nselect 1 as one", database=None)).result == [{"one": 1}]
    wrong = (await sql("select 1", database={**parts, "password": "wrong"})).error
    assert wrong["sqlstate"] == "28P01"


@pytest.mark.parametrize("database", [None, "", {}, 5, "u/admin/nowhere"])
async def test_a_missing_database_is_told(sql, database):
    """Without a usable database the error says how to name one."""
    assert "datatable://main" in (await sql("select 1", database=database)).error["message"]


async def test_a_script_of_comments_is_refused(sql):
    """A script without a statement says so."""
    assert "no SQL statement" in (await sql("-- nothing here")).error["message"]


async def test_a_canceled_query_ends_on_the_server(runtimes, postgres_server):
    """Canceling a job cancels its statement in the database, not only the process that waits for it."""
    code = "-- database datatable://main\ndo $$ begin raise notice 'ready'; end $$; select 'long one', pg_sleep(1000)"
    ran = await runs.run_and_stop(runtimes.get(Language.POSTGRESQL), Language.POSTGRESQL, code, after="ready")
    assert isinstance(ran.outcome, Stopped)
    connection = await asyncpg.connect(postgres_server.url())
    left = await connection.fetchval(
        "select count(*) from pg_stat_activity where state = 'active' and query like '%''long one''%' and pid <> pg_backend_pid()"
    )
    await connection.close()
    assert left == 0
