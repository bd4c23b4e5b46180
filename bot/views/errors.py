"""What went wrong, for the person who meets it. Pure."""

from __future__ import annotations

from bot.blocks import Message, escape, sections


def problem_message(problem: str, next_step: str) -> Message:
    """A problem and the next step."""
    markup = f"⚠️ {escape(problem)}"
    if next_step:
        markup += f"\n→ {escape(next_step)}"
    return Message(
        text=f"{escape(problem)} {escape(next_step)}".strip(),
        blocks=tuple(sections(markup)),
        is_problem=True,
    )


def broken_message(reference: str, *, stored: bool) -> Message:
    """Something of ours broke. `stored`: it may have happened after something was stored."""
    known = (
        "Whether it was stored is not certain: /db requests says what stands."
        if stored
        else "Nothing was changed."
    )
    return problem_message(
        f"Something broke on our side (id {reference}). {known}",
        f"Tell the people who run Twokey the id {reference}; their log has the rest.",
    )
