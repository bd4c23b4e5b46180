"""`/db mfa …`: one's own second factor.

The secret goes from memory into one direct message. It is no row of the outbox, no line of a
log and no answer to the command: whoever reads our store or Slack's delivery of the command
does not see it. The message is deleted when a code has confirmed the secret.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Final

from approvals.second_factors import DIGITS, Enrolment
from approvals.words import BadInputError, Person, RefusedError, Why
from bot.blocks import Message, code_blocks, context, escape, header, moment, section
from bot.desk import Desk, Typed
from bot.slack import SlackError, SlackRefusedError, call

log: Final = logging.getLogger("twokey.mfa")

# The SDK writes what it sends to its log when somebody turns that up: not this.
_SENDING_SECRET: Final = ContextVar("_SENDING_SECRET", default=False)
logging.getLogger("slack_sdk.web.async_base_client").addFilter(lambda _: not _SENDING_SECRET.get())

_USAGE: Final = "/db mfa status, enroll [code], confirm <code>, or remove <code>"


async def answer(desk: Desk, typed: Typed, rest: Sequence[str]) -> Message:
    """What `/db mfa <rest>` brings.

    Raises:
        ExplainedError: it was not understood, or is refused.
    """
    person = await desk.person(typed.team, typed.user)
    word, code = rest[0].lower() if rest else "status", " ".join(rest[1:])
    match word:
        case "status":
            return await _status(desk, person)
        case "enroll" | "enrol":
            return await _enroll(desk, person, typed.user, code)
        case "confirm":
            return await _confirm(desk, person, _needed(word, code))
        case "remove":
            await desk.factors.remove(person, _needed(word, code))
            return _done("Your second factor is removed.", "/db mfa enroll sets one up again.")
        case _:
            raise BadInputError(f"/db mfa knows no {rest[0]!r}.", next_step=f"It takes: {_USAGE}.")


async def _status(desk: Desk, person: Person) -> Message:
    factor = await desk.factors.status(person.id)
    if factor is None or not (factor.confirmed_at or factor.pending_until):
        return _done("You have no second factor.", "/db mfa enroll sets one up.")
    lines = []
    if factor.confirmed_at:
        lines.append(f"Your second factor counts since {moment(factor.confirmed_at)}.")
    if factor.pending_until:
        lines.append(f"A new one waits for its first code until {moment(factor.pending_until)}.")
    if factor.locked_until:
        lines.append(f"After too many wrong codes none is taken until "
                     f"{moment(factor.locked_until)}.")  # fmt: skip
    text = "\n".join(lines)
    return Message(text=text, blocks=(section(text),))


async def _enroll(desk: Desk, person: Person, user: str, code: str) -> Message:
    made = await desk.factors.begin(person, code=code)
    try:
        place = await _sent(desk, user, made)
    except SlackError as error:
        await desk.factors.give_up(person.id, made)
        raise RefusedError(
            "The direct message with your secret could not be sent, so nothing was set up.",
            next_step="Open the messages tab of Twokey, then write /db mfa enroll again.",
            why=Why.DIRECTORY,
        ) from error
    await desk.factors.told(person.id, made, place)
    return _done(
        "A direct message from Twokey has your secret.",
        "Put it into an authenticator app, then write /db mfa confirm with the code it shows.",
    )


async def _sent(desk: Desk, user: str, made: Enrolment) -> str:
    """Send the secret to its person alone; where the message stands."""
    message, token = secret_message(made), _SENDING_SECRET.set(True)
    try:
        data = await call(
            desk.windows.client.chat_postMessage(
                channel=user, unfurl_links=False, unfurl_media=False, **message.content()
            )
        )
    finally:
        _SENDING_SECRET.reset(token)
    return f"{data['channel']}/{data['ts']}"


async def _confirm(desk: Desk, person: Person, code: str) -> Message:
    place = await desk.factors.confirm(person, code)
    channel, _, ts = place.partition("/")
    gone = "The message with the secret is deleted."
    if ts:
        try:
            await call(desk.windows.client.chat_delete(channel=channel, ts=ts))
        except SlackRefusedError as error:
            if error.error != "message_not_found":
                log.warning("The message with a secret was not deleted: %s.", error)
                gone = "Delete the message with the secret: Slack did not let us."
        except SlackError as error:
            log.warning("The message with a secret was not deleted: %s.", error)
            gone = "Delete the message with the secret: Slack did not let us."
    return _done("Your second factor counts from now on.", gone)


def secret_message(made: Enrolment) -> Message:
    """The direct message with a secret. Pure."""
    secret = made.secret.get_secret_value()
    halves = " ".join(secret[start : start + 4] for start in range(0, len(secret), 4))
    text = "Your new second factor: put the secret into an authenticator app, then confirm it."
    return Message(
        text=text,
        blocks=(
            header("Your second factor", mark="🔑"),
            section(
                "Put this secret into an authenticator app (time-based, "
                f"{DIGITS} digits, 30 seconds). Nobody else gets to see it."
            ),
            *code_blocks(halves),
            *code_blocks(made.uri.get_secret_value()),
            section("Then write `/db mfa confirm` and the code that it shows, within 15 minutes."),
            context("This message is deleted when you have confirmed it."),
        ),
    )


def _needed(word: str, code: str) -> str:
    if not code:
        raise BadInputError(
            f"/db mfa {word} needs a code.",
            next_step=f"Write the {DIGITS} digits that your authenticator shows behind it.",
        )
    return code


def _done(done: str, next_step: str) -> Message:
    text = f"{escape(done)} {escape(next_step)}"
    return Message(text=text, blocks=(section(text),))
