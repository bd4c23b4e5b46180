"""`twokey policy`: check a policy, play scenarios against it, explain what it asks for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from approvals.policy_file import LoadedPolicy, load_policy
from approvals.rules import Attribute
from approvals.scenarios import ScenarioResult, exit_status, run_files
from approvals.words import BadInputError
from bot.cli.output import JsonOption, run, say, say_json
from bot.cli.policy_work import backtested, checks
from bot.explain import explain_policy, explain_rule, who
from bot.inventory import Inventory, load_inventory
from bot.settings import Settings, load_settings

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
    """Prove what a policy must keep; ends with 1 for a broken promise, 2 for a file of no use.

    What could not be looked at, such as today's groups without a Slack token, is said to be
    not proven.
    """
    settings = load_settings()
    policy, inventory = _load(file), _inventory(settings)
    checked = run(checks(policy, settings, inventory))
    if as_json:
        say_json(checked.as_json())
    else:
        for line in checked.lines:
            say(line)
    if not checked.is_fine:
        raise typer.Exit(1)


@policy_app.command()
def backtest(
    file: Annotated[Path, typer.Argument(help="The new policy file.")],
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Only what was asked since this day, in UTC."),
    ] = None,
    fail_on_change: Annotated[
        bool, typer.Option("--fail-on-change", help="End with 1 when anything would differ.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Replay what was decided under another policy, and say what it would have changed."""
    settings = load_settings()
    start = None if since is None else since.replace(tzinfo=UTC)
    summary = run(backtested(load_policy(file), settings, since=start, as_json=as_json))
    if fail_on_change and summary.changed:
        raise typer.Exit(1)


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

    Ends with 1 when no rule matches, or one that refuses.
    """
    policy = _load(policy_file).values
    if not attributes:
        if as_json:
            say_json([{"rule": rule.name, "lines": explain_rule(rule)} for rule in policy.rules])
        else:
            say("\n".join(explain_policy(policy)))
        return
    rule = policy.matching(dict(_pair(text) for text in attributes))
    if as_json:
        say_json(
            {"rule": None, "gates": []}
            if rule is None
            else {
                "rule": rule.name,
                "refuses": rule.refuse,
                "gates": [
                    {"id": gate.id, "approve": gate.approve, "who": who(gate)}
                    for gate in rule.gates
                ],
            }
        )
    else:
        say("\n".join(explain_rule(rule)) if rule else "No rule matches: it is refused.")
    if rule is None or rule.refuse:
        raise typer.Exit(1)


def _inventory(settings: Settings) -> Inventory | None:
    """The inventory, if there is one: a policy can be looked at without."""
    try:
        return load_inventory(settings.config)
    except BadInputError:
        return None


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
