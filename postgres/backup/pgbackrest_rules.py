"""What pgBackRest may be asked to do here, and what must be so afterwards. Pure."""

from __future__ import annotations

from typing import Final

from postgres.backup.engine import TakeOrder
from postgres.backup.pgbackrest_json import Stanza, Taken
from postgres.backup.source import Source
from postgres.errors import PostgresError

NAMED_MAX: Final = 5


def type_of(order: TakeOrder, stanza: Stanza) -> str:
    """What pgBackRest calls it. It chooses itself what an increment builds on.

    Raises:
        PostgresError: it cannot take that.
    """
    match order.kind:
        case "full":
            return "full"
        case "logical":
            raise PostgresError(
                "pgBackRest takes no logical backups: it copies the files of a whole cluster.",
                next_step="Ask for a full or an incremental backup, or use the native engine.",
            )
        case "incremental":
            return _increment(order, stanza)


def _increment(order: TakeOrder, stanza: Stanza) -> str:
    current = [each for each in stanza.backups if each.database == stanza.current]
    fulls = [each for each in current if each.type == "full"]
    if not fulls:
        raise PostgresError(
            "There is no full backup that an incremental one could build on.",
            next_step="Take a full backup first.",
        )
    if order.base is None or order.base in {current[-1].id, current[-1].label}:
        return "incr"
    if order.base in {fulls[-1].id, fulls[-1].label}:
        return "diff"
    raise PostgresError(
        f"pgBackRest builds an incremental backup on the newest backup ({current[-1].id}) or on "
        f"the newest full one ({fulls[-1].id}), not on {order.base}.",
        next_step="Ask for an incremental backup without naming what it builds on.",
    )


def check_cluster(name: str, stanza: Stanza, source: Source) -> None:
    """The rows that we count must be those that pgBackRest copies."""
    known = stanza.systems.get(stanza.current)
    if known != source.system_identifier:
        raise PostgresError(
            f"The stanza {name} is of another cluster ({known}) than the database in the "
            f"inventory ({source.system_identifier}).",
            next_step="Name the right stanza in `repository`; after an upgrade of PostgreSQL: "
            f"pgbackrest --stanza={name} stanza-upgrade",
        )


def named(stanza: Stanza, backup_id: str) -> Taken:
    if taken := stanza.find(backup_id):
        return taken
    raise PostgresError(
        f"There is no backup {backup_id} in pgBackRest's repository.",
        next_step="List the backups, and name one of them.",
    )


def damaged_pages(taken: Taken) -> str:
    names = ", ".join(taken.damaged_files[:NAMED_MAX]) or "pgBackRest does not say in which files"
    return f"pages carry a wrong checksum in {names}"


def check_removable(taken: Taken, stanza: Stanza) -> None:
    if dependents := stanza.dependents(taken):
        names = ", ".join(each.id for each in dependents[:NAMED_MAX])
        raise PostgresError(
            f"{taken.id} cannot be removed: {names} build on it and would go with it.",
            next_step="Remove those first, newest first.",
        )
    sound = [
        each
        for each in stanza.backups
        if each.type == "full" and not each.error and each.label != taken.label
    ]
    if taken.type == "full" and not sound:
        raise PostgresError(
            f"{taken.id} cannot be removed: it is the last full backup in the repository.",
            next_step="Take another full backup first, and verify it.",
        )


def check_removed(taken: Taken, before: Stanza, after: Stanza) -> None:
    """That it has gone, and nothing else."""
    left = {each.label for each in after.backups}
    gone = {each.label for each in before.backups} - left
    if taken.label in left:
        raise PostgresError(
            f"pgBackRest says that it removed {taken.id}, but it is still there.",
            next_step=f"See its log, then: pgbackrest expire --set={taken.label}",
        )
    if others := sorted(gone - {taken.label}):
        raise PostgresError(
            f"With {taken.id} others have gone as well: {', '.join(others)}.",
            next_step="See pgBackRest's log for who removed them, and take a full backup at once.",
        )
