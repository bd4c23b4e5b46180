"""What helps against an alert, as buttons that open a form: asked for, never done. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, assert_never

from pydantic import JsonValue, TypeAdapter, ValidationError

from jobs.alert_rule import Help
from jobs.operation import Suggestion

_SUGGESTIONS: Final = TypeAdapter(tuple[Suggestion, ...])
# Queries of the same name.
_LOOKS: Final[Mapping[Help, str]] = {
    Help.LOCKS: "Who blocks whom",
    Help.SLOW: "Slow statements",
    Help.POOL: "Pool advice",
    Help.FORECAST: "Forecast",
    Help.INDEXES: "Indexes",
    Help.HEALTH: "Health",
    Help.REPLICATION: "Replication",
}
_BACKUPS: Final[Mapping[str, str]] = {
    "BackupMissing": "backup",
    "BackupDamaged": "backup",
    "VerificationFailed": "backup",
    "WalArchiveGap": "backup",
    "BackupUnverified": "verify",
}


def suggestions_for(
    helps: Iterable[Help], *, database: str, detail: Mapping[str, Any], why: str
) -> tuple[Suggestion, ...]:
    """The buttons of an alert. `detail`: what is known of the server (`NodeRow.detail`)."""
    return tuple(
        each for help_ in helps for each in _of(help_, database=database, detail=detail, why=why)
    )


def backup_suggestions(name: str, database: str, why: str) -> tuple[Suggestion, ...]:
    """What helps against an alert about backups."""
    operation = _BACKUPS.get(name)
    if operation is None:
        return ()
    text = "Take a backup" if operation == "backup" else "Verify a backup"
    return (
        Suggestion(text=text, operation=operation, params={"database": database}, reason=why),
    )  # fmt: skip


def suggestions_as_json(suggestions: Iterable[Suggestion]) -> list[JsonValue]:
    """What is stored with the alert."""
    return [asdict(each) | {"params": dict(each.params)} for each in suggestions]


def suggestions_of(detail: Mapping[str, Any]) -> tuple[Suggestion, ...]:
    """The buttons of a stored alert (`AlertRow.detail`); none where they cannot be read."""
    try:
        return _SUGGESTIONS.validate_python(detail.get("suggestions", ()))
    except ValidationError:
        return ()


def root_blocker(detail: Mapping[str, Any]) -> int | None:
    """The process that holds up the others and waits for nobody; None: nobody waits.

    The collector names them; where it does not, it is whoever blocks and does not wait itself.
    """
    roots = [pid for row in _rows(detail, "roots") if isinstance(pid := row.get("pid"), int)]
    if roots:
        return roots[0]
    waiters = _rows(detail, "blockers")
    waiting = {row.get("pid") for row in waiters}
    blocking = [pid for row in waiters for pid in _list(row.get("blocked_by"))]
    return next((pid for pid in blocking if isinstance(pid, int) and pid not in waiting), None)


def _of(help_: Help, *, database: str, detail: Mapping[str, Any], why: str) -> Iterator[Suggestion]:
    match help_:
        case Help.END_BLOCKER:
            pid = root_blocker(detail)
            if pid is not None:
                yield Suggestion(
                    text=f"End session {pid}",
                    operation="terminate-backend",
                    params={"database": database, "pid": pid},
                    reason=why,
                )
        case (
            Help.LOCKS
            | Help.SLOW
            | Help.POOL
            | Help.FORECAST
            | Help.INDEXES
            | Help.HEALTH
            | Help.REPLICATION
        ):
            yield Suggestion(
                text=_LOOKS[help_], operation=str(help_), params={"database": database}
            )
        case Help.VERIFY:
            yield Suggestion(
                text="Verify a backup", operation="verify", params={"database": database},
                reason=why,
            )  # fmt: skip
        case _:
            assert_never(help_)


def _rows(detail: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    return [row for row in _list(detail.get(name)) if isinstance(row, Mapping)]


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()
