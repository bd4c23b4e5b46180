"""What index advice says to people, and the forms that it fills in. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from jobs.operation import Suggestion
from jobs.text import count_text, span_text
from postgres.health.advisor import Advice
from postgres.health.advisor_candidates import Gain, Proposal
from postgres.health.index_terms import written
from postgres.health.indexes import UNUSED_AFTER, Counted, Finding, Flaw
from postgres.health.statement_text import shown
from postgres.sizes import pretty_bytes

PROPOSALS_SHOWN: Final = 8
GAINS_SHOWN: Final = 3
SUGGESTIONS_MAX: Final = 5
_WEEK: Final = timedelta(days=7)
_DAY: Final = timedelta(days=1)
_TEXT_CHARS_MAX: Final = 90


def proposal_lines(number: int, proposal: Proposal, advice: Advice) -> list[str]:
    """One index that is missing: on what, what it brings and costs, and who gains."""
    head = f"{number}. {proposal.table.text} ({written(proposal.terms)['columns']})"
    if not proposal.is_tried:
        tables = f"{count_text(len(proposal.gains), 'statement')} would be looked up by it"
        return [head, f"A guess, without numbers: {tables}; see what is missing above."]
    lines = [head, f"{_brings(proposal, advice)}. {_costs(proposal, advice)}."]
    hints = sorted({gain.hint for gain in proposal.gains if gain.hint})
    lines.append(_confidence(proposal, hints))
    gains = sorted(proposal.gains, key=lambda gain: -(gain.saved_ms or 0))
    lines += [_gain_line(gain) for gain in gains[:GAINS_SHOWN]]
    if len(gains) > GAINS_SHOWN:
        lines.append(f"… and {count_text(len(gains) - GAINS_SHOWN, 'more statement')}")
    return lines


def finding_row(finding: Finding) -> tuple[str, str, str, str]:
    """One index that is there: what, which, how large, and why."""
    index = finding.index
    match finding.flaw:
        case Flaw.INVALID:
            why = "left half-built: every write maintains it, and no query uses it"
        case Flaw.DUPLICATE:
            why = f"the same as {finding.by.name if finding.by else 'another'}"
        case Flaw.REDUNDANT:
            why = f"{finding.by.name if finding.by else 'a wider one'} begins with its columns"
        case Flaw.UNUSED:
            why = f"not used on any node in {UNUSED_AFTER.days} days"
    kept = f"; but {finding.but}" if finding.but else ""
    return (str(finding.flaw), index.text, pretty_bytes(index.size_bytes), why + kept)


def unused_line(counted: Sequence[Counted]) -> str:
    """Since when each node counts, and from when on it can be told what is not used."""
    short = [each for each in counted if not each.is_long_enough]
    if not short:
        return (
            "Unused means: not once on any node since its statistics began. An index that was made"
            " since then shows so too, as PostgreSQL keeps no such date."
        )
    known = [each for each in short if each.since is not None]
    until = [
        f"{each.node} from {each.since + UNUSED_AFTER:%Y-%m-%d} on" for each in known if each.since
    ]
    if not until:
        return "Which indexes are not used cannot be told: the servers do not say since when."
    return (
        f"Which indexes are not used needs {UNUSED_AFTER.days} days of statistics, which began anew"
        f" with a reset or a crash: {'; '.join(until)} it can be told."
    )


def missing_lines(advice: Advice) -> list[str]:
    """What would be needed to say more, and what was not proposed and why."""
    lines = [f"{each.problem} {each.next_step}" for each in advice.missing]
    if advice.skipped:
        said = [f"{count} {why}" for why, count in sorted(advice.skipped.items(), key=_by_count)]
        lines.append(f"Statements without a proposal: {'; '.join(said)}.")
    if advice.left_out:
        lines.append(f"{count_text(advice.left_out, 'statement')} not looked at: no time left.")
    return lines


def create_suggestion(database: str, proposal: Proposal) -> Suggestion:
    """The form of `create-index`, filled in."""
    terms = {name: value for name, value in written(proposal.terms).items() if value}
    table = proposal.table
    return Suggestion(
        text=f"Create on {table.name} ({terms['columns']})"[:_TEXT_CHARS_MAX],
        operation="create-index",
        params={"database": database, "table": table.text, **terms},
        reason="/db indexes proposes it",
    )


def drop_suggestion(database: str, finding: Finding) -> Suggestion:
    """The form of `drop-index`, filled in."""
    return Suggestion(
        text=f"Drop {finding.index.name}"[:_TEXT_CHARS_MAX],
        operation="drop-index",
        params={"database": database, "index": finding.index.text},
        reason=f"/db indexes calls it {finding.flaw}",
    )


def _by_count(pair: tuple[str, int]) -> tuple[int, str]:
    return (-pair[1], pair[0])


def _brings(proposal: Proposal, advice: Advice) -> str:
    """How much time it saves: a week, where statements were counted for a day or more."""
    saved = timedelta(milliseconds=proposal.saved_ms)
    count = count_text(len(proposal.gains), "statement")
    if advice.since is None or advice.at is None:
        return f"Would have saved about {span_text(saved)} of what {count} took"
    span = advice.at - advice.since
    if span < _DAY:
        return f"Would have saved about {span_text(saved)} of {count} in the last {span_text(span)}"
    return f"Saves about {span_text(saved / (span / _WEEK))} a week of {count}"


def _costs(proposal: Proposal, advice: Advice) -> str:
    """Its size, and the writes that keep it up."""
    said = [f"About {pretty_bytes(proposal.size_bytes or 0)}"]
    table = proposal.table
    if advice.writes_since is not None and advice.at is not None:
        span = advice.at - advice.writes_since
        if span >= _DAY:
            said.append(f"kept up by about {table.writes / (span / _DAY):,.0f} writes a day")
        else:
            said.append(f"kept up by {table.writes:,} writes in the last {span_text(span)}")
    else:
        said.append(f"kept up by {table.writes:,} writes so far")
    if proposal.hot_lost >= 1:
        said.append(
            f"{proposal.hot_lost:,.0f} of the counted updates would no longer be cheap (HOT), as"
            " they write its columns"
        )
    return ", ".join(said)


def _confidence(proposal: Proposal, hints: Sequence[str]) -> str:
    if not hints:
        return "Likely: the planner takes it whatever the values are."
    if len(hints) < len(proposal.gains) and any(not gain.hint for gain in proposal.gains):
        return "Likely: for most of these statements whatever the values are."
    if all("%" in hint and "rows a call" in hint for hint in hints):
        return f"Likely for the rare values that are asked for: {'; '.join(hints)}."
    return f"Possible: it depends on the values that are asked for: {'; '.join(hints)}."


def _gain_line(gain: Gain) -> str:
    statement = gain.statement
    after = f"{gain.cost_after:,.0f}" if gain.cost_after is not None else "?"
    less = ""
    if gain.cost_after is not None:
        less = f" ({1 - gain.cost_after / gain.cost_before:.0%} less)"
    return (
        f"• {statement.calls:,} calls of {statement.mean_ms:,.1f} ms: cost"
        f" {gain.cost_before:,.0f} → {after}{less}: {shown(statement.text)}"
    )


def flaw_counts(findings: Sequence[Finding]) -> Mapping[Flaw, int]:
    """How many of each."""
    return {flaw: sum(each.flaw is flaw for each in findings) for flaw in Flaw}
