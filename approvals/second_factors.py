"""Second factors: time-based codes after RFC 6238, asked for where a rule demands a step-up.

A secret leaves this file once, in `Enrolment`, to be sent to the person; what is stored is
encrypted for that person, so that it opens in nobody else's row. A code counts once.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from pydantic import SecretStr
from pyotp import random_base32
from pyotp.hotp import HOTP
from pyotp.totp import TOTP
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals import audit
from approvals.refusals import Refusal, refuse
from approvals.sealing import SecretBox
from approvals.words import Person, PersonId, Why
from store import outbox
from store.connect import Store

DIGITS: Final = 6
STEP_SECONDS: Final = 30
WINDOW: Final = 1  # codes of the step before and the step after are taken, for slow hands
FAILURES_MAX: Final = 5
LOCKED_FOR: Final = timedelta(minutes=15)
CONFIRM_WITHIN: Final = timedelta(minutes=15)
ISSUER: Final = "Twokey"
_SECRET_CHARS: Final = 32  # base32: 160 bits, as RFC 4226 recommends
_AT: Final = TIMESTAMP(timezone=True)

LOCK: Final = sa.text("""
    SELECT * FROM second_factors WHERE person = :person FOR UPDATE
""")

# Who has one and has not proven it now may have set it up since we looked.
BEGIN: Final = sa.text("""
    INSERT INTO second_factors AS f (person, slack, secret, pending, pending_at, told, created_at,
                                     last_counter, failures)
    VALUES (:person, :slack, '', :pending, :at, '', :at, 0, 0)
        ON CONFLICT (person) DO UPDATE
       SET slack = excluded.slack, pending = excluded.pending, pending_at = excluded.pending_at,
           told = ''
     WHERE :proven OR f.secret = ''
 RETURNING f.person
""").bindparams(sa.bindparam("at", type_=_AT), sa.bindparam("proven", type_=sa.Boolean()))

SAVE: Final = sa.text("""
    UPDATE second_factors
       SET secret = :secret, pending = :pending, pending_at = :pending_at, told = :told,
           confirmed_at = :confirmed_at, last_counter = :last_counter, failures = :failures,
           failed_at = :failed_at
     WHERE person = :person
""").bindparams(
    sa.bindparam("pending_at", type_=_AT),
    sa.bindparam("confirmed_at", type_=_AT),
    sa.bindparam("failed_at", type_=_AT),
)

TELL: Final = sa.text("""
    UPDATE second_factors SET told = :told WHERE person = :person AND pending = :pending
""")

REMOVE: Final = sa.text("DELETE FROM second_factors WHERE person = :person RETURNING slack")

# Nothing that was set up is lost when a new one could not be sent.
GIVE_UP: Final = sa.text("""
    WITH kept AS (
        UPDATE second_factors SET pending = '', pending_at = NULL, told = ''
         WHERE person = :person AND pending = :pending AND secret <> ''
    )
    DELETE FROM second_factors WHERE person = :person AND pending = :pending AND secret = ''
""")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """A new secret, for its person alone. `sealed` names it in the store."""

    secret: SecretStr
    uri: SecretStr
    sealed: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """How somebody's second factor stands."""

    confirmed_at: datetime | None
    pending_until: datetime | None
    locked_until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondFactors:
    """The second factors of everybody. Every refusal is a `RefusedError` with `Why.STEP_UP`."""

    store: Store
    box: SecretBox
    clock: Callable[[], datetime]

    async def begin(self, person: Person, *, code: str = "") -> Enrolment:
        """A new secret, to be sent to the person and confirmed with a code of it.

        Who has one already proves it with `code`, and keeps it until the new one is confirmed.

        Raises:
            RefusedError: the code of the present one is missing, wrong, or locked.
        """
        secret = SecretStr(random_base32(_SECRET_CHARS))
        sealed = self.box.seal(secret, purpose=_purpose(person.id))
        values = {"person": person.id, "slack": person.slack, "pending": sealed}
        async with self.store.begin() as conn:
            row = await _locked(conn, person.id)
            is_set_up = bool(row and row["secret"])
            refusal = await self._tried(conn, row, code) if row and is_set_up else None
            if not refusal:
                begun = await conn.execute(
                    BEGIN, {**values, "at": self.clock(), "proven": is_set_up}
                )
                refusal = None if begun.one_or_none() else _missing("Another was set up just now.")
            if not refusal:
                await self._note(conn, person.id, person.id, "enroll_second_factor")
        if refusal:
            raise (_of_the_present(refusal) if is_set_up else refusal).error()
        uri = TOTP(secret.get_secret_value()).provisioning_uri(name=person.id, issuer_name=ISSUER)
        return Enrolment(secret=secret, uri=SecretStr(uri), sealed=sealed)

    async def told(self, person: PersonId, enrolment: Enrolment, place: str) -> None:
        """Keep in which message (`CHANNEL/TS`) the secret stands, so that it can be removed."""
        async with self.store.begin() as conn:
            await conn.execute(TELL, {"person": person, "pending": enrolment.sealed, "told": place})

    async def give_up(self, person: PersonId, enrolment: Enrolment) -> None:
        """The secret could not be sent: it is none."""
        async with self.store.begin() as conn:
            await conn.execute(GIVE_UP, {"person": person, "pending": enrolment.sealed})

    async def confirm(self, person: Person, code: str) -> str:
        """The new secret counts from now on; the message that told it, or ''.

        Raises:
            RefusedError: none is waiting, or the code is not one of it.
        """
        async with self.store.begin() as conn:
            row = await _locked(conn, person.id)
            refusal = self._not_waiting(row)
            if row and not refusal:
                # A code of the secret before must not keep one of the new secret from counting.
                fresh = {**row, "secret": row["pending"], "last_counter": 0}
                refusal = await self._tried(conn, fresh, code, saved=row)
            if row and not refusal:
                await self._note(conn, person.id, person.id, "confirm_second_factor")
        if refusal:
            raise refusal.error()
        return str(row["told"]) if row else ""

    async def check(self, person: PersonId, code: str) -> None:
        """Take a code, which then counts for nothing else.

        Raises:
            RefusedError: nothing is set up, or the code is wrong, was taken, or is locked.
        """
        async with self.store.begin() as conn:
            row = await _locked(conn, person)
            refusal = await self._tried(conn, row, code) if row else _missing()
        if refusal:
            raise refusal.error()

    async def remove(self, person: Person, code: str) -> None:
        """Remove it, for who can still give a code of it.

        Raises:
            RefusedError: as `check`.
        """
        async with self.store.begin() as conn:
            row = await _locked(conn, person.id)
            refusal = await self._tried(conn, row, code) if row else _missing()
            if not refusal:
                await conn.execute(REMOVE, {"person": person.id})
                await self._note(conn, person.id, person.id, "remove_second_factor")
        if refusal:
            raise refusal.error()

    async def reset(self, person: PersonId, *, by: str) -> bool:
        """Remove it without a code, as an operator; the person is told. False: there is none."""
        async with self.store.begin() as conn:
            slack = (await conn.execute(REMOVE, {"person": person})).scalar_one_or_none()
            if slack is None:
                return False
            await self._note(conn, by, person, "reset_second_factor")
            await self._tell(
                conn, slack, "An operator has removed your second factor. /db mfa enroll sets a "
                "new one up. If you did not ask for it, tell whoever runs Twokey.",
            )  # fmt: skip
        return True

    async def status(self, person: PersonId) -> Factor | None:
        """How it stands, or None where nothing was ever begun."""
        async with self.store.begin() as conn:
            row = await _locked(conn, person)
        if row is None:
            return None
        return Factor(
            confirmed_at=row["confirmed_at"] if row["secret"] else None,
            pending_until=None if self._not_waiting(row) else row["pending_at"] + CONFIRM_WITHIN,
            locked_until=_locked_until(row, self.clock()),
        )

    async def _tried(
        self, conn: AsyncConnection, row: Row, code: str, *, saved: Row | None = None
    ) -> Refusal | None:
        """Try a code on a locked row and save what comes of it; why it is refused, or None.

        `saved`: the row whose pending secret `row` puts to the test.
        """
        now, digits = self.clock(), "".join(code.split())
        if not row["secret"]:
            return _missing()
        if until := _locked_until(row, now):
            return _too_often(until - now)
        if not re.fullmatch(rf"[0-9]{{{DIGITS}}}", digits):
            return refuse(Why.STEP_UP, problem=f"A code has {DIGITS} digits.")
        secret = self.box.open(row["secret"], purpose=_purpose(row["person"]))
        counter = matching_counter(secret, digits, at=now)
        if counter is None:
            return await self._failed(conn, saved or row, now)
        if counter <= row["last_counter"]:
            return refuse(
                Why.STEP_UP,
                problem="This code has been used already.",
                next_step=f"Wait for the next one; there is one every {STEP_SECONDS} seconds.",
            )
        kept = row["secret"] if self.box.is_current(row["secret"]) else self._anew(row, secret)
        passed = {"secret": kept, "last_counter": counter, "failures": 0, "failed_at": None}
        if saved is not None:
            passed |= {"pending": "", "pending_at": None, "told": "", "confirmed_at": now}
        await conn.execute(SAVE, {**row, **passed})
        return None

    def _anew(self, row: Row, secret: SecretStr) -> str:
        """The secret under the present key, as the one that sealed it is being retired."""
        return self.box.seal(secret, purpose=_purpose(row["person"]))

    async def _failed(self, conn: AsyncConnection, row: Row, now: datetime) -> Refusal:
        expired = row["failed_at"] is None or row["failed_at"] + LOCKED_FOR <= now
        failures = 1 if expired else row["failures"] + 1
        await conn.execute(SAVE, {**row, "failures": failures, "failed_at": now})
        if failures < FAILURES_MAX:
            left = FAILURES_MAX - failures
            return refuse(
                Why.STEP_UP,
                problem="This is not the code that your authenticator shows now.",
                next_step=f"Look again, and mind the clock of that device. Tries left: {left}.",
            )
        await self._note(conn, row["person"], row["person"], "lock_second_factor")
        await self._tell(
            conn, row["slack"], f"{failures} wrong codes were given for your second factor, so "
            "none is taken for 15 minutes. If that was not you, tell whoever runs Twokey.",
        )  # fmt: skip
        return _too_often(LOCKED_FOR)

    def _not_waiting(self, row: Row | None) -> Refusal | None:
        if row and row["pending"] and row["pending_at"] + CONFIRM_WITHIN > self.clock():
            return None
        return refuse(
            Why.STEP_UP,
            problem="No second factor of yours waits to be confirmed.",
            next_step="`/db mfa enroll` begins one; confirm it within 15 minutes.",
        )

    async def _note(self, conn: AsyncConnection, actor: str, person: PersonId, action: str) -> None:
        await audit.append(
            conn, chain="", at=self.clock(), actor=actor, action=action, detail={"person": person}
        )

    async def _tell(self, conn: AsyncConnection, slack: str, text: str) -> None:
        user = slack.rpartition("/")[2]
        if user:
            await outbox.post(
                conn, topic="direct", request_id=None, channel=user,
                payload={"text": text, "kind": "warning"}, now=self.clock(),
            )  # fmt: skip


def code_at(secret: SecretStr, counter: int, *, digits: int = DIGITS) -> str:
    """The code of a time step (RFC 4226 with RFC 6238's counter)."""
    return HOTP(secret.get_secret_value(), digits=digits).at(counter)


def counter_at(at: datetime) -> int:
    """The time step that `at` falls into."""
    return int(at.timestamp()) // STEP_SECONDS


def matching_counter(secret: SecretStr, code: str, *, at: datetime) -> int | None:
    """The time step around `at` whose code this is, or None. Takes as long for every code."""
    now, found = counter_at(at), None
    for counter in range(now - WINDOW, now + WINDOW + 1):
        if hmac.compare_digest(code_at(secret, counter).encode(), code.encode()):
            found = counter
    return found


async def _locked(conn: AsyncConnection, person: PersonId) -> Row | None:
    row = (await conn.execute(LOCK, {"person": person})).mappings().one_or_none()
    return dict(row) if row else None


def _locked_until(row: Row, now: datetime) -> datetime | None:
    if row["failures"] < FAILURES_MAX or row["failed_at"] is None:
        return None
    until: datetime = row["failed_at"] + LOCKED_FOR
    return until if until > now else None


def _purpose(person: PersonId) -> str:
    return f"second factor/{person}"


def _missing(problem: str = "You have no second factor.") -> Refusal:
    return refuse(
        Why.STEP_UP,
        problem=problem,
        next_step="`/db mfa enroll` sets one up: it takes an authenticator app and a minute.",
    )


def _too_often(rest: timedelta) -> Refusal:
    minutes = -(-int(rest.total_seconds()) // 60)
    return refuse(
        Why.STEP_UP,
        problem="Too many wrong codes were given, so none is taken for a while.",
        next_step=f"Try again in {minutes} min, or ask an operator: twokey mfa reset.",
    )


def _of_the_present(refusal: Refusal) -> Refusal:
    return refuse(
        Why.STEP_UP,
        problem=f"You have a second factor already. {refusal.problem}",
        next_step="Write /db mfa enroll with a code of the present one behind it; an operator "
        "can remove one that is lost.",
    )
