"""What one statement does, as values that can be put together. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from postgres.migrate.review.facts import Facts, TableFacts
from postgres.migrate.review.nodes import parts
from postgres.migrate.words import Finding, Level, Lock, StatementKind, Work

# research/migrations.md, policy per statement class: below this a scan or a rewrite is over
# before anybody notices (55 MB/s at the slowest that was measured).
SMALL_BYTES: Final = 50_000_000
_WORKS: Final = (Work.CATALOG, Work.SCAN, Work.REWRITE, Work.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """One table under a lock. `facts` None: the target does not have it (yet).

    `is_new`: this file makes it, so nobody waits for it. `pace`: a name in `estimates.PACES`
    where the work is not simply a scan or a rewrite. `changes_rows`: it may write all of them.
    """

    table: str
    lock: Lock
    work: Work = Work.CATALOG
    facts: TableFacts | None = None
    is_new: bool = False
    pace: str = ""
    changes_rows: bool = False

    @property
    def is_small(self) -> bool:
        """Known, and small enough that a scan or a rewrite under a lock is over at once."""
        return self.is_new or (self.facts is not None and self.facts.size_bytes < SMALL_BYTES)

    @property
    def blocks(self) -> bool:
        """Others wait while it works through rows."""
        return not self.is_new and self.work is not Work.CATALOG and self.lock >= Lock.SHARE


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a statement does. `kind`: at least this bad; its touches may make it worse.

    `makes`, `makes_functions`, `makes_types`: what later statements of the file find.
    `checks`: columns (table, column) that it proves never null; `promises`: those of
    constraints that are still to be validated, by table and constraint.
    """

    touches: tuple[Touch, ...] = ()
    kind: StatementKind = StatementKind.ADDITIVE
    must_be_alone: bool = False
    destroys: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    makes: frozenset[str] = frozenset()
    makes_functions: frozenset[str] = frozenset()
    makes_types: Mapping[str, bool] = field(default_factory=dict)
    checks: frozenset[tuple[str, str]] = frozenset()
    promises: Mapping[tuple[str, str], str] = field(default_factory=dict)
    hides_calls: bool = False

    @property
    def judged(self) -> StatementKind:
        """The kind, from what it says and from what it touches: the worst of them."""
        kinds = [self.kind]
        if self.destroys:
            kinds.append(StatementKind.DESTRUCTIVE)
        for touch in self.touches:
            if touch.blocks:
                kinds.append(StatementKind.BLOCKING)
            elif touch.work is not Work.CATALOG and not touch.is_new:
                kinds.append(StatementKind.ONLINE)
        return max(kinds, key=lambda kind: kind.rank)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a statement finds: the target's facts, and what the file has done before it."""

    facts: Facts
    major: int
    makes: frozenset[str] = frozenset()
    makes_functions: frozenset[str] = frozenset()
    makes_types: Mapping[str, bool] = field(default_factory=dict)
    checks: frozenset[tuple[str, str]] = frozenset()
    promises: Mapping[tuple[str, str], str] = field(default_factory=dict)
    has_hidden_calls: bool = False

    def touch(self, name: Any, lock: Lock, work: Work = Work.CATALOG, pace: str = "") -> Touch:
        """A table by its node or its name, as it stands at this place of the file."""
        full = self.facts.full_name(parts(name) if not isinstance(name, str) else _cut(name))
        return Touch(
            table=full,
            lock=lock,
            work=work,
            facts=self.facts.tables.get(full),
            is_new=full in self.makes,
            pace=pace,
        )

    def after(self, effect: Effect) -> Scene:
        """What the next statement finds."""
        return replace(
            self,
            makes=self.makes | effect.makes,
            makes_functions=self.makes_functions | effect.makes_functions,
            makes_types={**self.makes_types, **effect.makes_types},
            checks=self.checks | effect.checks,
            promises={**self.promises, **effect.promises},
            has_hidden_calls=self.has_hidden_calls or effect.hides_calls,
        )


Handler: TypeAlias = Callable[[Any, Scene], Effect]

NOTHING: Final = Effect()


def together(effects: Iterable[Effect]) -> Effect:
    """One effect out of several: for each table the strongest lock and the most work."""
    every = tuple(effects)
    touches: dict[str, Touch] = {}
    for touch in (touch for effect in every for touch in effect.touches):
        known = touches.get(touch.table)
        touches[touch.table] = touch if known is None else _stronger(known, touch)
    return Effect(
        touches=tuple(touches.values()),
        kind=max((e.kind for e in every), key=lambda k: k.rank, default=StatementKind.ADDITIVE),
        must_be_alone=any(effect.must_be_alone for effect in every),
        destroys=tuple(dict.fromkeys(text for effect in every for text in effect.destroys)),
        findings=tuple(dict.fromkeys(f for effect in every for f in effect.findings)),
        makes=frozenset().union(*(effect.makes for effect in every)),
        makes_functions=frozenset().union(*(effect.makes_functions for effect in every)),
        makes_types={name: v for e in every for name, v in e.makes_types.items()},
        checks=frozenset().union(*(effect.checks for effect in every)),
        promises={key: value for e in every for key, value in e.promises.items()},
        hides_calls=any(effect.hides_calls for effect in every),
    )


def finding(rule: str, level: Level, text: str, help_text: str = "", rewrite: Any = ()) -> Finding:
    """A finding of ours; the reviewer gives it the statement's line."""
    return Finding(
        rule=rule, level=level, text=text, line=0, help=help_text, rewrite=tuple(rewrite)
    )


def opaque(rule: str, text: str, *, level: Level = Level.WARNING, help_text: str = "") -> Effect:
    """A statement of which nobody can tell what it does before it runs."""
    return Effect(
        kind=StatementKind.OPAQUE,
        findings=(finding(rule, level, text, help_text or _REHEARSE),),
    )


def refused(rule: str, text: str, help_text: str, *, alone: bool = False) -> Effect:
    """A statement that has no place in a migration: an error, and the worst kind."""
    return Effect(
        kind=StatementKind.OPAQUE,
        must_be_alone=alone,
        findings=(finding(rule, Level.ERROR, text, help_text),),
    )


_REHEARSE: Final = (
    "Write out the statements that it runs. Otherwise only a rehearsal on a restored copy shows "
    "what it does."
)


def _stronger(one: Touch, other: Touch) -> Touch:
    heavier = max(one, other, key=lambda touch: _WORKS.index(touch.work))
    return replace(
        heavier,
        lock=max(one.lock, other.lock),
        changes_rows=one.changes_rows or other.changes_rows,
    )


def _cut(name: str) -> tuple[str, ...]:
    schema, _, rest = name.partition(".")
    return (schema, rest) if rest else (schema,)
