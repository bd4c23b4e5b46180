"""The SQL parts of a backfill, held to what they are: assignments, and one condition. Pure."""

from __future__ import annotations

from typing import Any, Final

from postgres.errors import PostgresError
from postgres.migrate.backfill.spec import RANGES_MAX, BackfillSpec

_KEY_CHARS_MAX: Final = 200


def assigned_columns(spec: BackfillSpec) -> tuple[str, ...]:
    """The columns that the assignments change, in their order.

    Each part is parsed alone, so that none can end the parentheses that it will stand in.

    Raises:
        PostgresError: a part is not what it must be; nothing has been sent to a server.
    """
    if not 1 <= spec.ranges <= RANGES_MAX:
        raise PostgresError(
            f"A backfill works on 1 to {RANGES_MAX} ranges side by side, not on {spec.ranges}.",
            next_step="Two are a good start: more only pays where the server has cores to spare.",
        )
    if not 0 < len(spec.key) <= _KEY_CHARS_MAX:
        raise PostgresError(
            f"A backfill's key has 1 to {_KEY_CHARS_MAX} characters.",
            next_step="Name it by its request, such as backfill-42.",
        )
    if spec.where_sql:
        _condition(spec.where_sql)
    sql = f"UPDATE t SET {spec.assignments_sql}\n"  # noqa: S608 - parsed, not run
    update = _only_statement(sql, "The assignments")
    extra = (update.whereClause, update.fromClause, update.returningClause, update.withClause)
    if type(update).__name__ != "UpdateStmt" or any(extra):
        raise _refused("The assignments")
    return tuple(str(target.name) for target in update.targetList)


def _condition(text: str) -> None:
    select = _only_statement(f"SELECT 1 WHERE {text}\n", "The condition")
    used = {name for name in select if getattr(select, name)} if _is_select(select) else set()
    plain = {"targetList", "whereClause", "limitOption", "op"}
    if not used or used - plain or len(select.targetList) != 1 or select.op.value:
        raise _refused("The condition")


def _is_select(node: Any) -> bool:
    return type(node).__name__ == "SelectStmt"


def _only_statement(sql: str, what: str) -> Any:
    # Some 20 MB that a bot which runs no backfill needs not.
    from pglast import parse_sql  # noqa: PLC0415
    from pglast.parser import ParseError, scan  # noqa: PLC0415

    try:
        statements = parse_sql(sql)
        words = {token.name for token in scan(sql)}
    except (ParseError, ValueError, RecursionError) as error:
        raise PostgresError(
            f"{what} cannot be read: {error.args[0] if error.args else error}.",
            next_step="Mend what it names.",
        ) from error
    if len(statements) != 1 or "PARAM" in words:
        raise _refused(what)
    return statements[0].stmt


def _refused(what: str) -> PostgresError:
    form = "column = expression, …" if what == "The assignments" else "one expression"
    return PostgresError(
        f"{what} of a backfill must be {form}, and nothing else.",
        next_step="Leave out WHERE, FROM, RETURNING, ORDER BY, semicolons and parameters.",
    )
