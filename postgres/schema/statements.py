"""SQL cut into statements by PostgreSQL's own grammar."""

from __future__ import annotations

from collections.abc import Sequence

from postgres.errors import PostgresError


def split_statements(text: str) -> Sequence[tuple[str, str]]:
    """The statements, each with its kind in the grammar, such as `CreateStmt`.

    Raises:
        PostgresError: it is no SQL that PostgreSQL would take.
    """
    import pglast  # noqa: PLC0415 - 40 MB that most processes never need
    from pglast.parser import ParseError  # noqa: PLC0415

    try:
        parsed = pglast.parse_sql(text)
    except ParseError as error:
        raise PostgresError(
            f"What is declared is no SQL that PostgreSQL understands: {error}.",
            next_step="Correct the file: psql says the same about it.",
        ) from error
    found: list[tuple[str, str]] = []
    for each in parsed:
        # Counted in characters. The last statement may end without a semicolon.
        begin = each.stmt_location or 0
        end = begin + each.stmt_len if each.stmt_len else len(text)
        found.append((type(each.stmt).__name__, text[begin:end].strip()))
    return found
