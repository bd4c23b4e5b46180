"""Who is away, and whose seat somebody may therefore sit in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from approvals.delegations import Delegations
from approvals.directory import Directory
from approvals.rules import Delegation
from approvals.tally import absent_for
from approvals.words import DirectoryDownError, Person, PersonId, RefusedError


async def absentees(
    by: Person,
    *,
    named: Iterable[Delegation],
    given: Delegations,
    directory: Directory | None,
    now: datetime,
) -> Mapping[PersonId, Person]:
    """Those in whose seats `by` may sit now, looked up fresh; nobody without a directory.

    `named` are the policy's delegations, `given` those that people have made.

    Raises:
        DirectoryDownError: the directory cannot be read.
    """
    if directory is None:
        return {}
    names = absent_for(named, by, now)
    accounts = {PersonId(name): name if "/" in name else "" for name in names}
    for each in await given.of(by.id):
        if each.stand_in == by.id and each.holds(now):
            accounts[each.absent] = each.absent_slack
    found: dict[PersonId, Person] = {}
    for name, slack in sorted(accounts.items()):
        try:
            person = await directory.by_id(name, slack)
        except DirectoryDownError:
            raise
        except RefusedError:
            continue
        if name.casefold() in person.identities:  # else the account is somebody else's now
            found[person.id] = person
    return found
