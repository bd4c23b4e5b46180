"""The errors of this package that reach a person, or say that a backup is damaged."""

from __future__ import annotations


class PostgresError(Exception):
    """PostgreSQL or its surroundings are not as they must be: what is wrong, what to do next.

    Both texts are plain sentences without markup.
    """

    def __init__(self, problem: str, *, next_step: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.next_step = next_step


class DamagedError(Exception):
    """A backup, or a file of one, is not what was written; the text names it and says why."""
