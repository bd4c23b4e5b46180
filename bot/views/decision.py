"""What became of what somebody asked or decided, for them alone. Pure."""

from __future__ import annotations

from approvals.missing import Need, needs_in_words
from bot.blocks import Message, escape, one_line, section
from bot.views.card import Card
from bot.views.errors import problem_message


def asked_message(
    *, ok: bool, problem: str, next_step: str, card: Card | None, channel: str
) -> Message:
    """The answer to a change that was asked for: its number, who must agree, where its card is."""
    if not ok or card is None:
        return problem_message(problem, next_step)
    who = _who_must_agree(card)
    text = (
        f"Request {card.request_id} is stored: {one_line(card.plan.title)}. {who} "
        f"Its card comes to <#{channel}>."
    )
    markup = (
        f"🔑 Request *#{card.request_id}* is stored: *{one_line(card.plan.title)}*\n{who}\n"
        f"Its card comes to <#{channel}>."
    )
    return Message(text=text, blocks=(section(markup),))


def decision_message(*, ok: bool, problem: str, next_step: str) -> Message:
    """The answer to a vote or a cancellation."""
    if not ok:
        return problem_message(problem, next_step)
    text = f"{escape(problem)} {escape(next_step)}".strip()
    return Message(text=text, blocks=(section(f"✅ {text}"),))


def _who_must_agree(card: Card) -> str:
    if not card.gates:
        return "Nobody has to agree."
    needs = [f"{gate.need} of {one_line(gate.who)}" for gate in card.gates]
    asked = needs_in_words([Need(text=need) for need in needs], card.ways, ordered=card.ordered)
    return f"Who must agree: {asked}."
