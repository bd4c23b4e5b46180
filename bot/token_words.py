"""`/db token` and `/db tokens`: the tokens with which somebody stands at the other doors."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from approvals.tokens import LIFETIME_MAX, Token
from approvals.words import BadInputError
from bot.blocks import Message, code_blocks, escape, section
from bot.desk import Desk, Typed
from bot.views.answer import answer_message
from bot.views.decision import decision_message
from jobs.operation import Answer, Table

_HOURS_MAX: Final = int(LIFETIME_MAX.total_seconds() // 3600)
_HOURS_DIGITS_MAX: Final = 4


async def token_word(desk: Desk, typed: Typed, rest: Sequence[str]) -> Message:
    """`/db token [hours] [name]`, or `/db token revoke <id>`.

    Raises:
        ExplainedError: it was not understood, or this person gets none.
    """
    if rest and rest[0].lower() == "revoke":
        return await _revoke(desk, typed, rest[1:])
    lifetime, name = _asked(rest)
    person = await desk.person(typed.team, typed.user)
    issued = await desk.tokens.issue(person, lifetime=lifetime, name=name, delivery=typed.delivery)
    if issued.secret is None:
        return decision_message(
            ok=False,
            problem=f"The token {issued.token.id} was shown when this command came first.",
            next_step=f"/db token revoke {issued.token.id} ends it; /db token makes another.",
        )
    return _issued_message(issued.token, issued.secret.get_secret_value(), desk.clock())


async def tokens_word(desk: Desk, typed: Typed, rest: Sequence[str]) -> Message:
    """`/db tokens`: which of mine still live.

    Raises:
        ExplainedError: it was not understood, or nobody can be identified.
    """
    if rest:
        raise BadInputError(
            f"/db tokens does not understand {' '.join(rest)!r}.",
            next_step="/db token revoke <id> ends one of yours.",
        )
    person = await desk.person(typed.team, typed.user)
    tokens = await desk.tokens.of(person)
    if not tokens:
        return answer_message(
            Answer(title="Your tokens", lines=("You have none. /db token makes one.",))
        )
    rows = tuple(
        (
            token.id,
            token.name or "-",
            f"{token.expires_at:%Y-%m-%d %H:%M}",
            f"{token.used_at:%Y-%m-%d %H:%M}" if token.used_at else "never",
        )
        for token in tokens
    )
    return answer_message(
        Answer(
            title="Your tokens",
            lines=("Times are in UTC. /db token revoke <id> ends one.",),
            table=Table(columns=("Id", "Name", "Lives until", "Last used"), rows=rows),
        )
    )


async def _revoke(desk: Desk, typed: Typed, rest: Sequence[str]) -> Message:
    if len(rest) != 1:
        raise BadInputError(
            "/db token revoke needs the id of a token.",
            next_step="/db tokens lists yours with their ids.",
        )
    person = await desk.person(typed.team, typed.user)
    found = await desk.tokens.revoke(person, rest[0].strip().lower())
    return decision_message(
        ok=found,
        problem="The token is revoked."
        if found
        else "You have no token of this id that still lives.",
        next_step="It opens nothing any more." if found else "/db tokens lists yours.",
    )


def _asked(rest: Sequence[str]) -> tuple[timedelta | None, str]:
    first, *others = rest or ("",)
    text = first.lower().removesuffix("h")
    if not (text.isascii() and text.isdecimal()):
        return None, " ".join(rest)
    hours = int(text) if len(text) <= _HOURS_DIGITS_MAX else 0
    if not 1 <= hours <= _HOURS_MAX:
        raise BadInputError(
            f"A token lives 1 to {_HOURS_MAX} hours, and {first} is not between them.",
            next_step="Write it like this: /db token 8 laptop",
        )
    return timedelta(hours=hours), " ".join(others)


def _issued_message(token: Token, secret: str, now: datetime) -> Message:
    hours = (token.expires_at - now).total_seconds() / 3600
    about = (
        f"🔑 Your token {escape(token.name)} ({token.id}) lives {hours:.3g} h, until "
        f"{token.expires_at:%Y-%m-%d %H:%M} UTC. It is shown this once, to you alone. "
        "Whoever has it acts as you: it goes into TWOKEY_TOKEN or a file, not into a chat."
    ).replace("  ", " ")
    after = f"`/db token revoke {token.id}` ends it earlier; `/db tokens` lists yours."
    # The notification's text has no secret: phones keep those.
    return Message(
        text=f"Your token {token.id} is made.",
        blocks=(section(about), *code_blocks(secret), section(after)),
    )
