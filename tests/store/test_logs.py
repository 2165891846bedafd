"""logs.sql: job logs and result streams."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from millhand.core.ids import new_id
from millhand.core.job import LogChunk
from millhand.store import logs


def chunks(job_id, *texts):
    return [LogChunk(job_id=job_id, text=text) for text in texts]


async def test_pieces_come_back_in_order(database):
    """What was appended in order, for several jobs at once, is read in order for each."""
    first, second = new_id(), new_id()
    await logs.append(database, [*chunks(first, "a\n", "b\n"), *chunks(second, "x\n"), *chunks(first, "c\n")])
    await logs.append(database, chunks(first, "d\n"))

    assert await logs.read(database, first) == ("a\nb\nc\nd\n", 8)
    assert await logs.read(database, second) == ("x\n", 2)
    assert await logs.length(database, first) == 8


async def test_offsets_count_utf16_units(database):
    """A reader that goes on from the offset it was given misses nothing and reads nothing twice, whatever the script."""
    job, text = new_id(), "aé€𝄞b"
    await logs.append(database, chunks(job, text, "tail"))
    units = text.encode("utf-16-le")

    for offset in range(len(units) // 2 + 1):
        expected = units[2 * offset :].decode("utf-16-le", "ignore") + "tail"
        assert await logs.read(database, job, offset=offset) == (expected, 10)
    assert await logs.read(database, job, offset=10) == ("", 10)
    assert await logs.read(database, new_id(), offset=3) == ("", 3)


async def test_text_no_database_holds_is_mended(database):
    """NUL characters are dropped and lone surrogates replaced; nothing but NULs is nothing."""
    job = new_id()
    await logs.append(database, chunks(job, "\0", "a\0b", "\ud800é"))

    assert (await logs.read(database, job))[0] == "ab?é"


async def test_writers_meet_without_loss(database):
    """Several writers of one log at the same time lose nothing, and each one's pieces keep their order."""
    job = new_id()

    async def write(name):
        for i in range(15):
            await logs.append(database, chunks(job, f"{name}{i};"))

    await asyncio.gather(*map(write, "abcd"))
    text, _ = await logs.read(database, job)
    pieces = text.split(";")[:-1]

    assert len(pieces) == 60
    for name in "abcd":
        assert [piece for piece in pieces if piece[0] == name] == [f"{name}{i}" for i in range(15)]


async def test_streams_are_read_from_a_piece_on(database):
    """A result stream is read on from the number of pieces one has."""
    job = new_id()
    for text in ("one ", "", "two "):
        await logs.append_stream(database, job, text)

    assert await logs.read_stream(database, job) == ("one two ", 2)
    assert await logs.read_stream(database, job, offset=1) == ("two ", 2)
    assert await logs.read_stream(database, job, offset=2) == ("", 2)


@given(st.text(st.characters(codec=None)))
def test_storable_text_is_storable(text):
    """Whatever a job prints, what is left of it is valid UTF-8 without NUL, and clean text is left alone."""
    stored = logs.storable(text)

    assert "\0" not in stored
    assert stored.encode().decode() == stored
    assert logs.storable(stored) == stored
    assert logs.utf16_length(stored) == len(stored.encode("utf-16-le")) // 2
