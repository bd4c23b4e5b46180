"""Files of several statements: what one does to the next, tricks, and what is no SQL at all."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from postgres.errors import PostgresError
from postgres.migrate.review import split as splitting
from postgres.migrate.review.reading import with_pasts
from postgres.migrate.review.split import parse, split
from postgres.migrate.words import Level, StatementKind, Work
from tests.postgres.migrate.review.known import FACTS, judged, last, one, rules

PROVEN = """
    ALTER TABLE acc ADD CONSTRAINT nn CHECK (bio IS NOT NULL) NOT VALID;
    ALTER TABLE acc VALIDATE CONSTRAINT nn;
"""
SET = "ALTER TABLE acc ALTER COLUMN bio SET NOT NULL"


def test_a_validated_check_of_the_same_file_saves_the_scan() -> None:
    assert last(SET).touched[0].work is Work.SCAN
    assert last(PROVEN + SET).touched[0].work is Work.CATALOG
    assert last(PROVEN.replace("VALIDATE CONSTRAINT nn", "ADD x int") + SET).kind is (
        StatementKind.BLOCKING
    )


def test_a_file_finds_what_the_files_before_it_have_done() -> None:
    add, validate = (f"{line};" for line in PROVEN.strip().split(";")[:2])
    make = "CREATE FUNCTION length(text) RETURNS int LANGUAGE sql AS 'SELECT 1';"
    use = "SELECT length('x')"
    facts = with_pasts(FACTS, [add, validate, SET, make, use])
    assert judged(SET, facts=facts).kind is StatementKind.ADDITIVE
    assert judged(use, facts=facts).kind is StatementKind.OPAQUE
    assert judged(use, facts=replace(facts, pasts={})).kind is StatementKind.ADDITIVE


@pytest.mark.parametrize(
    "undone",
    [
        "ALTER TABLE acc DROP CONSTRAINT nn;",
        "ALTER TABLE acc ALTER COLUMN bio DROP NOT NULL;",
        "ALTER TABLE acc RENAME COLUMN bio TO b; ALTER TABLE acc RENAME COLUMN email TO bio;",
        "ALTER TABLE acc DROP COLUMN bio; ALTER TABLE acc ADD COLUMN bio text;",
    ],
)
def test_a_proof_that_is_taken_back_proves_nothing(undone: str) -> None:
    assert last(PROVEN + undone + SET).kind is StatementKind.BLOCKING
    sure = "ALTER TABLE acc DROP CONSTRAINT acc_sure, ALTER COLUMN sure SET NOT NULL"
    assert last(sure).kind is StatementKind.BLOCKING


def test_a_type_that_was_changed_before_is_not_the_catalogs() -> None:
    widen = "ALTER TABLE acc ALTER COLUMN email TYPE varchar({});"
    assert last(widen.format(100)).kind is StatementKind.ADDITIVE
    narrower = widen.format(100) + widen.format(60)
    assert last(narrower).touched[0].work is Work.REWRITE
    indexed = "CREATE INDEX i ON acc (lower(email));" + widen.format(100)
    assert last(indexed).touched[0].work is Work.REWRITE


def test_a_new_name_does_not_hide_the_table() -> None:
    renamed = "ALTER TABLE acc RENAME TO other; CREATE INDEX i ON other (id)"
    assert last(renamed).touched[0].table == "public.acc"
    assert last(renamed).touched[0].size_bytes == 2_000_000_000
    moved = "ALTER TABLE acc SET SCHEMA other; DELETE FROM other.acc"
    assert last(moved).touched[0].table == "public.acc"
    assert last("ALTER TABLE acc RENAME TO b; CREATE TABLE acc (id int); DROP TABLE acc").destroys


TRICKS = [
    "CREATE FUNCTION lower(text) RETURNS text LANGUAGE sql AS 'x'; SELECT lower('X')",
    "CREATE VIEW v AS SELECT tidy('x'); SELECT * FROM v",
    "CREATE VIEW v AS SELECT tidy('x'); CREATE TABLE t AS SELECT * FROM v",
    "CREATE TABLE t (a text DEFAULT tidy('x')); INSERT INTO t DEFAULT VALUES",
    "CREATE TABLE t (a text CHECK (tidy(a) = a)); INSERT INTO t VALUES ('x')",
    "ALTER TABLE tenants ALTER COLUMN name SET DEFAULT tidy('x'); INSERT INTO tenants VALUES (1)",
    "ALTER TABLE acc ADD CHECK (tidy(bio) = bio) NOT VALID; ALTER TABLE acc VALIDATE CONSTRAINT c",
    "CREATE TRIGGER t BEFORE UPDATE ON orders EXECUTE FUNCTION tidy(); UPDATE orders SET id = id",
    "CREATE TABLE t (); CREATE TRIGGER x AFTER INSERT ON t EXECUTE FUNCTION f(); TABLE t",
    "CREATE RULE r AS ON INSERT TO orders DO ALSO DELETE FROM acc; INSERT INTO orders VALUES (1)",
    "CREATE DOMAIN d AS text CHECK (tidy(VALUE) = ''); SELECT 'x'::d",
    "CREATE OPERATOR + (FUNCTION = tidy, LEFTARG = text, RIGHTARG = text); SELECT 'a' + 'b'",
    "CREATE CAST (text AS int) WITH FUNCTION tidy(text); SELECT 'x'::text::int",
    "CREATE AGGREGATE lower(text) (SFUNC = tidy, STYPE = text); SELECT lower('x')",
    "PREPARE p AS DELETE FROM acc; EXECUTE p",
]


@pytest.mark.parametrize("sql", TRICKS)
def test_code_that_is_hidden_in_one_statement_and_run_by_another_is_opaque(sql: str) -> None:
    assert last(sql).kind is StatementKind.OPAQUE


@pytest.mark.parametrize(
    ("sql", "kinds"),
    [
        ("DROP/**/TABLE acc", ["destructive"]),
        ("SELECT 1; -- DROP TABLE acc;", ["additive"]),
        ("-- harmless\rDROP TABLE acc", ["destructive"]),
        ("/* a /* nested */ DROP TABLE orders; */ SELECT 1", ["additive"]),
        ("SELECT $$; DROP TABLE acc; $$", ["additive"]),
        ("SELECT '--'; DROP TABLE acc; --'", ["additive", "destructive"]),
        ("SELECT E'\\'; DROP TABLE acc; --'", ["additive"]),
        ("SELECT U&'\\0027; DROP TABLE acc'", ["additive"]),
        ('SELECT 1 AS "; DROP TABLE acc"', ["additive"]),
        (";;\n ; TRUNCATE acc;;", ["destructive"]),
        ("drop table aCC", ["destructive"]),
        ('DROP TABLE "acc"', ["destructive"]),
        ("TABLE acc", ["online"]),
        ("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; DROP TABLE acc",
         ["additive", "destructive"]),
    ],
)  # fmt: skip
def test_comments_and_quotes_hide_nothing_and_invent_nothing(sql: str, kinds: list[str]) -> None:
    assert [each.kind.value for each in judged(sql).statements] == kinds


def test_a_statement_knows_its_line_and_its_text() -> None:
    sql = "-- é 日本\n\nSELECT 1;\n/* two\nlines */ SELECT 'ü' -- end\n;\nSELECT 3"
    assert split(sql) == (("SELECT 1", 3), ("SELECT 'ü' -- end", 5), ("SELECT 3", 7))
    assert [each.line for each in judged(sql).statements] == [3, 5, 7]


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("SELECT 1;\nSELEC 2;", "0001_x.sql, line 2: PostgreSQL's parser says: syntax error at or"),
        ("-- é日本\n\nSELECT 'é' FRM x;;\nSELECT", "0001_x.sql, line 3: "),
        ("SELECT 1;\n\\copy acc FROM 'x'", "0001_x.sql, line 2: \\copy is a command of psql"),
        ("\\connect other\nDROP TABLE acc;", "0001_x.sql, line 1: \\connect is a command of psql"),
        ("SELECT 'never closed", "0001_x.sql, line 1: PostgreSQL's parser says: unterminated"),
        ("SELECT 1;\0 DROP TABLE acc", "0001_x.sql, line 1: there is a zero byte"),
        ("SELECT '\udcff'", "0001_x.sql is not UTF-8"),
        ("SELECT " + "1+" * 20_000 + "1", "nested deeper than 10,000 levels"),
        ("SELECT " + "(" * 9_000 + "1" + "+1)" * 9_000, "nested deeper than 10,000 levels"),
        ("SELECT f(" * 9_000 + "1" + ", 2+3)" * 9_000, "0001_x.sql, line 1: "),
        ("SELECT 1;" * 20_001, "0001_x.sql has 20,001 statements"),
        ("SELECT '" + "é" * 2_500_000 + "'", "0001_x.sql is larger than 5 MB"),
    ],
)
def test_what_cannot_be_read_is_refused_with_file_and_line(sql: str, problem: str) -> None:
    with pytest.raises(PostgresError) as refusal:
        judged(sql)
    assert problem in refusal.value.problem
    assert refusal.value.next_step


def test_a_long_list_is_not_deep() -> None:
    (piece,) = parse("INSERT INTO acc VALUES " + ", ".join(["(1, -2 + 3, 'x')"] * 1_500))
    assert type(piece.tree).__name__ == "InsertStmt"


def test_fifty_megabytes_are_refused_at_once() -> None:
    begun = time.process_time()
    with pytest.raises(PostgresError, match="larger than 5 MB"):
        split("SELECT 1;\n" * 5_000_000)
    assert time.process_time() - begun < 2


def test_statements_that_cannot_be_told_apart_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pglast.parser.split", lambda *_, **__: (slice(0, 9), slice(5, 9)))
    with pytest.raises(PostgresError, match="cannot be told apart"):
        splitting.split("SELECT 1;")


def test_an_empty_file_is_a_warning() -> None:
    review = judged("-- nothing\n")
    assert (review.statements, review.is_transactional) == ((), True)
    assert [(f.rule, f.level) for f in review.findings] == [("empty-file", Level.WARNING)]


def test_the_statements_decide_about_the_transaction_where_nobody_says() -> None:
    alone = "CREATE INDEX CONCURRENTLY i ON acc (id);"
    assert judged("SELECT 1").is_transactional
    assert not judged(alone).is_transactional
    assert not judged("SELECT 1", says=False).is_transactional
    assert judged(alone, says=True).is_transactional
    assert rules(alone, says=True) == {"concurrently-in-transaction"}
    assert rules(alone) == set()
    assert rules(alone + "SELECT 1", says=False) == set()
    assert rules(alone + "SELECT 1") == {"not-one-transaction"}


def test_two_tables_that_are_locked_in_one_transaction_are_a_warning() -> None:
    sql = "ALTER TABLE acc ADD COLUMN x int;\nALTER TABLE orders ADD COLUMN x int"
    (found,) = judged(sql).findings
    assert (found.rule, found.level, found.line) == ("two-tables-locked", Level.WARNING, 2)
    assert rules(sql, says=False) == set()
    assert rules("ALTER TABLE acc ADD COLUMN x int; ALTER TABLE acc ADD COLUMN y int") == set()


def test_a_lock_that_is_held_during_long_work_is_a_warning() -> None:
    sql = "ALTER TABLE acc ADD COLUMN x int; UPDATE acc SET x = 1 WHERE id = 5"
    assert "lock-held-meanwhile" in rules(sql)
    assert "lock-held-meanwhile" not in rules(sql, says=False)
    backwards = "UPDATE acc SET bio = '' WHERE id = 5; ALTER TABLE acc ADD COLUMN x int"
    assert "lock-held-meanwhile" not in rules(backwards)


@pytest.mark.parametrize("hidden", ["\u202e", "\u200b", "\u2066"])
def test_characters_that_show_another_text_are_an_error(hidden: str) -> None:
    (found,) = judged(f"SELECT 1;\nSELECT 'x{hidden}'").findings
    assert (found.rule, found.level, found.line) == ("hidden-characters", Level.ERROR, 2)


def test_a_literal_may_say_anything() -> None:
    assert rules("INSERT INTO orders VALUES ('twokey_migrate', 'set lock_timeout')") == set()
    assert one("SELECT 'twokey_aside'").kind is StatementKind.ADDITIVE
