"""SQL scripts cut into statements as the server's own lexer would cut them, without running anything."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

_TOKEN = re.compile(
    r"""
      (?P<blank>\s+|--[^\n]*)
    | (?P<block>/\*)
    | (?P<text>[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z) | (?:[bBxXnN]|[uU]&)?'(?:[^']|'')*(?:'|\Z) | (?:[uU]&)?"(?:[^"]|"")*(?:"|\Z))
    | (?P<quote>\$(?:[^\W\d]\w*)?\$)
    | \$(?P<param>\d+)
    | (?P<word>[^\W\d][\w$]*)
    | (?P<number>\d[\w.]*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_COLLECTION = re.compile(r"^--\s*result_collection\s*=\s*(\S+)\s*$", re.MULTILINE)
_ROUTINE = re.compile(r"CREATE\s+(?:OR\s+REPLACE\s+)?(?:FUNCTION|PROCEDURE)\b", re.IGNORECASE)

COLLECTIONS = tuple(
    f"{which}_statement{plural}_{rows}{scalar}"
    for which, plural in (("last", ""), ("all", "s"))
    for rows in ("all_rows", "first_row")
    for scalar in ("", "_scalar")
)


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a statement: plain text, or the use of a parameter."""

    text: str
    param: int | None = None
    blank: bool = False  # white space or a comment


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One statement, with its parameters numbered anew from 1 as a prepared statement needs them."""

    text: str  # `$1` as the script's author wrote it, for error messages
    sql: str  # to be prepared, parameters of a declared type cast to it
    uncast: str  # the same without casts to text: the server finds out what it needs
    params: tuple[int, ...]  # the script's numbers of its parameters, in the new order


def result_collection(code: str) -> str:
    """Return what of the results is collected: a header line's word, or all rows of the last statement."""
    match = _COLLECTION.search(code)
    return match[1] if match else COLLECTIONS[0]


def split(code: str, types: dict[int, str] | None = None) -> list[Statement]:
    """Return the statements of a script; `types` are those declared for its parameters."""
    statements = []
    current: list[Piece] = []
    block = _Block()
    for piece in _pieces(code):
        block.see(piece)
        if piece.text == ";" and block.is_closed(current):
            statements.append(current)
            current = []
        else:
            current.append(piece)
    statements.append(current)
    return [_statement(pieces, types or {}) for pieces in statements if not all(piece.blank for piece in pieces)]


class _Block:
    """Tells semicolons that end a statement from those inside of parentheses and of routine bodies (BEGIN ATOMIC … END)."""

    def __init__(self) -> None:
        self._parentheses = 0
        self._words = 0

    def see(self, piece: Piece) -> None:
        self._parentheses += {"(": 1, ")": -1}.get(piece.text, 0)
        word = piece.text.lower()
        if word == "begin" or (word == "case" and self._words):
            self._words += 1
        elif word == "end" and self._words:
            self._words -= 1

    def is_closed(self, current: list[Piece]) -> bool:
        opened = self._parentheses > 0 or (self._words > 0 and _is_routine(current))
        if not opened:
            self._parentheses = self._words = 0
        return not opened


def _is_routine(pieces: list[Piece]) -> bool:
    words = [piece.text for piece in pieces if not piece.blank][:4]
    return _ROUTINE.match(" ".join(words)) is not None


def _pieces(code: str) -> Iterator[Piece]:
    at = 0
    while match := _TOKEN.match(code, at):
        end = _end(code, match)
        param = int(match["param"]) if match["param"] else None
        blank = match["blank"] is not None or match["block"] is not None
        yield Piece(text=code[at:end], param=param, blank=blank)
        at = end


def _end(code: str, match: re.Match[str]) -> int:
    if match["quote"] is not None:
        closing = code.find(match["quote"], match.end())
        return len(code) if closing < 0 else closing + len(match["quote"])
    return _end_of_comment(code, match.end()) if match["block"] is not None else match.end()


def _end_of_comment(code: str, at: int) -> int:
    depth = 1
    while depth and (edge := _COMMENT_EDGE.search(code, at)):
        depth += 1 if edge[0] == "/*" else -1
        at = edge.end()
    return len(code) if depth else at


def _statement(pieces: list[Piece], types: dict[int, str]) -> Statement:
    numbers: dict[int, int] = {}
    sql, uncast = [], []
    for piece in pieces:
        if piece.param is None:
            sql.append(piece.text)
            uncast.append(piece.text)
            continue
        number = numbers.setdefault(piece.param, len(numbers) + 1)
        kind = types.get(piece.param)
        cast = f"${number}::{kind}" if kind else f"${number}"
        sql.append(cast)
        uncast.append(f"${number}" if kind in ("text", None) else cast)
    return Statement(
        text="".join(piece.text for piece in pieces).strip(),
        sql="".join(sql).strip(),
        uncast="".join(uncast).strip(),
        params=tuple(numbers),
    )
