"""Who sits in whose seat for a while: rows that are only added, each signed when it was made.

A row that we did not sign is none. A revocation is a signed row of its own. The number is
signed too, so that a copy of a row that was revoked is no new delegation.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals import audit
from approvals.records import stamp
from approvals.rules import Delegation
from approvals.signing import Signature, VoteKeys
from approvals.tally import fit
from approvals.times import Span
from approvals.words import BadInputError, Person, PersonId, RefusedError, Why
from store import outbox
from store.connect import Store

DELEGATIONS_MAX: Final = 20
TOPIC_KIND: Final = "delegation"
Row = Mapping[str, Any]

# The number is drawn first, as it is signed.
NUMBER: Final = sa.text("SELECT nextval(pg_get_serial_sequence('delegations', 'id'))")

INSERT: Final = sa.text("""
    INSERT INTO delegations (id, absent, absent_slack, stand_in, stand_in_slack,
                             starts_at, ends_at, at, revokes, key_id, signature)
    VALUES (:id, :absent, :absent_slack, :stand_in, :stand_in_slack,
            :starts_at, :ends_at, :at, :revokes, :key_id, :signature)
""").bindparams(
    sa.bindparam("starts_at", type_=TIMESTAMP(timezone=True)),
    sa.bindparam("ends_at", type_=TIMESTAMP(timezone=True)),
    sa.bindparam("at", type_=TIMESTAMP(timezone=True)),
)

# A revocation names both people and the same end, so it is found with what it revokes.
OF_PERSON: Final = sa.text("""
    SELECT * FROM delegations
     WHERE ends_at > :at AND (absent = :person OR stand_in = :person)
     ORDER BY id
""").bindparams(sa.bindparam("at", type_=TIMESTAMP(timezone=True)))

OPEN: Final = sa.text("SELECT * FROM delegations WHERE ends_at > :at ORDER BY id").bindparams(
    sa.bindparam("at", type_=TIMESTAMP(timezone=True))
)

# Delegations of one person are made one after the other, so that their number has a limit.
LOCK_PERSON: Final = sa.text(
    "SELECT pg_advisory_xact_lock(hashtext('twokey delegations'), hashtext(:person))"
)

REMEMBER: Final = sa.text("""
    INSERT INTO deliveries (id, at, request_id, answer) VALUES (:delivery, :at, NULL, :answer)
        ON CONFLICT (id) DO NOTHING
 RETURNING id
""").bindparams(
    sa.bindparam("answer", type_=JSONB), sa.bindparam("at", type_=TIMESTAMP(timezone=True))
)

REMEMBERED: Final = sa.text("SELECT answer FROM deliveries WHERE id = :delivery")


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """A delegation as it was made, and since when it no longer holds."""

    id: int
    absent: PersonId
    absent_slack: str
    stand_in: PersonId
    stand_in_slack: str
    start: datetime
    end: datetime
    at: datetime
    revoked_at: datetime | None = None

    @property
    def ends(self) -> datetime:
        """When it ends, or ended."""
        return min(self.end, self.revoked_at) if self.revoked_at else self.end

    def holds(self, at: datetime) -> bool:
        """Whether the stand-in may vote in the seat at `at`."""
        return self.start <= at < self.ends

    @property
    def line(self) -> Delegation:
        """As decisions look at it. Votes from before a revocation stay what they are."""
        return Delegation(
            absent=self.absent.casefold(),
            stand_in=self.stand_in.casefold(),
            start=self.start,
            end=self.ends,
        )


def absences(rows: Sequence[Row], keys: VoteKeys) -> tuple[Absence, ...]:
    """What the rows say, as far as we signed them, the oldest first. Pure."""
    ours = [row for row in map(_read, rows) if keys.holds(signed_fields(row), _signature(row))]
    revoked: dict[int, datetime] = {}
    for row in ours:
        if row["revokes"] is not None:
            at = revoked.get(row["revokes"], row["at"])
            revoked[row["revokes"]] = min(at, row["at"])
    given = [row for row in ours if row["revokes"] is None]
    return tuple(_absence(row, revoked.get(row["id"])) for row in given)


def lines(rows: Sequence[Row], keys: VoteKeys) -> tuple[Delegation, ...]:
    """The rows as decisions look at them. Pure."""
    return tuple(each.line for each in absences(rows, keys) if each.start < each.ends)


def signed_fields(row: Row) -> Row:
    """What the signature of a row covers: all of it."""
    names = ("id", "absent", "absent_slack", "stand_in", "stand_in_slack", "revokes")
    times = {name: stamp(row[name]) for name in ("starts_at", "ends_at", "at")}
    return {"kind": "delegation", **{name: row[name] for name in names}, **times}


class Delegations:
    """Gives, takes back and lists. Safe to use from many tasks and hosts."""

    def __init__(self, *, store: Store, keys: VoteKeys, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock

    async def give(self, *, by: Person, stand_in: Person, span: Span, delivery: str) -> Absence:
        """Let `stand_in` vote in the seat of `by` for a while; both are told.

        Raises:
            RefusedError: one of them may not act here, or both are one person.
            BadInputError: there are too many already.
        """
        if refusal := _objection(by, stand_in):
            raise refusal
        now = self._clock()
        row = {
            "absent": by.id,
            "absent_slack": by.slack,
            "stand_in": stand_in.id,
            "stand_in_slack": stand_in.slack,
            "starts_at": span.start,
            "ends_at": span.end,
            "at": now,
            "revokes": None,
        }
        async with self._store.begin() as conn:
            await conn.execute(LOCK_PERSON, {"person": by.id})
            if before := await self._done_before(conn, delivery, by.id):
                return before
            await self._check_room(conn, by.id, now)
            made = await self._insert(conn, row)
            await self._remember(conn, delivery, by.id, made.id)
            await self._tell(conn, made, by=by.id, action="delegate")
        return made

    async def revoke(self, number: int, *, by: Person, delivery: str) -> Absence:
        """End a delegation; whoever gave it may, and whoever got it. Both are told.

        Raises:
            RefusedError: the account is unfit.
            BadInputError: there is no such delegation of this person, or it is over.
        """
        if not fit(by):
            raise _unfit("You")
        now = self._clock()
        async with self._store.begin() as conn:
            await conn.execute(LOCK_PERSON, {"person": by.id})
            if before := await self._done_before(conn, delivery, by.id):
                return before
            found = await self._find(conn, number, by.id, now)
            row = {
                "absent": found.absent,
                "absent_slack": found.absent_slack,
                "stand_in": found.stand_in,
                "stand_in_slack": found.stand_in_slack,
                "starts_at": found.start,
                "ends_at": found.end,
                "at": now,
                "revokes": found.id,
            }
            await self._insert(conn, row)
            await self._remember(conn, delivery, by.id, found.id)
            (ended,) = await self._numbered(conn, number, by.id, now)
            await self._tell(conn, ended, by=by.id, action="revoke_delegation")
        return ended

    async def of(self, person: PersonId) -> Sequence[Absence]:
        """What somebody has given and got, as far as it is not over."""
        now = self._clock()
        async with self._store.single() as conn:
            found = await self._of(conn, person, now)
        return [each for each in found if each.ends > now]

    async def open(self) -> Sequence[Absence]:
        """Everything that is in use or will be."""
        now = self._clock()
        async with self._store.single() as conn:
            rows = await _rows(conn, OPEN, {"at": now})
        return [each for each in absences(rows, self._keys) if each.ends > now]

    async def _of(self, conn: AsyncConnection, person: PersonId, at: datetime) -> Sequence[Absence]:
        rows = await _rows(conn, OF_PERSON, {"person": person, "at": at})
        return absences(rows, self._keys)

    async def _numbered(
        self, conn: AsyncConnection, number: int, person: PersonId, at: datetime
    ) -> Sequence[Absence]:
        return [each for each in await self._of(conn, person, at) if each.id == number]

    async def _find(
        self, conn: AsyncConnection, number: int, person: PersonId, now: datetime
    ) -> Absence:
        for found in await self._numbered(conn, number, person, now):
            if found.ends > now:
                return found
        raise BadInputError(
            f"There is no delegation {number} of yours or to you that still holds.",
            next_step="/db delegate lists them.",
        )

    async def _check_room(self, conn: AsyncConnection, person: PersonId, now: datetime) -> None:
        given = [
            each
            for each in await self._of(conn, person, now)
            if each.absent == person and each.ends > now
        ]
        if len(given) >= DELEGATIONS_MAX:
            raise BadInputError(
                f"You have {len(given)} delegations already.",
                next_step="/db delegate lists them; revoke those that are not needed.",
            )

    async def _insert(self, conn: AsyncConnection, row: Row) -> Absence:
        numbered = {**row, "id": int((await conn.execute(NUMBER)).scalar_one())}
        made = self._keys.sign(signed_fields(numbered))
        stored = {**numbered, "key_id": made.key_id, "signature": made.value}
        await conn.execute(INSERT, stored)
        return _absence(numbered, None)

    async def _done_before(
        self, conn: AsyncConnection, delivery: str, person: PersonId
    ) -> Absence | None:
        """What this delivery has done when it came before."""
        found = await conn.execute(REMEMBERED, {"delivery": _key(delivery, person)})
        answer = found.scalar_one_or_none()
        if answer is None:
            return None
        past = datetime.min.replace(tzinfo=UTC)
        rows = await self._numbered(conn, answer["delegation"], person, past)
        return rows[0] if rows else None

    async def _remember(
        self, conn: AsyncConnection, delivery: str, person: PersonId, number: int
    ) -> None:
        answer: Mapping[str, JsonValue] = {"delegation": number}
        key = _key(delivery or uuid.uuid4().hex, person)
        values = {"delivery": key, "at": self._clock(), "answer": answer}
        await conn.execute(REMEMBER, values)

    async def _tell(
        self, conn: AsyncConnection, made: Absence, *, by: PersonId, action: str
    ) -> None:
        """Into the audit, and to both people directly."""
        detail = {
            "delegation": made.id,
            "absent": made.absent,
            "stand_in": made.stand_in,
            "from": stamp(made.start),
            "to": stamp(made.end),
        }
        await audit.append(
            conn, chain="", at=self._clock(), actor=by, action=action, detail=detail
        )  # fmt: skip
        payload: dict[str, JsonValue] = {
            "kind": TOPIC_KIND,
            "delegation": made.id,
            "absent": made.absent_slack or made.absent,
            "stand_in": made.stand_in_slack or made.stand_in,
            "from": stamp(made.start),
            "to": stamp(made.end),
            "revoked": action != "delegate",
        }
        for slack in dict.fromkeys((made.absent_slack, made.stand_in_slack)):
            if user := slack.rpartition("/")[2]:
                await outbox.post(
                    conn, topic="direct", request_id=None, channel=user, payload=payload,
                    now=self._clock(),
                )  # fmt: skip


def _absence(row: Row, revoked_at: datetime | None) -> Absence:
    return Absence(
        id=row["id"],
        absent=PersonId(row["absent"]),
        absent_slack=row["absent_slack"],
        stand_in=PersonId(row["stand_in"]),
        stand_in_slack=row["stand_in_slack"],
        start=row["starts_at"],
        end=row["ends_at"],
        at=row["at"],
        revoked_at=revoked_at,
    )


def _objection(by: Person, stand_in: Person) -> RefusedError | None:
    """Why somebody may not stand in, or None when they may."""
    if not fit(by):
        return _unfit("You")
    if not fit(stand_in):
        return _unfit(stand_in.name)
    if by.id == stand_in.id or by.identities & stand_in.identities:
        return RefusedError(
            "That is you, or another account of yours.",
            next_step="Name a colleague: one person has one seat, however many accounts.",
            why=Why.SELF,
        )
    return None


def _unfit(who: str) -> RefusedError:
    return RefusedError(
        f"{who} may not vote here: guests, bots, strangers, and deactivated or unconfirmed"
        " accounts cannot.",
        next_step="Name somebody with a full account of this workspace.",
        why=Why.IDENTITY,
    )


async def _rows(conn: AsyncConnection, query: sa.TextClause, values: Row) -> Sequence[Row]:
    return [dict(row) for row in (await conn.execute(query, values)).mappings()]


def _key(delivery: str, person: PersonId) -> str:
    return f"{delivery}|delegate|{person}"


def _read(row: Row) -> Row:
    """A row with its moments as moments, also when it came as JSON."""
    moments = {
        name: value if isinstance(value, datetime) else datetime.fromisoformat(value)
        for name in ("starts_at", "ends_at", "at")
        for value in [row[name]]
    }
    return {**row, **{name: at.astimezone(UTC) for name, at in moments.items()}}


def _signature(row: Row) -> Signature:
    return Signature(key_id=row["key_id"], value=row["signature"])
