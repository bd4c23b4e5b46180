"""What reaches beyond one database's tables, and what nobody can read. Pure."""

from __future__ import annotations

from typing import Any

from postgres.migrate.review.data import rows
from postgres.migrate.review.effects import (
    NOTHING,
    Effect,
    Handler,
    Scene,
    finding,
    opaque,
    refused,
    together,
)
from postgres.migrate.words import Level, StatementKind


def system(_node: Any, _scene: Scene) -> Effect:
    """ALTER SYSTEM."""
    return refused(
        "alter-system",
        "ALTER SYSTEM changes the whole server, and no transaction takes it back.",
        "Change the server's settings where they are kept.",
        alone=True,
    )


def database(_node: Any, _scene: Scene) -> Effect:
    """CREATE, ALTER or DROP DATABASE or TABLESPACE."""
    return refused(
        "outside-database",
        "It makes, moves or drops a whole database or tablespace.",
        "Take it out: a migration changes what is inside one database.",
        alone=True,
    )


def drop_database(node: Any, scene: Scene) -> Effect:
    """DROP DATABASE."""
    lost = Effect(destroys=(f"database {node.dbname}",))
    return together([database(node, scene), lost])


def role(_node: Any, _scene: Scene) -> Effect:
    """CREATE, ALTER, DROP ROLE; membership; settings of a role or a database."""
    text = "Roles and their settings are the whole server's: other databases see the change."
    return Effect(findings=(finding("changes-roles", Level.WARNING, text),))


def grant(node: Any, _scene: Scene) -> Effect:
    """GRANT and REVOKE on things of this database."""
    if node.is_grant:
        return NOTHING
    text = "Whoever needed what is revoked gets errors at once."
    return Effect(findings=(finding("revokes", Level.WARNING, text),))


def drop_owned(_node: Any, _scene: Scene) -> Effect:
    """DROP OWNED BY."""
    return together(
        [
            Effect(destroys=("everything that the role owns",)),
            opaque("drops-owned", "It drops whatever a role owns.", level=Level.ERROR),
        ]
    )


def unreadable(words: str, *, level: Level = Level.WARNING) -> Handler:
    """A statement that runs code or a script that does not stand in the file."""

    def handle(_node: Any, _scene: Scene) -> Effect:
        return opaque("opaque-code", words, level=level)

    return handle


def prepare(node: Any, scene: Scene) -> Effect:
    """PREPARE, DECLARE CURSOR: counted where they stand; nobody sees which one runs later."""
    return together([rows(node.query, scene), Effect(kind=StatementKind.OPAQUE)])


def subscription(_node: Any, _scene: Scene) -> Effect:
    """Subscriptions connect to other servers, outside of any transaction."""
    return refused(
        "subscription",
        "It connects to another server and copies whole tables from there.",
        "Do it by hand, with somebody who watches both servers.",
        alone=True,
    )


def nothing(_node: Any, _scene: Scene) -> Effect:
    """The catalog alone, with no table locked and nobody waiting."""
    return NOTHING
