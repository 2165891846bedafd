"""A child's output on its way to the log."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from millhand.runtimes.log_tap import STREAM_MARK, LogTap, Tail
from tests.support.runs import Heard


def heard(*pieces: str, tail_chars: int = 600) -> tuple[Heard, LogTap]:
    listener = Heard.__new__(Heard)  # needs no event loop: nobody waits
    listener.text, listener.pieces, listener.percents = "", [], []
    listener._news = type("News", (), {"set": lambda _: None})()
    tap = LogTap(listener, tail_chars=tail_chars)
    for piece in pieces:
        tap.feed(piece)
    tap.finish()
    return listener, tap


def test_stream_lines_are_taken_out():
    """Marked lines go to the result stream with their line breaks restored, all else to the log."""
    listener, _ = heard("one\nWM_STREAM: a\\nb\ntwo\nnot WM_STREAM: c\n")
    assert (listener.text, listener.pieces) == ("one\ntwo\nnot WM_STREAM: c\n", ["a\nb"])


def test_other_lines_are_not_held_back():
    """Text without a mark passes on at once, also without the end of its line."""
    listener, tap = heard("one\n")
    tap.feed("a prompt: ")
    assert listener.text == "one\na prompt: "


LINES = st.lists(
    st.sampled_from(["a", "", STREAM_MARK, STREAM_MARK + "x", "WM_STR", "WM_STREAM:", "b WM_STREAM: y"]), max_size=8
)


@given(LINES, st.lists(st.integers(0, 60), max_size=6), st.booleans())
def test_how_it_is_cut_means_nothing(lines, cuts, ended):
    """However the output is cut into pieces, the same log and the same stream come out."""
    text = "\n".join(lines) + ("\n" if ended else "")
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in itertools.pairwise(edges)]
    whole, cut = heard(text)[0], heard(*pieces)[0]
    assert (cut.text, cut.pieces) == (whole.text, whole.pieces)
    assert cut.pieces == [line.removeprefix(STREAM_MARK) for line in lines if line.startswith(STREAM_MARK)]


@given(st.lists(st.text(max_size=9)), st.integers(1, 20))
def test_the_tail_is_the_end(pieces, limit):
    """The tail of all pieces is the end of the whole."""
    tail = Tail(limit)
    for piece in pieces:
        tail.add(piece)
    assert tail.text() == "".join(pieces)[-limit:]
