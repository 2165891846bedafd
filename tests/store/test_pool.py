"""Connections: settings, json to the byte, a listener that comes back."""

import asyncio

import asyncpg
import pytest

from millhand.store.pool import MAX_BACKOFF_S, Database, Listener, backoff_s


async def within(awaitable):
    async with asyncio.timeout(20):
        return await awaitable


async def test_json_is_exchanged_to_the_byte(database):
    """json values go in and come out as the same bytes, alone and in arrays."""
    value = b'{ "b": 1.0,\n "a": "\xc3\xa9" }'

    assert await database.fetchval("select $1::json", value) == value
    assert await database.fetchval("select $1::json[]", [value, None]) == [value, None]


async def test_connections_say_who_they_are(database_url):
    """Connections carry the name of the program and their purpose, and the settings asked for."""
    async with Database(database_url, application_name="me", settings={"work_mem": "5MB"}) as database:
        connection = await database.connect(purpose="to listen")
        try:
            assert await connection.fetchval("show application_name") == "me to listen"
            assert await database.fetchval("show work_mem") == "5MB"
            assert await database.fetchval("show jit") == "off"
        finally:
            await connection.close()


async def test_a_closed_database_says_so(database_url):
    """Using a database before it is opened, or after, is an error of the kind a lost connection raises."""
    database = Database(database_url, application_name="test")
    with pytest.raises(asyncpg.InterfaceError, match="not open"):
        await database.fetchval("select 1")
    async with database:
        pass
    with pytest.raises(asyncpg.InterfaceError, match="not open"):
        await database.execute("select 1")


async def test_transactions_commit_or_not_at_all(database):
    """What a transaction wrote stays only where its block ended well."""
    async with database.transaction() as connection:
        await connection.execute("create table kept ()")
    with pytest.raises(LookupError):
        await _fail_in_a_transaction(database)

    assert await database.fetchval("select to_regclass('kept') is not null and to_regclass('gone') is null")


async def _fail_in_a_transaction(database):
    async with database.transaction() as connection:
        await connection.execute("create table gone ()")
        raise LookupError


async def test_a_listener_comes_back_and_asks_for_one_look(database):
    """After its connection is cut a listener listens again, and calls back once, for what was missed meanwhile."""
    heard, back = asyncio.Queue(), asyncio.Queue()
    listener = Listener(database, "chan", heard.put_nowait, on_reconnect=lambda: back.put_nowait(1))
    await listener.start()
    try:
        await within(back.get())
        await database.execute("select pg_notify('chan', 'one')")
        assert await within(heard.get()) == "one"
        await database.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'test listen chan'"
        )
        await within(back.get())
        await database.execute("select pg_notify('chan', 'two')")
        assert await within(heard.get()) == "two"
    finally:
        await listener.stop()


def test_backoff_grows_and_is_bounded():
    """Waits double, are jittered, and never exceed their bound."""
    assert 0.05 <= backoff_s(0) <= 0.1
    assert all(backoff_s(failures) <= MAX_BACKOFF_S for failures in range(100))
    assert backoff_s(50) >= MAX_BACKOFF_S / 2
