"""Which word after `/db` means what: the bot's own words, and every operation by its name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

from approvals.calls import Decision
from approvals.words import BadInputError, Door, RequestId
from bot import audit_lines, mfa
from bot.blocks import Message
from bot.command_text import MissingInputError, unknown, words
from bot.delegate_words import delegate_word
from bot.desk import Desk, Pressed, Typed, told
from bot.explain import explain_policy, explain_rule
from bot.form_desk import form_instead, form_word
from bot.incident_words import ack_word
from bot.report import approvals_word
from bot.request_words import requests_word
from bot.token_words import token_word, tokens_word
from bot.views.answer import answer_message
from bot.views.decision import decision_message
from bot.views.help import Usage, help_message
from jobs.operation import Answer, Kind, Operation, Table

_LISTED_MAX: Final = 20
_NUMBER_DIGITS_MAX: Final = 18

Word = Callable[[Desk, Typed, Sequence[str]], Awaitable[Message]]


async def answer(desk: Desk, typed: Typed) -> Message:
    """What `/db <text>` brings.

    Raises:
        ExplainedError: it was not understood, is not allowed, or cannot be done now.
    """
    first, *rest = words(typed.text) or ["help"]
    name = first.lower()
    if own := _OWN.get(name):
        if name != "help":
            await desk.person(typed.team, typed.user)
        return await own.answer(desk, typed, rest)
    if name not in desk.operations:
        raise unknown(first, [*_OWN, *desk.operations])
    try:
        return await desk.operate(typed, name, rest)
    except MissingInputError as missing:
        return await form_instead(desk, typed, missing)


async def _help(desk: Desk, _: Typed, rest: Sequence[str]) -> Message:
    about = rest[0].lower() if rest else ""
    usages = {name: _usage(operation) for name, operation in desk.operations.items()}
    usages |= {name: own.usage for name, own in _OWN.items()}
    if about and about not in usages:
        raise unknown(about, usages)
    shown = [usages[about]] if about else list(usages.values())
    return help_message(shown, desk.inventory.databases, about=about)


async def _show(desk: Desk, _: Typed, rest: Sequence[str]) -> Message:
    return desk.cards.drawn(await desk.cards.record(_number(rest, "show")))


async def _cancel(desk: Desk, typed: Typed, rest: Sequence[str]) -> Message:
    pressed = Pressed(team=typed.team, user=typed.user, value="", delivery=typed.delivery)
    return await desk.cancel_request(pressed, _number(rest, "cancel"))


async def _pause(word: str, desk: Desk, typed: Typed, rest: Sequence[str]) -> Message:
    pressed = Pressed(team=typed.team, user=typed.user, value="", delivery=typed.delivery)
    number = _number(rest, word)
    return await desk.pause_request(pressed, number, go_on=word == "resume")


async def _withdraw(desk: Desk, typed: Typed, rest: Sequence[str]) -> Message:
    record = await desk.cards.record(_number(rest, "withdraw"))
    decision = await desk.decider.withdraw(await desk.caller(typed), record)
    return decision_message(ok=decision.ok, problem=decision.problem, next_step=decision.next_step)


async def _audit(desk: Desk, _: Typed, rest: Sequence[str]) -> Message:
    request_id, chain = None, None
    if rest and rest[0].lstrip("#").isdecimal():
        request_id = _number(rest, "audit")
    elif rest:
        chain = desk.inventory.database(rest[0]).name
    lines = await audit_lines.newest(
        desk.store, request_id=request_id, chain=chain, rows_max=_LISTED_MAX
    )
    about = f"request {request_id}" if request_id else chain or "everything"
    rows = tuple(
        (
            f"{line.chain or '-'} {line.seq}",
            f"{line.at:%Y-%m-%d %H:%M:%S}",
            line.actor,
            line.action,
            str(line.request_id or "-"),
        )
        for line in lines
    )
    return answer_message(
        Answer(
            title=f"Audit of {about}",
            lines=("The newest first, in UTC. `twokey audit verify` checks all of it.",),
            table=Table(columns=("Entry", "At", "Who", "What", "Request"), rows=rows)
            if rows
            else None,
        )
    )


async def _policy(desk: Desk, _: Typed, rest: Sequence[str]) -> Message:
    policy = desk.approvals.policy.values
    if not rest:
        return answer_message(Answer(title="The policy", lines=tuple(explain_policy(policy))))
    operation = desk.operations.get(rest[0].lower())
    if operation is None:
        raise unknown(rest[0], desk.operations)
    attributes: dict[str, str | int] = {"operation": operation.name, "risk": str(operation.risk)}
    if len(rest) > 1:
        database = desk.inventory.database(rest[1])
        attributes |= {
            "database": database.name,
            "environment": database.environment,
            "tier": str(database.tier),
        }
    rule = policy.matching(attributes)
    lines = explain_rule(rule) if rule else ["No rule matches: it would be refused."]
    return answer_message(
        Answer(title=f"Who must agree to {' '.join(rest[:2])}", lines=tuple(lines))
    )


async def _break_glass(desk: Desk, typed: Typed, rest: Sequence[str]) -> Message:
    number, reason = _number(rest, "break-glass"), " ".join(rest[1:])
    record = await desk.cards.record(number)
    await desk.person(typed.team, typed.user)
    answer = await desk.approving.break_glass(await desk.caller(typed), record, reason)
    if isinstance(answer, Decision):
        return told(answer)
    await desk.windows.open(typed.trigger, answer)
    return Message(text="", blocks=())  # the window asks for the rest


async def _review(desk: Desk, typed: Typed, rest: Sequence[str]) -> Message:
    number, found = _number(rest, "review"), " ".join(rest[1:])
    await desk.cards.record(number)
    return await desk.decide(
        "review",
        desk.approvals.review(
            number,
            by=await desk.person(typed.team, typed.user),
            reason=found,
            door=Door.SLACK,
            delivery=typed.delivery,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Own:
    """A word of the bot's own."""

    usage: Usage
    answer: Word


def _own(example: str, summary: str, handler: Word, *, needs_approval: bool = False) -> _Own:
    return _Own(
        usage=Usage(example=example, summary=summary, needs_approval=needs_approval),
        answer=handler,
    )


_OWN: Final[Mapping[str, _Own]] = MappingProxyType(
    {
        "form": _own("/db form backup", "A form for an operation", form_word),
        "requests": _own(
            "/db requests orders", "What waits for you, is at work, or was asked for", requests_word
        ),
        "show": _own("/db show 12", "A request with its buttons", _show),
        "cancel": _own("/db cancel 12", "Cancel a request, or stop its run", _cancel),
        "pause": _own(
            "/db pause 12", "Have a run wait, such as a backfill", partial(_pause, "pause")
        ),
        "resume": _own("/db resume 12", "Have it go on", partial(_pause, "resume")),
        "withdraw": _own("/db withdraw 12", "Take your own vote back", _withdraw),
        "ack": _own("/db ack 7", "Say that you look after an incident", ack_word),
        "audit": _own("/db audit orders", "Who did what, newest first", _audit),
        "policy": _own("/db policy backup orders", "Who must agree to what", _policy),
        "break-glass": _own(
            "/db break-glass 12 the site is down", "Run without the votes, loudly", _break_glass
        ),
        "review": _own("/db review 12 it was needed", "Close what ran without votes", _review),
        "token": _own("/db token 8 laptop", "A token for the API and the command line", token_word),
        "tokens": _own("/db tokens", "Which of your tokens still live", tokens_word),
        "mfa": _own("/db mfa enroll", "Your second factor", mfa.answer),
        "approvals": _own(
            "/db approvals orders 30d", "How agreeing goes, in numbers", approvals_word
        ),
        "delegate": _own(
            "/db delegate @colleague until Friday", "Who votes in your place", delegate_word
        ),
        "help": _own("/db help backup", "What can be typed", _help),
    }
)
OWN_WORDS: Final = frozenset(_OWN)


def _usage(operation: Operation) -> Usage:
    example = operation.example
    return Usage(
        example=example if example.startswith("/") else f"/db {example}",
        summary=operation.summary,
        needs_approval=operation.kind is Kind.CHANGE,
    )


def _number(rest: Sequence[str], word: str) -> RequestId:
    text = rest[0].lstrip("#") if rest else ""
    if not (text.isascii() and text.isdecimal() and len(text) <= _NUMBER_DIGITS_MAX):
        raise BadInputError(
            f"/db {word} needs the number of a request"
            + (f", and {rest[0]!r} is none." if rest else "."),
            next_step=f"Write it like this: {_OWN[word].usage.example}",
        )
    return RequestId(int(text))
