"""SQL on PostgreSQL: the script is cut into statements here and run by a warm Python child that holds the driver."""

from __future__ import annotations

from typing import Any

import msgspec

from millhand.core.errors import BadRequestError
from millhand.core.script import Language
from millhand.core.signature import Param, parse_signature
from millhand.core.signature.postgresql import database_of
from millhand.runtimes import sql_text
from millhand.runtimes.contract import Execution, Failure, FailureKind, Listener, Outcome, Stop, Success
from millhand.runtimes.python_child import program_job
from millhand.runtimes.run_child import Pool, failed, outcome_of, run_child

DATATABLE = "datatable://main"  # the instance's own database for scripts
PROGRAM = "postgresql_main"  # preloaded by the launcher of the pool
_DATABASE = "database"  # the argument that names the connection


class _Answer(msgspec.Struct):
    """What the program returns: a value, or why there is none."""

    value: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"")


class PostgresqlRuntime:
    """Runs SQL scripts against the databases that their arguments name."""

    def __init__(self, *, pool: Pool, datatable_url: str | None = None) -> None:
        """Take Python children that can import asyncpg from a pool, which belongs to somebody else."""
        self._pool = pool
        self._datatable_url = datatable_url

    async def start(self) -> None:
        """Start nothing: the pool is warm already, or made so at first use."""

    async def close(self) -> None:
        """Leave nothing: each job's process ends with its job."""

    async def lock(self, execution: Execution, listener: Listener) -> str:  # noqa: ARG002 — the port's signature
        """Return "": SQL needs nothing but its server."""
        return ""

    async def prepare(self, execution: Execution, listener: Listener) -> Execution:  # noqa: ARG002 — the port's signature
        """Return the execution as it is: there is nothing to make ready."""
        return execution

    async def execute(self, execution: Execution, listener: Listener, stop: Stop) -> Outcome:
        """Run the statements one after the other, on one connection."""
        try:
            args = self._arguments(execution)
        except BadRequestError as error:
            return failed("ExecutionErr", str(error))
        child = await self._pool.take(execution.limits)
        ended = await run_child(child, program_job(execution, program=PROGRAM, args=args), listener, stop)
        outcome = outcome_of(ended, program="the SQL script")
        return _answered(outcome) if isinstance(outcome, Success) else outcome

    def _arguments(self, execution: Execution) -> dict[str, Any]:
        """Return what the program is called with; raises BadRequestError for what can't be run."""
        given: dict[str, Any] = msgspec.json.decode(execution.args)
        signature = parse_signature(Language.POSTGRESQL, execution.code)
        params = [param for param in signature.params if param.kind != "resource"]
        statements = sql_text.split(execution.code, {number: cast_of(param) for number, param in enumerate(params, 1)})
        if not statements:
            raise BadRequestError("the script has no SQL statement, only comments; write one")
        collection = sql_text.result_collection(execution.code)
        if collection not in sql_text.COLLECTIONS:
            raise BadRequestError(
                f"unknown result_collection {collection!r}; choose one of {', '.join(sql_text.COLLECTIONS)}"
            )
        return {
            "database": self._database(execution.code, given),
            "statements": [(one.sql, one.uncast, one.params) for one in statements],
            "values": {str(number): _value(param, given) for number, param in enumerate(params, 1)},
            "collection": collection,
        }

    def _database(self, code: str, given: dict[str, Any]) -> Any:
        """Return what to connect to: an object of the usual fields, or a URL."""
        database = database_of(code) or given.get(_DATABASE)
        if isinstance(database, dict) and database:
            return database
        if not isinstance(database, str) or not database:
            raise BadRequestError(
                f"this script needs a database: pass the argument `{_DATABASE}` as {{host, port, user, password, dbname}}"
                f' or as "{DATATABLE}", or name one in a line `-- database {DATATABLE}`'
            )
        if database.removeprefix("$res:") in (DATATABLE, "datatable"):
            return self._datatable()
        if database.startswith(("postgresql://", "postgres://")):
            return database
        raise BadRequestError(
            f"there is no database {database!r}; pass its connection as an object, or use {DATATABLE}"
        )

    def _datatable(self) -> str:
        if self._datatable_url is None:
            raise BadRequestError(
                f"this worker knows no {DATATABLE}; set MILLHAND_DATATABLE_URL in its environment to the URL of a database"
            )
        return self._datatable_url


def cast_of(param: Param) -> str:
    """Return the type that a parameter is cast to; types that only the server can read are given as text first."""
    declared = param.type_text or "text"
    by_text = param.kind == "str" and declared not in _TEXTS
    return f"text::{declared}" if by_text else _SERIALS.get(declared, declared)


_SERIALS = {"serial": "integer", "bigserial": "bigint", "smallserial": "smallint"}  # types of columns, not of values
_TEXTS = ("text", "varchar", "char", "bpchar", "name", "character varying")


def _value(param: Param, given: dict[str, Any]) -> Any:
    if param.name in given:
        return given[param.name]
    return None if param.default is msgspec.UNSET else param.default


def _answered(outcome: Success) -> Outcome:
    answer = msgspec.json.decode(outcome.result, type=_Answer)
    if bytes(answer.error):
        return Failure(kind=FailureKind.ERROR, error=bytes(answer.error), memory_peak_kb=outcome.memory_peak_kb)
    return Success(result=bytes(answer.value), memory_peak_kb=outcome.memory_peak_kb)
