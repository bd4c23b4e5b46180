"""The safe way to write the same: SQL that PostgreSQL takes, quoted as the statement has it."""

from __future__ import annotations

import pytest
from pglast import parse_sql

from tests.postgres.migrate.review.known import one

WRITTEN = {
    "CREATE UNIQUE INDEX i ON acc USING btree (lower(email) DESC) WHERE id > 5": (
        "CREATE UNIQUE INDEX CONCURRENTLY i ON acc ((lower(email)) DESC) WHERE id > 5;",
    ),
    'CREATE INDEX ON public."Big Table" ("e mail")': (
        'CREATE INDEX CONCURRENTLY ON public."Big Table" ("e mail");',
    ),
    "DROP INDEX acc_email, acc_pkey": (
        "DROP INDEX CONCURRENTLY acc_email;",
        "DROP INDEX CONCURRENTLY acc_pkey;",
    ),
    "REINDEX (VERBOSE) TABLE acc": ("REINDEX (VERBOSE, CONCURRENTLY) TABLE acc;",),
    "REFRESH MATERIALIZED VIEW acc": ("REFRESH MATERIALIZED VIEW CONCURRENTLY acc;",),
    "ALTER TABLE acc DETACH PARTITION acc_1": (
        "ALTER TABLE acc DETACH PARTITION acc_1 CONCURRENTLY;",
    ),
    "ALTER TABLE acc ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES b (c) DEFERRABLE": (
        "ALTER TABLE acc ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES b (c) DEFERRABLE NOT VALID;",
        "ALTER TABLE acc VALIDATE CONSTRAINT c;",
    ),
    'ALTER TABLE acc ADD FOREIGN KEY ("Ten") REFERENCES b': (
        'ALTER TABLE acc ADD CONSTRAINT "acc_Ten_fkey" FOREIGN KEY ("Ten") REFERENCES b NOT VALID;',
        'ALTER TABLE acc VALIDATE CONSTRAINT "acc_Ten_fkey";',
    ),
    "ALTER TABLE acc ADD CHECK (id > 0 AND bio <> 'it''s')": (
        "ALTER TABLE acc ADD CONSTRAINT acc_check CHECK (id > 0 AND bio <> 'it''s') NOT VALID;",
        "ALTER TABLE acc VALIDATE CONSTRAINT acc_check;",
    ),
    "ALTER TABLE acc ADD CONSTRAINT u UNIQUE (email, id) INCLUDE (bio)": (
        "CREATE UNIQUE INDEX CONCURRENTLY u ON acc (email, id) INCLUDE (bio);",
        "ALTER TABLE acc ADD CONSTRAINT u UNIQUE USING INDEX u;",
    ),
    "ALTER TABLE acc ADD PRIMARY KEY (id)": (
        "CREATE UNIQUE INDEX CONCURRENTLY acc_pkey ON acc (id);",
        "ALTER TABLE acc ADD CONSTRAINT acc_pkey PRIMARY KEY USING INDEX acc_pkey;",
    ),
    'ALTER TABLE acc ALTER COLUMN "Bio" SET NOT NULL': (
        'ALTER TABLE acc ADD CONSTRAINT "acc_Bio_not_null" CHECK ("Bio" IS NOT NULL) NOT VALID;',
        'ALTER TABLE acc VALIDATE CONSTRAINT "acc_Bio_not_null";',
        'ALTER TABLE acc ALTER COLUMN "Bio" SET NOT NULL;',
        'ALTER TABLE acc DROP CONSTRAINT "acc_Bio_not_null";',
    ),
    "ALTER TABLE acc ADD COLUMN x uuid NOT NULL DEFAULT gen_random_uuid()": (
        "ALTER TABLE acc ADD COLUMN x uuid;",
        "ALTER TABLE acc ALTER COLUMN x SET DEFAULT gen_random_uuid();",
        "ALTER TABLE acc ADD CONSTRAINT acc_x_not_null CHECK (x IS NOT NULL) NOT VALID;",
        "ALTER TABLE acc VALIDATE CONSTRAINT acc_x_not_null;",
        "ALTER TABLE acc ALTER COLUMN x SET NOT NULL;",
        "ALTER TABLE acc DROP CONSTRAINT acc_x_not_null;",
    ),
    "ALTER TABLE acc ALTER COLUMN tenant_id TYPE bigint": (
        "ALTER TABLE acc ADD COLUMN tenant_id_new bigint;",
    ),
}


@pytest.mark.parametrize(("sql", "steps"), WRITTEN.items())
def test_the_same_is_written_safely(sql: str, steps: tuple[str, ...]) -> None:
    found = [each.rewrite for each in one(sql).findings if each.rewrite]
    assert found == [steps]
    for step in steps:
        assert len(parse_sql(step)) == 1


@pytest.mark.parametrize("sql", WRITTEN)
def test_the_safe_way_has_nothing_to_say_against_itself(sql: str) -> None:
    steps = next(each.rewrite for each in one(sql).findings if each.rewrite)
    assert {
        finding.rule
        for step in steps
        if "SET NOT NULL" not in step and "USING INDEX" not in step
        for finding in one(step).findings
    } <= {"unknown-table", "drops-constraint"}


@pytest.mark.parametrize(
    ("sql", "line"),
    [
        (
            'UPDATE acc SET bio = lower(email), "N" = 1 WHERE bio IS NULL',
            '/db backfill <database> public.acc "bio = lower(email), \\"N\\" = 1" "bio IS NULL"',
        ),
        (
            "UPDATE public.acc SET bio = NULL",
            '/db backfill <database> public.acc "bio = NULL"',
        ),
        (
            "ALTER TABLE acc ADD COLUMN x uuid DEFAULT gen_random_uuid()",
            '/db backfill <database> public.acc "x = gen_random_uuid()" "x IS NULL"',
        ),
    ],
)
def test_what_changes_many_rows_is_shown_as_a_backfill(sql: str, line: str) -> None:
    assert any(line in each.help for each in one(sql).findings)


def test_an_update_that_a_backfill_cannot_do_is_not_shown_as_one() -> None:
    sql = "UPDATE acc SET bio = o.note FROM orders o WHERE o.acc_id = acc.id"
    assert not any("<database>" in each.help for each in one(sql).findings)


def test_a_statement_too_deep_to_print_has_words_only() -> None:
    deep = "1" + " + 1" * 2_000
    (found,) = one(f"CREATE INDEX i ON acc (({deep}))").findings
    assert found.rule == "index-blocks-writes"
    assert found.rewrite == ()


def test_a_name_is_cut_to_what_postgresql_keeps() -> None:
    long = "é" * 30
    found = one(f"ALTER TABLE {long} ALTER COLUMN bio SET NOT NULL").findings
    name = next(each.rewrite for each in found if each.rewrite)[0].split()[5]
    assert len(name.strip('"').encode()) == 63
    assert name.endswith('_bio_not_null"')
