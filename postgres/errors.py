"""The one error of this package that reaches a person."""

from __future__ import annotations


class PostgresError(Exception):
    """PostgreSQL or its surroundings are not as they must be: what is wrong, what to do next.

    Both texts are plain sentences without markup.
    """

    def __init__(self, problem: str, *, next_step: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.next_step = next_step
