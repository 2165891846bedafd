"""Runs SQL statements, as a job of a Python child that can import asyncpg.

Values are always bound, never written into a statement. Errors of the server come back as {"error": {...}}.
"""

import asyncio
import base64
import datetime
import decimal
import json
import signal
import ssl

import asyncpg

CONNECT_S = 30


def main(database, statements, values, collection):
    """statements: [[sql, uncast sql, numbers of the values to bind]]; values: by number; collection: what to return."""
    try:
        return {"value": asyncio.run(_until_told_to_stop(_run(database, statements, values, collection)))}
    except asyncpg.PostgresError as error:
        return {"error": _describe(error)}
    except (OSError, asyncpg.InterfaceError, asyncio.TimeoutError, UnusableValue) as error:
        return {"error": {"name": type(error).__name__, "message": str(error) or "the database did not answer in time"}}


class UnusableValue(Exception):
    """An argument can't be turned into what its parameter's type needs."""


async def _until_told_to_stop(work):
    """Cancel the work at TERM: asyncpg then cancels the statement on the server, too."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


async def _run(database, statements, values, collection):
    connection = await asyncpg.connect(**_connect_options(database), timeout=CONNECT_S, statement_cache_size=0)
    connection.add_log_listener(lambda _, message: print(f"{message.severity}: {message.message}"))
    try:
        results = []
        for statement in statements:
            if not collection.startswith("all_"):
                results.clear()
            results.append(_collect(*await _fetch(connection, statement, values), collection))
        return results if collection.startswith("all_") else (results or [None])[0]
    finally:
        await _close(connection)


async def _close(connection):
    try:
        await connection.close(timeout=2)
    except (OSError, asyncio.TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


def _connect_options(database):
    if isinstance(database, str):
        return {"dsn": database}
    options = {
        "host": database.get("host") or "localhost",
        "port": int(database.get("port") or 5432),
        "user": database.get("user") or database.get("username"),
        "password": database.get("password"),
        "database": database.get("dbname") or database.get("database"),
    }
    return {**{key: value for key, value in options.items() if value}, "ssl": _tls(database)}


def _tls(database):
    certificate = database.get("root_certificate_pem")
    mode = database.get("sslmode") or "prefer"
    if not certificate:
        return mode
    context = ssl.create_default_context(cadata=certificate)
    context.check_hostname = mode == "verify-full"
    return context


async def _fetch(connection, statement, values):
    sql, uncast, numbers = statement
    prepared = await _prepare(connection, sql, uncast)
    bound = [_bind(values[str(number)], kind) for number, kind in zip(numbers, prepared.get_parameters())]
    return prepared.get_attributes(), await prepared.fetch(*bound)


async def _prepare(connection, sql, uncast):
    try:
        return await connection.prepare(uncast)
    except (asyncpg.IndeterminateDatatypeError, asyncpg.AmbiguousParameterError):
        return await connection.prepare(sql)


def _collect(columns, rows, collection):
    if "first_row" in collection:
        rows = rows[:1]
    readers = [_READERS.get(column.type.name, _plain) for column in columns]
    names = [column.name for column in columns]
    if collection.endswith("_scalar"):
        found = [readers[0](row[0]) if readers else None for row in rows]
    else:
        found = [{name: read(value) for name, read, value in zip(names, readers, row)} for row in rows]
    if "first_row" in collection:
        return found[0] if found else None
    return found


def _read_json(value):
    if isinstance(value, list):
        return [_read_json(each) for each in value]
    return None if value is None else json.loads(value)


_READERS = dict.fromkeys(("json", "jsonb", "json[]", "jsonb[]"), _read_json)


# Arguments: from JSON to what asyncpg takes for a type.


def _bind(value, kind):
    if value is None:
        return None
    if kind.kind == "array":
        if not isinstance(value, list):
            raise UnusableValue(f"{kind.name} needs a list, not {value!r}")
        return [_bind_item(item, kind.name.removesuffix("[]")) for item in value]
    return _bind_one(value, kind.name)


def _bind_item(item, name):
    return [_bind_item(each, name) for each in item] if isinstance(item, list) else _bind_one(item, name)


def _bind_one(value, name):
    if value is None:
        return None
    try:
        return _BINDERS.get(name, _text)(value)
    except (ValueError, TypeError, ArithmeticError):
        raise UnusableValue(f"can't take {value!r} as {name}") from None


def _text(value):
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _integer(value):
    if isinstance(value, float) and value != int(value):
        raise ValueError(value)
    return int(value)


def _boolean(value):
    if isinstance(value, str):
        return {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}[value.strip().lower()]
    return bool(value)


def _time_text(value):
    return value[:-1] + "+00:00" if value.endswith(("Z", "z")) else value


def _timestamp(value):
    moment = _timestamptz(value)
    return moment.astimezone(datetime.timezone.utc).replace(tzinfo=None)


def _timestamptz(value):
    if isinstance(value, (int, float)):  # milliseconds, as JavaScript counts
        return datetime.datetime.fromtimestamp(value / 1000, datetime.timezone.utc)
    moment = datetime.datetime.fromisoformat(_time_text(value))
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)


_BINDERS = {
    **dict.fromkeys(("int2", "int4", "int8", "oid"), _integer),
    **dict.fromkeys(("float4", "float8"), float),
    "numeric": lambda value: decimal.Decimal(str(value)),
    "bool": _boolean,
    **dict.fromkeys(("json", "jsonb"), lambda value: json.dumps(value, ensure_ascii=False)),
    "date": lambda value: _timestamptz(value).date(),
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
    "time": lambda value: datetime.time.fromisoformat(_time_text(value)),
    "timetz": lambda value: datetime.time.fromisoformat(_time_text(value)),
    "interval": lambda value: datetime.timedelta(seconds=float(value)),
    "bytea": lambda value: base64.b64decode(value, validate=True),
}


# Results: from what asyncpg gives to what has JSON; dates, times, UUIDs and bytes are the Python child's to write.


def _plain(value):
    if isinstance(value, decimal.Decimal):
        return _number(value)
    if isinstance(value, datetime.timedelta):
        return _interval(value)
    if isinstance(value, asyncpg.Record):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_asdict"):
        return [_plain(each) for each in value]
    if isinstance(value, asyncpg.Range):
        return _range(value)
    if isinstance(value, asyncpg.BitString):
        return value.as_string().replace(" ", "")
    if type(value).__module__.startswith("asyncpg."):  # geometric types
        return _plain(list(value)) if hasattr(value, "__iter__") else str(value)
    return value


def _number(value):
    """A JSON number where a reader's double holds all of its digits, else the digits as text; not a number is null."""
    if not value.is_finite():
        return None
    if value == value.to_integral_value() and abs(value) < 2**53:
        return int(value)
    return float(value) if decimal.Decimal(repr(float(value))) == value else format(value, "f")


def _interval(value):
    hours, rest = divmod(value.seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    fraction = f".{value.microseconds:06d}" if value.microseconds else ""
    days = f"{value.days} day{'' if abs(value.days) == 1 else 's'} " if value.days else ""
    return f"{days}{hours:02d}:{minutes:02d}:{seconds:02d}{fraction}"


def _range(value):
    if value.isempty:
        return "empty"
    lower = "" if value.lower is None else str(_plain(value.lower))
    upper = "" if value.upper is None else str(_plain(value.upper))
    return f"{'[' if value.lower_inc else '('}{lower},{upper}{']' if value.upper_inc else ')'}"


def _describe(error):
    fields = {"name": type(error).__name__, "message": error.message or str(error), "sqlstate": error.sqlstate}
    for key in (
        "severity",
        "detail",
        "hint",
        "position",
        "schema_name",
        "table_name",
        "column_name",
        "constraint_name",
    ):
        found = getattr(error, key, None)
        if found is not None:
            fields[key] = found
    return fields
