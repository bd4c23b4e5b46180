"""What one statement does, as values that can be put together. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from postgres.migrate.review.facts import NO_PAST, Facts, Past, TableFacts
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

    `makes`: tables that are new to everybody. `past`: what else later statements find.
    """

    touches: tuple[Touch, ...] = ()
    kind: StatementKind = StatementKind.ADDITIVE
    must_be_alone: bool = False
    destroys: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    makes: frozenset[str] = frozenset()
    past: Past = NO_PAST

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
    past: Past = NO_PAST

    def named(self, name: Any) -> str:
        """`schema.name` as the catalog has it now, whatever the file has renamed."""
        full = self.facts.full_name(_cut(name) if isinstance(name, str) else parts(name))
        return self.past.aliases.get(full, full)

    def touch(self, name: Any, lock: Lock, work: Work = Work.CATALOG, pace: str = "") -> Touch:
        """A table by its node or its name, as it stands at this place of the file."""
        full = self.named(name)
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
            past=self.past.then(effect.past),
        )

    def doubting(self, table: str) -> Scene:
        """The same, where a table's columns and constraints are no longer what they were."""
        return replace(self, past=self.past.then(Past(doubted=frozenset({table}))))

    def structure(self, touch: Touch) -> TableFacts | None:
        """A table's columns and constraints, unless statements before have changed them."""
        return None if touch.table in self.past.doubted else touch.facts


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
        past=_all_of([effect.past for effect in every]),
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


def _all_of(pasts: Iterable[Past]) -> Past:
    """Of one statement: what one of its parts proves, another does not undo."""
    found = NO_PAST
    for each in pasts:
        found = replace(found.then(each), checks=found.checks | each.checks)
    return found


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
