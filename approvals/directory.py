"""Who is who, as the engine needs to know it. The shell implements it over Slack."""

from __future__ import annotations

from typing import Protocol

from approvals.words import Person, PersonId


class Directory(Protocol):
    """The one place that knows people. Every answer is fresh: at most 60 s old."""

    async def by_slack(self, team: str, user: str) -> Person:
        """The person behind a Slack account, with what makes them unfit as flags.

        Raises:
            DirectoryDownError: the directory cannot be read.
            RefusedError: nobody has this account (`Why.IDENTITY`).
        """
        ...

    async def by_id(self, person: PersonId, slack: str) -> Person:
        """The person as they are today; `slack` is the TEAM/USER remembered with them.

        Raises:
            DirectoryDownError: the directory cannot be read.
            RefusedError: nobody is known by this id any more (`Why.IDENTITY`).
        """
        ...
