"""A file of SQL cut into statements by PostgreSQL's own grammar. Pure.

The grammar is that of the newest PostgreSQL that pglast knows (18); an older server refuses
what it does not know itself. pglast is imported where it is used: it takes 40 MB.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from postgres.errors import PostgresError

BYTES_MAX: Final = 5_000_000
STATEMENTS_MAX: Final = 20_000
# pglast builds its tree by recursion in C: 100,000 levels end the process (tried), 20,000 do not.
DEPTH_MAX: Final = 10_000
_OPENING: Final = frozenset({"ASCII_40", "ASCII_91"})
_CLOSING: Final = frozenset({"ASCII_41", "ASCII_93"})
_COMMA: Final = "ASCII_44"
_COMMENTS: Final = frozenset({"SQL_COMMENT", "C_COMMENT"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One statement: its text, where it stands (characters, a line from 1), and its tree.

    `tree` is pglast's node, such as `IndexStmt`.
    """

    sql: str
    line: int
    start: int
    stop: int
    tree: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Comment:
    """A comment as the scanner sees it; `stop` is the character after it."""

    text: str
    line: int
    start: int
    stop: int


def split(sql: str, *, name: str = "the file") -> tuple[tuple[str, int], ...]:
    """The statements of a file, each with the line on which it begins.

    Raises:
        PostgresError: it is no SQL, or more than we review; says file, line and why.
    """
    _check_size(sql, name)
    line_at = _Lines(sql)
    return tuple((sql[start:stop], line_at(start)) for start, stop in _places(sql, name))


def parse(sql: str, *, name: str = "the file") -> tuple[Piece, ...]:
    """The statements of a file with their trees. Takes some 0.2 ms a statement: use a thread.

    Raises:
        PostgresError: as `split`; or a statement is nested deeper than we can follow.
    """
    import pglast  # noqa: PLC0415 - heavy

    _check_size(sql, name)
    line_at = _Lines(sql)
    pieces: list[Piece] = []
    # One by one: a tree of the whole file would hold the interpreter for seconds.
    for start, stop in _places(sql, name):
        text, line = sql[start:stop], line_at(start)
        if _depth(text) > DEPTH_MAX:
            raise PostgresError(
                f"{name}, line {line}: the statement is nested deeper than {DEPTH_MAX:,} levels.",
                next_step="Write it as several statements, or fill a table and join it.",
            )
        pieces += [
            Piece(sql=text, line=line, start=start, stop=stop, tree=raw.stmt)
            for raw in pglast.parse_sql(text)
        ]
    return tuple(pieces)


def comments(sql: str) -> tuple[Comment, ...]:
    """Every comment outside of strings, in order. `sql` has been parsed before."""
    from pglast import scan  # noqa: PLC0415 - heavy

    line_at = _Lines(sql)
    return tuple(
        Comment(
            text=sql[token.start : token.end + 1],
            line=line_at(token.start),
            start=token.start,
            stop=token.end + 1,
        )
        for token in scan(sql)
        if token.name in _COMMENTS
    )


def blanked(sql: str, places: Iterable[tuple[int, int]]) -> str:
    """The text with these places (ascending) emptied; the rest stays where it was."""
    parts: list[str] = []
    at = 0
    for start, stop in places:
        parts.append(sql[at:start])
        parts.extend("\n" if char == "\n" else " " for char in sql[start:stop])
        at = stop
    return "".join([*parts, sql[at:]])


class _Lines:
    """Lines of characters, for places asked about in ascending order."""

    def __init__(self, sql: str) -> None:
        self._sql = sql
        self._at = 0
        self._line = 1

    def __call__(self, place: int) -> int:
        self._line += self._sql.count("\n", self._at, place)
        self._at = place
        return self._line


def _check_size(sql: str, name: str) -> None:
    size = len(sql) if len(sql) > BYTES_MAX else len(sql.encode("utf-8", "surrogatepass"))
    if size > BYTES_MAX:
        raise PostgresError(
            f"{name} is larger than {BYTES_MAX // 1_000_000} MB.",
            next_step="Load rows with COPY outside of migrations, and split what remains.",
        )
    # The parser would stop there and never show us what follows.
    if "\0" in sql:
        raise PostgresError(
            f"{name}, line {sql.count(chr(10), 0, sql.index(chr(0))) + 1}: there is a zero byte.",
            next_step="Save the file as UTF-8 text.",
        )
    if any("\ud800" <= char <= "\udfff" for char in sql if char > "\ud7ff"):
        raise PostgresError(f"{name} is not UTF-8.", next_step="Save the file as UTF-8 text.")


def _places(sql: str, name: str) -> list[tuple[int, int]]:
    from pglast.parser import ParseError  # noqa: PLC0415 - heavy
    from pglast.parser import split as cut  # noqa: PLC0415

    try:
        slices = cut(sql, only_slices=True)
    except ParseError as error:
        raise _refusal(sql, name, error) from error
    if len(slices) > STATEMENTS_MAX:
        raise PostgresError(
            f"{name} has {len(slices):,} statements; we review {STATEMENTS_MAX:,}.",
            next_step="Split the file, or load rows outside of migrations.",
        )
    places = [(each.start, each.stop) for each in slices]
    # A statement must not hide between two others, whatever a parser's positions are.
    for (_, stop), (start, _) in pairwise([(0, 0), *places]):
        if start < stop:
            raise PostgresError(
                f"{name}: the statements cannot be told apart.",
                next_step="Put each statement on lines of its own.",
            )
    return places


def _refusal(sql: str, name: str, error: Exception) -> PostgresError:
    words = str(error.args[0]) if error.args else str(error)
    place = error.args[1] if len(error.args) > 1 and isinstance(error.args[1], int) else 0
    at = max(0, min(place, len(sql)))
    line = sql.count("\n", 0, at) + 1
    text = sql.split("\n")[line - 1].strip()
    if text.startswith("\\"):
        command = text.split()[0][:20]
        return PostgresError(
            f"{name}, line {line}: {command} is a command of psql, not SQL.",
            next_step="Take psql's commands out of the file: no driver understands them.",
        )
    return PostgresError(
        f"{name}, line {line}: PostgreSQL's parser says: {words}.",
        next_step="Correct the file: nothing of it has run.",
    )


def _depth(text: str) -> int:
    """A bound of how deep the tree of a statement can be: what stands in one run of tokens."""
    from pglast import scan  # noqa: PLC0415 - heavy

    if len(text) <= DEPTH_MAX:
        return len(text)
    # Of each open bracket: tokens since the last comma, the deepest bracket among them, and
    # the deepest of the runs before.
    open_runs: list[list[int]] = [[0, 0, 0]]
    for token in scan(text):
        run = open_runs[-1]
        run[0] += 1
        if token.name in _OPENING:
            open_runs.append([0, 0, 0])
        elif token.name in _CLOSING and len(open_runs) > 1:
            closed = open_runs.pop()
            inside = max(closed[0] + closed[1], closed[2])
            open_runs[-1][1] = max(open_runs[-1][1], inside)
        elif token.name == _COMMA:
            open_runs[-1] = [0, 0, max(run[0] + run[1], run[2])]
    return max(max(run[0] + run[1], run[2]) for run in open_runs)
