"""`twokey policy`: check a policy, play scenarios against it, explain what it asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from approvals.policy_file import LoadedPolicy, load_policy
from approvals.rules import Attribute
from approvals.scenarios import ScenarioResult, exit_status, run_files
from approvals.words import BadInputError
from bot.cli.output import JsonOption, say, say_json
from bot.explain import explain_policy, explain_rule, who
from bot.inventory import load_inventory
from bot.settings import load_settings

policy_app = typer.Typer(help="Look at the approval policy.", no_args_is_help=True)

PolicyFile = Annotated[
    Path | None,
    typer.Option("--policy", help="A policy file; the inventory's own when left out."),
]


@policy_app.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="A policy file; the inventory's own when left out.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a policy file; ends with 2 when it cannot be used."""
    policy = _load(file)
    if as_json:
        say_json(
            {"ok": True, "hash": policy.hash, "rules": [rule.name for rule in policy.values.rules]}
        )
        return
    say(f"Fine: {len(policy.values.rules)} rule(s), hash {policy.hash[:12]}.")


@policy_app.command("test")
def play(
    files: Annotated[list[Path], typer.Argument(help="Scenario files, JSON or YAML.")],
    as_json: JsonOption = False,
) -> None:
    """Play scenarios; ends with 1 when one does not meet its expectation, 2 for a bad file."""
    results = run_files(files)
    if as_json:
        say_json([result.as_json() for result in results])
    else:
        for result in results:
            for line in _told(result):
                say(line)
        good = sum(result.ok for result in results)
        say(f"{good} of {len(results)} scenarios as expected.")
    raise typer.Exit(exit_status(results))


@policy_app.command()
def explain(
    attributes: Annotated[
        list[str] | None,
        typer.Argument(help="What is asked for, such as operation=backup environment=production."),
    ] = None,
    policy_file: PolicyFile = None,
    as_json: JsonOption = False,
) -> None:
    """Say which rule a request would meet and who must agree; all rules without arguments.

    Ends with 1 when no rule matches: such a request is refused.
    """
    policy = _load(policy_file).values
    if not attributes:
        if as_json:
            say_json([{"rule": rule.name, "lines": explain_rule(rule)} for rule in policy.rules])
        else:
            say("\n".join(explain_policy(policy)))
        return
    rule = policy.rule_for(dict(_pair(text) for text in attributes))
    if as_json:
        say_json(
            {"rule": None, "gates": []}
            if rule is None
            else {
                "rule": rule.name,
                "gates": [
                    {"id": gate.id, "approve": gate.approve, "who": who(gate)}
                    for gate in rule.gates
                ],
            }
        )
    else:
        say("\n".join(explain_rule(rule)) if rule else "No rule matches: it is refused.")
    if rule is None:
        raise typer.Exit(1)


def _load(file: Path | None) -> LoadedPolicy:
    return load_policy(file or load_inventory(load_settings().config).policy)


def _pair(text: str) -> tuple[str, Attribute]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise BadInputError(
            f"{text!r} is no attribute.", next_step="Write name=value, such as operation=backup."
        )
    if value in {"true", "false"}:
        return name, value == "true"
    return name, int(value) if value.lstrip("-").isdecimal() else value


def _told(result: ScenarioResult) -> list[str]:
    state = result.state if isinstance(result.state, str) else dict(result.state)
    head = f"{'ok  ' if result.ok else 'FAIL'} {result.id}: {state}"
    return [head, *(f"     {line}" for line in result.mismatches)]
