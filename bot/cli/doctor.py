"""`twokey doctor`: what is wrong, and how to mend it."""

from __future__ import annotations

from dataclasses import asdict

import typer

from approvals.counting import count_text
from bot.cli.output import JsonOption, run, say, say_json
from bot.doctor import examine

doctor_app = typer.Typer()


@doctor_app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Look at settings, inventory, store, databases, tools and Slack; 1 when something is wrong."""
    findings = run(examine())
    if as_json:
        say_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            say(f"{'ok  ' if finding.ok else 'FAIL'} {finding.name}: {finding.says}")
            if not finding.ok:
                say(f"     → {finding.fix}")
        wrong = sum(not finding.ok for finding in findings)
        say(f"{count_text(wrong, 'thing')} to mend." if wrong else "Everything is in order.")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
