"""Who could vote, for rules that refuse what nobody could grant (`check_satisfiable`)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from approvals.rules import Rule
from approvals.words import DirectoryDownError, Person, RefusedError
from bot.people import People

# Among more than these there are enough; looking all of them up would cost the answer's time.
ACCOUNTS_MAX: Final = 100


async def electorate(people: People, rule: Rule) -> Sequence[Person] | None:
    """Everybody whom the rule's gates name, as the directory knows them now.

    None: there are so many that nothing needs to be counted.

    Raises:
        DirectoryDownError: Slack cannot be asked.
    """
    groups = {name for gate in rule.gates for name in gate.groups | gate.escalate_groups}
    users = {name for gate in rule.gates for name in gate.users}
    accounts = {
        f"{people.team}/{user}" for group in sorted(groups) for user in await people.members(group)
    }
    accounts |= {found for name in sorted(users) if (found := await people.account_of(name))}
    if len(accounts) > ACCOUNTS_MAX:
        return None
    looked_up = await asyncio.gather(*(_person(people, account) for account in sorted(accounts)))
    return [person for person in looked_up if person is not None]


async def _person(people: People, account: str) -> Person | None:
    team, _, user = account.partition("/")
    try:
        return await people.by_slack(team, user)
    except DirectoryDownError:
        raise
    except RefusedError:
        return None  # gone
