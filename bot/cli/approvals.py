"""`twokey approvals`: how agreeing goes, in numbers."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from approvals.policy_file import load_policy
from approvals.service import Approvals
from approvals.signing import VoteKeys
from approvals.statistics import Statistics
from bot.blocks import table
from bot.cli.output import JsonOption, run, say, say_json
from bot.inventory import load_inventory
from bot.process import utc_now
from bot.report import SINCE, as_answer, as_json, statistics_of
from bot.settings import load_settings
from bot.storage import open_store, vote_keys
from jobs.engine import PgQueue

approvals_app = typer.Typer(help="How agreeing goes, in numbers.", no_args_is_help=True)


@approvals_app.callback()
def approvals() -> None:
    """Numbers about groups and rules, never about a person."""


@approvals_app.command()
def report(
    since: Annotated[str, typer.Option(help="How far back, such as 30d or 2w.")] = SINCE,
    database: Annotated[str | None, typer.Option(help="One database; all when left out.")] = None,
    as_json_: JsonOption = False,
) -> None:
    """Lead times, lapses, re-approvals, how plans were read, broken glass and what is owed."""
    found = run(_found(since, database))
    if as_json_:
        say_json(as_json(found))
        return
    answer = as_answer(found)
    say(answer.title)
    for line in answer.lines:
        say(line)
    if answer.table is not None:
        say(table(answer.table.columns, answer.table.rows))


async def _found(since: str, database: str | None) -> Statistics:
    settings = load_settings()
    inventory = load_inventory(settings.config)
    name = inventory.database(database).name if database is not None else None
    current, previous = vote_keys(settings)
    async with open_store(settings, os.environ) as store:
        service = Approvals(
            store=store,
            keys=VoteKeys(current=current, previous=previous),
            queue=PgQueue(store),
            clock=utc_now,
            policy=load_policy(inventory.policy),
        )
        return await statistics_of(store, service, at=utc_now(), period=since, database=name)
