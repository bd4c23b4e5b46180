"""Requests as lines for a terminal, in which nobody's text can act or pretend. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bot.blocks import neutralise


def line(text: object) -> str:
    """Somebody's text on one line: no control, no direction, no line end of its own."""
    return neutralise(str(text)).replace("\n", " ⏎ ").replace("\t", " ")


def lines(text: object, indent: str = "  ") -> Iterator[str]:
    """Somebody's text of several lines, each marked as theirs by its indent."""
    for each in neutralise(str(text)).split("\n"):
        yield f"{indent}{each.expandtabs(4)}"


def document(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """JSON in ASCII: a terminal shows it and does nothing else with it."""
    return json.dumps(value, ensure_ascii=True, indent=2, default=str).replace("\x7f", "\\u007f")


def request_lines(request: Mapping[str, Any]) -> Iterator[str]:
    """A request with its plan in full."""
    plan = request["plan"]
    yield f"Request {int(request['id'])}: {line(request['state'])}"
    yield line(plan.get("title", ""))
    yield ""
    yield from _facts(request)
    yield from _listed("Facts", [f"{name}: {value}" for name, value in plan.get("facts", ())])
    yield from _listed("Steps", _numbered(plan.get("steps", ())))
    yield from _listed("Statements", plan.get("statements", ()))
    yield from _listed("Warnings", [f"! {warning}" for warning in plan.get("warnings", ())])
    pins = sorted((plan.get("pins") or {}).items())
    yield from _listed("Must still hold when it starts", [f"{n}: {v}" for n, v in pins])
    yield from _listed("Undo", [plan.get("undo") or "There is none."])
    yield from _listed("Who must agree", [_gate(gate) for gate in request["gates"]])
    yield from _listed("Votes", [_vote(vote) for vote in request["votes"]])
    if request.get("note"):
        yield from _listed("Note", [request["note"]])
    yield f"Plan   {line(request['plan_hash'])}"
    yield f"Policy {line(request['policy_hash'])}  step {line(request['step'])}"


def request_row(request: Mapping[str, Any]) -> str:
    """A request in a list."""
    missing = f", needs {line(request['missing'])}" if request["missing"] else ""
    return (
        f"{int(request['id']):>6}  {line(request['state']):<12}  {line(request['title'])}"
        f"  (by {line(request['asked_by'])}{missing})"
    )


def _facts(request: Mapping[str, Any]) -> Iterator[str]:
    estimate = request["plan"].get("estimate_seconds")
    facts = {
        "Operation": request["operation"],
        "Database": request["database"],
        "Asked by": request["asked_by"],
        "Asked at": request["asked_at"],
        "Expires at": request["expires_at"],
        "Rule": request["rule"],
        "Missing": request["missing"],
        "Estimate": f"{estimate} s" if estimate is not None else "",
    }
    for name, value in facts.items():
        if value:
            yield f"{name + ':':<12} {line(value)}"
    if request["reason"]:
        yield "Why:"
        yield from lines(request["reason"])


def _listed(title: str, texts: Sequence[str]) -> Iterator[str]:
    if texts:
        yield f"{title}:"
        for text in texts:
            yield from lines(text)


def _numbered(steps: Sequence[str]) -> list[str]:
    return [f"{number}. {step}" for number, step in enumerate(steps, 1)]


def _gate(gate: Mapping[str, Any]) -> str:
    have = ", ".join(line(person) for person in gate["have"])
    so_far = f"{len(gate['have'])} of {gate['need']}"
    return f"{line(gate['who'])}: {so_far}{f' ({have})' if have else ''}"


def _vote(vote: Mapping[str, Any]) -> str:
    because = f": {line(vote['reason'])}" if vote["reason"] else ""
    return f"{line(vote['person'])} {line(vote['verdict'])} at {line(vote['at'])}{because}"
