"""Alembic's revisions in one line, and what its table holds at each point of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SHOWN_MAX: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """A revision, and those that it comes right after (two and more: it merges branches)."""

    revision: str
    parents: tuple[str, ...]
    name: str
    path: Path
    depends_on: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A revision with the heads that are in Alembic's table before it and after it."""

    revision: Revision
    before: tuple[str, ...]
    after: tuple[str, ...]


def linear(
    revisions: Sequence[Revision], heads: Sequence[str]
) -> tuple[tuple[Placed, ...], tuple[str, ...]]:
    """The revisions so that each comes after its parents, and what forbids to run them.

    Branches that are merged again are put one after the other, which Alembic may do too. More
    than one head, and dependencies between branches, are problems.
    """
    waiting = {each.revision: each for each in revisions}
    placed: list[Placed] = []
    standing: tuple[str, ...] = ()
    while waiting:
        ready = [e for e in waiting.values() if not any(p in waiting for p in e.parents)]
        if not ready:  # Alembic itself refuses a circle when it loads the folder
            break
        # A branch is followed to its end before the next one begins.
        following = [each for each in ready if set(each.parents) & set(standing)]
        chosen = min(following or ready, key=lambda each: each.revision)
        del waiting[chosen.revision]
        gone = _no_longer_heads(chosen, standing)
        after = (*(head for head in standing if head not in gone), chosen.revision)
        placed.append(Placed(revision=chosen, before=standing, after=after))
        standing = after
    return tuple(placed), tuple(_problems(revisions, heads))


def _no_longer_heads(chosen: Revision, standing: Sequence[str]) -> set[str]:
    return set(chosen.parents) & set(standing)


def _problems(revisions: Sequence[Revision], heads: Sequence[str]) -> list[str]:
    paths = {each.revision: each.path.name for each in revisions}
    problems: list[str] = []
    if len(heads) > 1:
        names = " and ".join(f"{head} ({paths.get(head, '?')})" for head in heads[:_SHOWN_MAX])
        problems.append(
            f"There is more than one newest revision: {names}."
            " Join them with `alembic merge heads`."
        )
    problems.extend(
        f"Revision {each.revision} ({each.path.name}) depends on a revision of another branch."
        " Let Alembic itself apply this folder, or merge the branches."
        for each in revisions
        if each.depends_on
    )
    return problems
