"""Which pieces of logs go to object storage, and under which names."""

from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from millhand.core.ids import id_floor, new_id
from millhand.core.spill import OBJECT_UNITS, STEP_UNITS, Border, Piece, day, pieces

LARGEST_ROW = 1024 * 1024  # units: what a worker puts into one row at most


@st.composite
def logs(draw):
    """The ends of the rows of a log, from some offset on."""
    start = draw(st.integers(0, 3 * STEP_UNITS))
    ends, end = [], start
    for units in draw(st.lists(st.integers(1, LARGEST_ROW), min_size=1, max_size=60)):
        end += units
        ends.append(end)
    return start, ends


def borders_of(job_id, start, ends):
    """Return the borders that the database would find."""
    starts = [start, *ends[:-1]]
    return [
        Border(job_id=job_id, seq=7 + i, end_at=end, first_seq=7, first_at=start)
        for i, (begin, end) in enumerate(zip(starts, ends, strict=True))
        if begin // STEP_UNITS < end // STEP_UNITS
    ]


@given(logs())
def test_pieces_follow_each_other_up_to_the_last_border(log):
    """Pieces leave no gap, take no row twice, end at borders, and are neither tiny nor much larger than they may be."""
    start, ends = log
    borders = borders_of(new_id(), start, ends)
    cut = pieces(borders)

    assert [piece.start_at for piece in cut] == [start, *[piece.end_at for piece in cut]][: len(cut)]
    assert [piece.first_seq for piece in cut] == [7, *[piece.last_seq + 1 for piece in cut]][: len(cut)]
    assert bool(cut) == bool(borders)
    if cut:
        assert (cut[-1].last_seq, cut[-1].end_at) == (borders[-1].seq, borders[-1].end_at)
        assert ends[-1] - cut[-1].end_at < STEP_UNITS
    for piece in cut:
        assert ends[piece.last_seq - 7] == piece.end_at
        assert piece.end_at - piece.start_at <= max(OBJECT_UNITS, STEP_UNITS + LARGEST_ROW)
    for piece in cut[:-1]:
        assert piece.end_at - piece.start_at > OBJECT_UNITS - STEP_UNITS - LARGEST_ROW


def test_logs_of_several_jobs_are_cut_apart():
    """No piece has rows of two jobs."""
    first, second = new_id(), new_id()
    found = [*borders_of(first, 0, [STEP_UNITS, 2 * STEP_UNITS]), *borders_of(second, 0, [STEP_UNITS])]

    assert [(piece.job_id, piece.end_at) for piece in pieces(found)] == [
        (first, 2 * STEP_UNITS),
        (second, STEP_UNITS),
    ]


def test_names_tell_day_job_and_place():
    """Objects lie by the day their job was pushed; ids that others made, whatever time is in them, lie together."""
    job_id = new_id(1_577_836_800_000)
    piece = Piece(job_id=job_id, first_seq=0, last_seq=3, start_at=0, end_at=1048576)

    assert piece.key == f"logs/2020-01-01/{job_id}/000000000000-000001048576.txt"
    assert day(uuid4()) == "other"
    assert day(UUID(int=id_floor(2**48 - 1).int | 0x7 << 76)) == "other"
