"""The review of one file: its statements one after the other, then the file as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from postgres.migrate.review.dispatch import judge
from postgres.migrate.review.effects import Effect, Scene, Touch
from postgres.migrate.review.estimates import seconds_of
from postgres.migrate.review.facts import NO_PAST, Facts
from postgres.migrate.review.linting import remarks, softened
from postgres.migrate.review.nodes import kind_of
from postgres.migrate.review.split import Piece, parse
from postgres.migrate.review.whole import file_findings, is_one_transaction
from postgres.migrate.words import Finding, Review, ReviewedStatement, Touched


async def review(
    sql: str, *, facts: Facts, major: int, name: str, is_transactional: bool | None
) -> Review:
    """What a file of SQL would do to the database that `facts` are of.

    `major`: the target's version of PostgreSQL. `name`: the file's, for messages.
    `is_transactional`: what the file or its tool says; None: its statements decide. Nothing
    runs. Takes some 0.3 ms a statement, in a thread.

    Raises:
        PostgresError: the file is no SQL, or more than we review (`split.BYTES_MAX`); or squawk, a
            part of the review, cannot be run.
    """
    pieces, judged = await asyncio.to_thread(
        _parsed_and_judged, sql, facts, major=major, name=name, says=is_transactional
    )
    said = await remarks(sql, pieces, major=major, in_transaction=judged.is_transactional)
    return with_remarks(judged, said)


def with_remarks(judged: Review, said: Sequence[tuple[Finding, int | None]]) -> Review:
    """A review with squawk's findings beside our own. Pure."""
    of: dict[int | None, list[Finding]] = {}
    for found, index in said:
        of.setdefault(index, []).append(found)
    statements = tuple(
        replace(
            each,
            findings=(
                *each.findings,
                *(softened(found, each.findings) for found in of.get(each.index, ())),
            ),
        )
        for each in judged.statements
    )
    findings = (*judged.findings, *of.get(None, ()))
    return replace(judged, statements=statements, findings=findings)


def judge_file(sql: str, facts: Facts, *, major: int, name: str, says: bool | None) -> Review:
    """The same without squawk; `says` is `is_transactional`. Pure. Raises as `review`."""
    return _parsed_and_judged(sql, facts, major=major, name=name, says=says)[1]


def _parsed_and_judged(
    sql: str, facts: Facts, *, major: int, name: str, says: bool | None
) -> tuple[tuple[Piece, ...], Review]:
    pieces = parse(sql, name=name)
    scene = Scene(facts=facts, major=major, past=facts.pasts.get(sql, NO_PAST))
    effects: list[Effect] = []
    for piece in pieces:
        effects.append(judge(piece.tree, scene))
        scene = scene.after(effects[-1])
    statements = tuple(
        _statement(index, piece, effect)
        for index, (piece, effect) in enumerate(zip(pieces, effects, strict=True))
    )
    is_one = is_one_transaction(statements, says=says)
    found = file_findings(sql, statements, says=says, is_one=is_one)
    return pieces, Review(statements=statements, findings=found, is_transactional=is_one)


def _statement(index: int, piece: Piece, effect: Effect) -> ReviewedStatement:
    seconds = seconds_of(effect.touches) if effect.judged.value != "opaque" else None
    return ReviewedStatement(
        index=index,
        sql=piece.sql,
        line=piece.line,
        node=kind_of(piece.tree),
        kind=effect.judged,
        touched=tuple(_touched(each) for each in effect.touches if not each.is_new),
        must_be_alone=effect.must_be_alone,
        destroys=", ".join(effect.destroys),
        findings=_at(piece.line, effect.findings),
        low_seconds=seconds[0] if seconds else None,
        high_seconds=seconds[1] if seconds else None,
    )


def _touched(touch: Touch) -> Touched:
    known = touch.facts
    return Touched(
        table=touch.table,
        lock=touch.lock,
        work=touch.work,
        size_bytes=known.size_bytes if known else None,
        rows=known.rows if known else None,
    )


def _at(line: int, findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(replace(each, line=line) for each in findings)
