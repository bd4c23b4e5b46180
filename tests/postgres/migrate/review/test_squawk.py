"""squawk beside our own review: the real program, and what becomes of it when it breaks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from postgres.errors import PostgresError
from postgres.migrate.review import linting, squawk
from postgres.migrate.review.reviewer import review
from postgres.migrate.review.squawk import lint
from postgres.migrate.words import Finding, Level, Review
from tests.postgres.migrate.review.known import FACTS

PROGRAM = Path(sys.executable).with_name("squawk")


async def reviewed(sql: str, *, says: bool | None = None) -> Review:
    return await review(sql, facts=FACTS, major=15, name="f.sql", is_transactional=says)


def of_squawk(found: Review) -> list[tuple[str, int]]:
    return [(each.rule, each.line) for each in found.all_findings if each.source == "squawk"]


async def test_each_finding_stands_at_its_statement_and_its_line() -> None:
    sql = "/* é 日本 */ ALTER TABLE acc DROP COLUMN bio; DROP TABLE orders;\n\nSELECT 1;"
    found = await reviewed(sql)
    assert [
        {each.rule for each in statement.findings if each.source == "squawk"}
        for statement in found.statements
    ] == [{"ban-drop-column"}, {"ban-drop-table"}, set()]
    assert set(of_squawk(found)) == {("ban-drop-column", 1), ("ban-drop-table", 1)}


@pytest.mark.parametrize(
    "comment",
    [
        "-- squawk-ignore ban-drop-table\n",
        "-- squawk-ignore-file\n",
        "/* SQUAWK-IGNORE ban-drop-table */",
        "/* squawk-ignore */\n",
    ],
)
async def test_a_comment_cannot_silence_a_rule(comment: str) -> None:
    found = await reviewed(f"{comment}DROP TABLE orders;")
    assert ("ban-drop-table", comment.count("\n") + 1) in of_squawk(found)
    assert [(each.rule, each.level, each.line) for each in found.findings] == [
        ("silenced", Level.WARNING, 1)
    ]


async def test_what_ours_says_with_the_safe_sql_is_a_note_of_squawk() -> None:
    found = await reviewed("CREATE INDEX i ON acc (id); CREATE TABLE t (a varchar(5));")
    said = {each.rule: (each.source, each.level) for each in found.statements[0].findings}
    assert said == {
        "index-blocks-writes": ("twokey", Level.WARNING),
        "require-concurrent-index-creation": ("squawk", Level.NOTE),
    }
    (domain,) = (await reviewed("ALTER TABLE acc ALTER COLUMN bio DROP NOT NULL")).all_findings
    assert (domain.source, domain.level) == ("squawk", Level.WARNING)


async def test_a_statement_that_squawk_cannot_read_does_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []

    async def picky(sql: str, **_: Any) -> tuple[squawk.Remark, ...]:
        calls.append(sql)
        if "orders" in sql:
            found = Finding(rule="syntax-error", level=Level.ERROR, text="?", line=2)
            return (squawk.Remark(finding=found, line=1, column=3),)
        return await lint(sql, **_)

    monkeypatch.setattr(linting, "lint", picky)
    found = await reviewed("DROP TABLE acc;\nSELECT 1 FROM orders;\nDROP TABLE tenants;")
    assert len(calls) == 2
    assert len(calls[0]) == len(calls[1])
    assert set(of_squawk(found)) == {("ban-drop-table", 1), ("ban-drop-table", 3)}
    assert [each.rule for each in found.statements[1].findings] == ["squawk-unread"]


async def test_a_file_that_squawk_cannot_read_at_all_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def lost(sql: str, **_: Any) -> tuple[squawk.Remark, ...]:
        found = Finding(rule="syntax-error", level=Level.ERROR, text="?", line=1)
        return (squawk.Remark(finding=found, line=0, column=0),)

    monkeypatch.setattr(linting, "lint", lost)
    found = await reviewed("SELECT 1")
    assert [(each.rule, each.level) for each in found.findings] == [
        ("squawk-unread", Level.WARNING)
    ]


async def test_more_findings_than_anybody_reads_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linting, "REMARKS_MAX", 3)
    found = await reviewed("DROP TABLE acc;" * 5)
    assert len(of_squawk(found)) == 3
    assert [each.text for each in found.findings if each.rule == "more-findings"] == [
        "squawk has 2 more findings than are shown here."
    ]


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("exit 3", "squawk ended with 3"),
        ("echo 'oops' >&2; exit 101", "oops"),
        ("cat >/dev/null; echo '{'", "no JSON"),
        ("cat >/dev/null; echo '{}'", "no list"),
        ("cat >/dev/null; echo '[{}]'", "another shape"),
        ("cat >/dev/null; echo '[1]'", "another shape"),
        ("kill -9 $$", "squawk ended with -9"),
        ("sleep 60", "takes longer than"),
    ],
)
async def test_a_broken_squawk_is_no_review(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, problem: str
) -> None:
    monkeypatch.setattr(squawk, "LIMIT_SECONDS", 0.5)
    program = tmp_path / "squawk"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    with pytest.raises(PostgresError, match=problem) as refusal:
        await lint("SELECT 1", major=17, in_transaction=True, program=program)
    assert refusal.value.next_step


async def test_a_missing_squawk_is_no_review(tmp_path: Path) -> None:
    with pytest.raises(PostgresError, match="cannot be started"):
        await lint("SELECT 1", major=17, in_transaction=True, program=tmp_path / "squawk")


async def test_whoevers_configuration_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".squawk.toml").write_text('included_rules = ["ban-add-column"]\n')
    monkeypatch.chdir(tmp_path)
    found = await lint("ALTER TABLE acc ADD COLUMN x text;", major=17, in_transaction=True)
    assert found == ()


async def test_the_version_and_the_transaction_reach_squawk() -> None:
    sql = "SELECT 1; CREATE INDEX CONCURRENTLY i ON acc (id);"
    inside = await lint(sql, major=17, in_transaction=True)
    outside = await lint(sql, major=17, in_transaction=False)
    rule = "ban-concurrent-index-creation-in-transaction"
    assert [each.finding.rule for each in inside] == [rule]
    assert outside == ()
    default = "ALTER TABLE acc ADD COLUMN x int DEFAULT 1;"
    old = await lint(default, major=10, in_transaction=True)
    assert [each.finding.rule for each in old] == ["adding-field-with-default"]
    assert await lint(default, major=13, in_transaction=True) == ()


async def test_an_empty_file_starts_no_program(tmp_path: Path) -> None:
    missing = tmp_path / "squawk"
    assert await lint(" \n", major=17, in_transaction=True, program=missing) == ()
