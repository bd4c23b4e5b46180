"""The message of a request, in every state. Pure.

One function draws it and the message is always replaced whole, so that what people see
cannot drift from what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Final, assert_never

from approvals.missing import Need, needs_in_words
from approvals.words import State, Verdict
from bot.blocks import (
    MESSAGE_BLOCKS_MAX,
    MESSAGE_TEXT_CHARS_MAX,
    Block,
    Message,
    actions,
    button,
    code,
    code_blocks,
    confirm,
    context,
    fields,
    mention,
    moment,
    one_line,
    quote,
    quoted,
    section,
    shorten,
    titled,
)
from bot.buttons import Purpose
from bot.views.abort import (
    ENDING_HEADING,
    ENDING_MARK,
    abort_button,
    ending_status,
    is_ending,
)
from bot.views.approve import asks_more
from bot.views.card import Card, GateLine
from bot.views.details import care_lines
from bot.views.menu import menu_elements, menu_notes
from bot.views.pause import (
    PAUSED_HEADING,
    PAUSED_MARK,
    is_paused,
    pause_buttons,
    paused_status,
)
from bot.views.words import count, seconds_in_words

Tokens = Callable[[Purpose], str]

# The card shows this much of the plan; the rest is announced and stands in the details.
FACTS_MAX: Final = 20
STEPS_MAX: Final = 15
WARNINGS_MAX: Final = 8
_STATEMENT_CHARS_MAX: Final = 2500
_STEP_CHARS_MAX: Final = 500
_STEPS_CHARS_MAX: Final = 2700
_VOTES_MAX: Final = 10
_SHORT_CHARS_MAX: Final = 2800
_REST: Final = "press Details"
_MARKS: Final = {
    State.PENDING: "🔑",
    State.APPROVED: "🔓",
    State.EXECUTING: "⏳",
    State.DONE: "✅",
    State.FAILED: "❌",
    State.DENIED: "⛔",
    State.CANCELLED: "↩️",
    State.EXPIRED: "⌛",
    State.REFUSED: "⛔",
    State.NEEDS_REVIEW: "🔔",
    State.CLOSED: "✅",
}
_HEADINGS: Final = {
    State.PENDING: "Waiting for approval",
    State.APPROVED: "Approved",
    State.EXECUTING: "Running",
    State.DONE: "Done",
    State.FAILED: "Failed",
    State.DENIED: "Denied",
    State.CANCELLED: "Cancelled",
    State.EXPIRED: "Expired",
    State.REFUSED: "Refused",
    State.NEEDS_REVIEW: "Owes a review",
    State.CLOSED: "Reviewed and closed",
}


def request_message(card: Card, *, tokens: Tokens) -> Message:
    """The message for a request, whatever state it is in.

    `tokens` gives the sealed value of each of its buttons.
    """
    blocks = [
        *titled(card.plan.title, mark=_mark(card), rest=_REST),
        *_who(card),
        *_plan(card),
        *_agreement(card),
        *([section(f"🚨 *{_short(one_line(card.glass))}*")] if card.glass else []),
        section(f"*{_heading(card)}*\n{_short(status(card))}", block_id="status"),
        *_buttons(card, tokens),
    ]
    if len(blocks) > MESSAGE_BLOCKS_MAX:
        raise ValueError(f"the card of request {card.request_id} has {len(blocks)} blocks")
    return Message(text=sentence(card), blocks=tuple(blocks))


def sentence(card: Card) -> str:
    """The whole card in a sentence or two, for notifications and screen readers."""
    text = (
        f"Request {card.request_id} by {mention(card.asked_by)}: {one_line(card.plan.title)}. "
        f"{_heading(card)}. {status(card)}"
    )
    return shorten(text.replace("*", "").replace("\n", " "), MESSAGE_TEXT_CHARS_MAX)


def status(card: Card) -> str:  # noqa: PLR0911 - a line per state
    """Where the request stands and what happens next, as markup."""
    match card.state:
        case State.PENDING:
            note = f"\n{_note(card)}" if card.note else ""
            return f"{_missing(card)} Expires {moment(card.expires_at)}.{note}"
        case State.APPROVED:
            return _approved(card)
        case State.EXECUTING:
            return _running(card)
        case State.DONE | State.CLOSED | State.FAILED:
            return _note(card) or "The thread says what happened."
        case State.DENIED:
            return _denied(card)
        case State.CANCELLED | State.REFUSED:
            return _note(card) or "Nothing was changed."
        case State.EXPIRED:
            return "Nobody may run it any more. Ask again if it is still wanted."
        case State.NEEDS_REVIEW:
            note = f"{_note(card)}\n" if card.note else ""
            command = f"`/db review {card.request_id} &lt;what you found&gt;`"
            return f"{note}Somebody else must review it: {command}"
        case _:
            assert_never(card.state)


def _running(card: Card) -> str:
    if is_ending(card):
        return ending_status(card)
    if is_paused(card):
        return paused_status(card)
    return "A worker is at it. Progress is in this message's thread."


def _mark(card: Card) -> str:
    if is_ending(card):
        return ENDING_MARK
    return PAUSED_MARK if is_paused(card) else _MARKS[card.state]


def _heading(card: Card) -> str:
    if is_ending(card):
        return ENDING_HEADING
    return PAUSED_HEADING if is_paused(card) else _HEADINGS[card.state]


def _who(card: Card) -> list[Block]:
    where = f" on *{one_line(card.database)}*" if card.database else ""
    who = (
        f"Request *#{card.request_id}* · {code(card.operation)}{where} · "
        f"asked by {mention(card.asked_by)} {moment(card.asked_at)}"
    )
    reason = [section(shorten(quote(card.reason), 2900, rest=_REST))] if card.reason else []
    return [section(who), *reason]


def _plan(card: Card) -> list[Block]:
    plan = card.plan
    return [
        *fields(plan.facts[:FACTS_MAX], rest=_REST),
        *_steps(plan.steps),
        *_statements(plan.statements),
        *(section(f"⚠️ {_short(quoted(warning))}") for warning in plan.warnings[:WARNINGS_MAX]),
        *_more(
            (len(plan.facts) - FACTS_MAX, "fact"),
            (len(plan.warnings) - WARNINGS_MAX, "warning"),
        ),
        context(
            f"Estimate: {seconds_in_words(plan.estimate_seconds)}",
            f"Undo: {_short(one_line(plan.undo)) if plan.undo else 'there is none'}",
        ),
    ]


def _steps(steps: Sequence[str]) -> list[Block]:
    lines: list[str] = []
    for number, step in enumerate(steps[:STEPS_MAX], 1):
        line = f"{number}. {shorten(one_line(step), _STEP_CHARS_MAX, rest=_REST)}"
        if sum(map(len, lines)) + len(line) > _STEPS_CHARS_MAX:
            break
        lines.append(line)
    if rest := len(steps) - len(lines):
        lines.append(f"⚠️ …and {count(rest, 'more step')}: press Details.")
    return [section("\n".join(["*Steps*", *lines]))] if steps else []


def _statements(statements: Sequence[str]) -> list[Block]:
    if not statements:
        return []
    text = "\n".join(statements)
    if len(text) <= _STATEMENT_CHARS_MAX:
        return [section("*Statements*"), *code_blocks(text)]
    left_out = len(text) - _STATEMENT_CHARS_MAX
    return [
        section("*Statements*"),
        *code_blocks(text[:_STATEMENT_CHARS_MAX]),
        section(
            f"⚠️ *This is not all of it:* {count(left_out, 'more character')} "
            "stand in Details. Read them before you approve."
        ),
    ]


def _more(*rests: tuple[int, str]) -> list[Block]:
    hidden = [count(rest, f"more {what}") for rest, what in rests if rest > 0]
    return [section(f"…and {', '.join(hidden)}: press Details.")] if hidden else []


def _agreement(card: Card) -> list[Block]:
    if not card.gates:
        return [section(f"*Who must agree*\nNobody: the rule {one_line(card.rule)} says so.")]
    lines = [_gate(gate) for gate in card.gates]
    care = care_lines(card.care) if card.state is State.PENDING else []
    needs = [f"*Approving needs:* {', '.join(care)}."] if care else []
    denials = [vote for vote in card.votes if vote.verdict is Verdict.DENY]
    votes = [
        f"{mention(vote.who)} denied: {one_line(vote.reason) or 'no reason given'}"
        for vote in denials[-_VOTES_MAX:]
    ]
    if earlier := len(denials) - len(votes):
        votes = [f"…and {count(earlier, 'earlier denial')}: press Details.", *votes]
    head = "\n".join(["*Who must agree*", *lines])
    return [
        section(_short(head)),
        *([section(needs[0])] if needs else []),
        *([section(_short("\n".join(votes)))] if votes else []),
    ]


def _gate(gate: GateLine) -> str:
    mark = "☑" if gate.is_met else "☐"
    names = ", ".join(_seated(gate))
    waiting = "" if gate.is_open or gate.is_met else " (after the gates above)"
    return (
        f"{mark} {one_line(gate.who)}: {len(gate.have)} of {gate.need}"
        f"{f' · {names}' if names else ''}{waiting}"
    )


def _seated(gate: GateLine) -> list[str]:
    """Whose seats are taken, such as `@Cleo for @Ben` where somebody stood in."""
    return [
        f"{mention(stand_in)} for {mention(owner)}" if stand_in else mention(owner)
        for owner, stand_in in zip_longest(gate.have, gate.stand_ins, fillvalue="")
    ]


def _missing(card: Card) -> str:
    needs = [
        Need(
            text=f"{count(gate.need - len(gate.have), 'approval')} of {one_line(gate.who)}",
            is_met=gate.is_met,
        )
        for gate in card.gates
    ]
    missing = needs_in_words(needs, card.ways, ordered=card.ordered)
    return f"Needs {missing}." if missing else "The votes are complete."


def _approved(card: Card) -> str:
    if card.not_before is not None:
        return f"It starts {moment(card.not_before)} or later."
    limit = card.approval_expires_at
    until = f" The approval is valid until {moment(limit)}." if limit else ""
    return f"It starts as soon as a worker is free.{until}"


def _denied(card: Card) -> str:
    for vote in reversed(card.votes):
        if vote.verdict is Verdict.DENY:
            reason = f"\n{_short(quote(vote.reason))}" if vote.reason else ""
            return f"By {mention(vote.who)} {moment(vote.at)}.{reason}"
    return _note(card) or "Nothing was changed."


def _note(card: Card) -> str:
    return quoted(card.note).removeprefix("\n")


def _short(markup: str) -> str:
    return shorten(markup, _SHORT_CHARS_MAX, rest=_REST)


def _buttons(card: Card, tokens: Tokens) -> list[Block]:
    request = f"request {card.request_id}"
    details = button(
        "Details",
        action_id="details",
        value=tokens(Purpose.DETAILS),
        label=f"Details of {request}: the whole plan",
    )
    match card.state:
        case State.PENDING:
            row = [
                button(
                    "Approve", action_id="approve", value=tokens(Purpose.APPROVE), style="primary",
                    asks=None if asks_more(card.care) else _approve_dialog(card),
                    label=f"Approve {request}",
                ),
                button(
                    "Deny", action_id="deny", value=tokens(Purpose.DENY), style="danger",
                    label=f"Deny {request}; asks for your reason",
                ),
                details,
                _cancel(card, tokens),
            ]  # fmt: skip
        case State.APPROVED:
            row = [details, _cancel(card, tokens)]
        case State.EXECUTING:
            row = [details, *_stop(card, tokens), *pause_buttons(card, tokens)]
        case _:
            row = [details]
    row += menu_elements(card.menu, card.request_id)
    return [*menu_notes(card.menu), actions(*row, block_id=f"request-{card.request_id}")]


def _approve_dialog(card: Card) -> Block:
    plan = card.plan
    warned = f" It has {count(len(plan.warnings), 'warning')}." if plan.warnings else ""
    return confirm(
        "Turn your key?",
        f"Approve request {card.request_id}: {shorten(one_line(plan.title), 150)}?{warned} "
        "Your vote is recorded under your name.",
        yes="Approve",
        no="Not yet",
        danger=False,
    )


def _stop(card: Card, tokens: Tokens) -> list[Block]:
    return abort_button(card, tokens) if card.ends_in_order else [_cancel(card, tokens)]


def _cancel(card: Card, tokens: Tokens) -> Block:
    running = card.state is State.EXECUTING
    return button(
        "Stop" if running else "Cancel",
        action_id="cancel",
        value=tokens(Purpose.CANCEL),
        label=f"Cancel request {card.request_id}",
        asks=confirm(
            "Stop the run?" if running else "Cancel the request?",
            "The run is stopped at its next safe point. What it has done so far stays."
            if running
            else f"Request {card.request_id} ends here. Asking again starts from the beginning.",
            yes="Stop it" if running else "Cancel it",
            no="Leave it",
            danger=True,
        ),
    )
