"""What single statements are called, what they lose, and which finding says what to do instead."""

from __future__ import annotations

import pytest

from postgres.migrate.review.alter_table import COMMANDS
from postgres.migrate.review.dispatch import HANDLERS, judge
from postgres.migrate.review.effects import Scene
from postgres.migrate.words import Level, Lock, StatementKind, Work
from tests.postgres.migrate.review.known import FACTS, judged, last, one, rules

KINDS = {
    StatementKind.ADDITIVE: """
        CREATE TABLE fresh (id int PRIMARY KEY, a int REFERENCES acc, b text DEFAULT lower('x'))
        CREATE TABLE IF NOT EXISTS fresh (id int)
        CREATE VIEW fresh AS SELECT id, now() FROM acc
        CREATE FUNCTION fresh() RETURNS int LANGUAGE sql AS 'DROP TABLE acc'
        CREATE TYPE fresh AS ENUM ('a')
        ALTER TYPE fresh ADD VALUE 'b'
        ALTER TABLE acc ADD COLUMN x int
        ALTER TABLE acc ADD COLUMN x timestamptz NOT NULL DEFAULT now()
        ALTER TABLE acc ADD CONSTRAINT c CHECK (id > 0) NOT VALID
        ALTER TABLE acc ALTER COLUMN sure SET NOT NULL
        ALTER TABLE acc ALTER COLUMN email TYPE varchar(100)
        ALTER TABLE acc ALTER COLUMN email TYPE text
        ALTER TABLE acc ALTER COLUMN price TYPE numeric(20, 2)
        ALTER TABLE acc RENAME COLUMN bio TO biography
        ALTER TABLE acc ADD CONSTRAINT c UNIQUE USING INDEX acc_email
        DROP INDEX acc_email
        COMMENT ON TABLE acc IS 'twokey_x'
        GRANT SELECT ON acc TO PUBLIC
        SET maintenance_work_mem = '1GB'
        SET standard_conforming_strings = on
        SELECT 1
        SELECT setval('numbers', 5)
        EXPLAIN SELECT 1
        NOTIFY deployed
    """,
    StatementKind.ONLINE: """
        CREATE INDEX CONCURRENTLY i ON acc (email)
        REINDEX INDEX CONCURRENTLY acc_email
        ALTER TABLE acc VALIDATE CONSTRAINT acc_later
        VACUUM acc
        ANALYZE acc
        SELECT count(*) FROM acc
        CREATE TABLE fresh AS SELECT * FROM acc
    """,
    StatementKind.DATA: """
        INSERT INTO acc (id) VALUES (1)
        INSERT INTO acc (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET bio = ''
        UPDATE acc SET bio = lower(bio)
        UPDATE acc SET bio = uuid_generate_v4()::text WHERE id = 5
        UPDATE tenants SET id = id
        WITH n AS (UPDATE acc SET bio = '' RETURNING *) SELECT count(*) FROM n
        MERGE INTO acc USING orders ON acc.id = orders.id WHEN MATCHED THEN UPDATE SET bio = ''
        EXPLAIN ANALYZE UPDATE acc SET bio = '' WHERE id = 5
    """,
    StatementKind.BLOCKING: """
        CREATE INDEX i ON acc (email)
        CREATE UNIQUE INDEX i ON acc (lower(email)) WHERE id > 5
        REINDEX TABLE acc
        REINDEX SCHEMA public
        ALTER TABLE acc ADD COLUMN x uuid DEFAULT gen_random_uuid()
        ALTER TABLE acc ADD COLUMN x uuid DEFAULT uuid_generate_v4()
        ALTER TABLE acc ADD COLUMN x bigserial
        ALTER TABLE acc ADD COLUMN x int GENERATED ALWAYS AS IDENTITY
        ALTER TABLE acc ADD COLUMN x int GENERATED ALWAYS AS (id * 2) STORED
        ALTER TABLE acc ADD COLUMN x int UNIQUE
        ALTER TABLE acc ADD COLUMN x some_domain
        ALTER TABLE acc ALTER COLUMN tenant_id TYPE bigint
        ALTER TABLE acc ALTER COLUMN email TYPE varchar(20)
        ALTER TABLE acc ALTER COLUMN bio SET NOT NULL
        ALTER TABLE acc ADD CONSTRAINT c CHECK (id > 0)
        ALTER TABLE acc ADD CONSTRAINT c FOREIGN KEY (tenant_id) REFERENCES tenants
        ALTER TABLE acc ADD CONSTRAINT c UNIQUE (email)
        ALTER TABLE acc ADD EXCLUDE USING gist (id WITH =)
        ALTER TABLE acc SET UNLOGGED
        ALTER TABLE acc SET TABLESPACE fast
        ALTER TABLE parent ATTACH PARTITION acc DEFAULT
        ALTER DOMAIN email ADD CONSTRAINT c CHECK (VALUE <> '')
        VACUUM FULL acc
        VACUUM FULL
        CLUSTER acc USING acc_pkey
        CLUSTER
        REFRESH MATERIALIZED VIEW acc
        LOCK TABLE acc
    """,
    StatementKind.DESTRUCTIVE: """
        DROP TABLE acc
        DROP TABLE IF EXISTS nothing_here
        DROP MATERIALIZED VIEW acc
        DROP SEQUENCE numbers
        DROP SCHEMA public CASCADE
        DROP EXTENSION hstore
        DROP TYPE mood CASCADE
        DROP FUNCTION tidy(text) CASCADE
        ALTER TABLE acc DROP COLUMN bio
        ALTER TABLE acc ADD COLUMN x int, DROP COLUMN IF EXISTS bio
        ALTER TABLE acc ALTER COLUMN bio TYPE int USING length(bio)::int
        ALTER TABLE acc ALTER COLUMN price TYPE numeric(12, 0)
        ALTER TABLE acc ALTER COLUMN nothing_here TYPE text
        TRUNCATE acc
        DELETE FROM acc
        DELETE FROM acc WHERE id = 5
        WITH gone AS (DELETE FROM acc RETURNING *) INSERT INTO orders SELECT id FROM gone
        MERGE INTO acc USING orders ON acc.id = orders.id WHEN MATCHED THEN DELETE
    """,
    StatementKind.OPAQUE: """
        DO $$ BEGIN EXECUTE 'DROP ' || 'TABLE acc'; END $$
        CALL tidy_up()
        EXECUTE prepared
        PREPARE prepared AS DELETE FROM acc
        SELECT tidy('x')
        SELECT max(id) FROM acc
        SELECT public.lower('x')
        SELECT nobody_knows()
        SELECT dblink_exec('DROP TABLE acc')
        SELECT pg_read_file('/etc/passwd')
        SELECT pg_terminate_backend(5)
        SELECT 1 OPERATOR(public.+) 2
        INSERT INTO acc (bio) SELECT tidy('x')
        UPDATE acc SET bio = tidy(bio) WHERE id = 5
        UPDATE pg_catalog.pg_class SET relname = 'x'
        DELETE FROM pg_attribute
        ALTER TABLE acc ADD COLUMN x text DEFAULT tidy('x')
        ALTER TABLE acc ADD CONSTRAINT c CHECK (tidy(bio) = bio)
        CREATE INDEX i ON acc (tidy(bio))
        CREATE TABLE fresh AS SELECT tidy(bio) FROM acc
        DELETE FROM acc WHERE tidy(bio) = ''
        DECLARE c CURSOR FOR SELECT 1
        COPY acc FROM PROGRAM 'id'
        ALTER SYSTEM SET fsync = off
        DROP DATABASE orders
        CREATE TABLESPACE t LOCATION '/x'
        DROP OWNED BY me
        REASSIGN OWNED BY me TO you
        ALTER EXTENSION hstore UPDATE
        LOAD 'library'
        BEGIN
        SET lock_timeout = 0
        SELECT set_config('role', 'boss', false)
        DROP SCHEMA twokey_migrate
        CREATE EVENT TRIGGER t ON ddl_command_start EXECUTE FUNCTION tidy()
    """,
}
CASES = [(sql.strip(), kind) for kind, text in KINDS.items() for sql in text.strip().splitlines()]


@pytest.mark.parametrize(("sql", "kind"), CASES)
def test_a_statement_counts_as_the_worst_that_it_can_be(sql: str, kind: StatementKind) -> None:
    assert one(sql).kind is kind


RULES = """
    CREATE INDEX i ON acc (email)                                     | index-blocks-writes
    ALTER TABLE acc ADD FOREIGN KEY (tenant_id) REFERENCES tenants    | foreign-key-scans
    ALTER TABLE acc ADD CHECK (id > 0)                                | check-scans
    ALTER TABLE acc ADD PRIMARY KEY (id)                              | constraint-builds-index
    ALTER TABLE acc ALTER COLUMN bio SET NOT NULL                     | set-not-null-scans
    ALTER TABLE acc ADD PRIMARY KEY USING INDEX acc_email             | set-not-null-scans
    ALTER TABLE acc ALTER COLUMN tenant_id TYPE bigint                | changes-type
    ALTER TABLE acc ADD COLUMN x serial                               | adds-column-rewriting
    ALTER TABLE acc ADD COLUMN x int CHECK (x > 0)                    | adds-column-scanning
    ALTER TABLE acc SET LOGGED                                        | rewrites-table
    VACUUM FULL acc                                                   | rewrites-table
    VACUUM                                                            | whole-database
    REINDEX INDEX acc_email                                           | reindex-blocks
    DROP INDEX acc_email                                              | drops-index-blocking
    DROP TABLE acc                                                    | drops-table
    ALTER TABLE acc DROP COLUMN bio                                   | drops-column
    DROP TYPE mood CASCADE                                            | cascades
    ALTER TABLE acc RENAME TO accounts                                | renames
    ALTER TABLE acc RENAME COLUMN bio TO b                            | renames
    ALTER TYPE mood RENAME TO temper                                  | renames
    ALTER TABLE acc SET SCHEMA archive                                | renames
    TRUNCATE acc                                                      | truncates
    UPDATE acc SET bio = ''                                           | update-without-where
    UPDATE acc SET bio = '' WHERE bio IS NULL                         | large-update
    DELETE FROM acc                                                   | delete-without-where
    DELETE FROM acc WHERE bio IS NULL                                 | large-delete
    UPDATE tenants SET id = 5 WHERE id = 6                            | fires-triggers
    LOCK TABLE acc IN SHARE MODE                                      | explicit-lock
    REFRESH MATERIALIZED VIEW acc                                     | refresh-blocks
    ALTER TABLE acc DETACH PARTITION acc_1                            | detach-blocks
    CREATE TABLE acc_2 PARTITION OF acc DEFAULT                       | partition-blocks
    CREATE TRIGGER t BEFORE INSERT ON acc EXECUTE FUNCTION tidy()     | adds-trigger
    CREATE RULE r AS ON DELETE TO acc DO INSTEAD NOTHING              | adds-rule
    CREATE POLICY p ON acc USING (true)                               | changes-who-sees
    ALTER TABLE acc ENABLE ROW LEVEL SECURITY                         | changes-who-sees
    CREATE OR REPLACE FUNCTION tidy() RETURNS int LANGUAGE sql AS '1' | replaces
    CREATE OR REPLACE VIEW acc AS SELECT 1                            | replaces
    CREATE VIEW v AS SELECT tidy('x')                                 | stores-function
    ALTER TABLE acc ALTER COLUMN bio SET DEFAULT tidy('x')            | stores-function
    CREATE CAST (text AS int) WITH FUNCTION tidy(text)                | hides-calls
    CREATE ROLE boss                                                  | changes-roles
    ALTER ROLE boss SET search_path = x                               | changes-roles
    GRANT boss TO me                                                  | changes-roles
    REVOKE SELECT ON acc FROM PUBLIC                                  | revokes
    SET timezone = 'UTC'                                              | changes-setting
    CREATE PUBLICATION p FOR TABLE acc                                | changes-replication
    CREATE EXTENSION hstore                                           | adds-extension
"""
FOUND = [(s.strip(), r.strip()) for s, _, r in (x.rpartition("|") for x in RULES.splitlines()) if s]


@pytest.mark.parametrize(("sql", "rule"), FOUND)
def test_a_finding_says_it(sql: str, rule: str) -> None:
    assert rule in rules(sql)
    assert all(each.text for each in one(sql).findings)


REFUSED = """
    BEGIN                                             | own-transaction
    COMMIT                                            | own-transaction
    ROLLBACK                                          | own-transaction
    SAVEPOINT s                                       | own-transaction
    PREPARE TRANSACTION 'x'                           | own-transaction
    SET lock_timeout = 0                              | session-setting
    SET LOCAL statement_timeout = '1h'                | session-setting
    SET LOCK_TIMEOUT TO DEFAULT                       | session-setting
    RESET lock_timeout                                | session-setting
    RESET ALL                                         | session-setting
    SET ROLE boss                                     | session-setting
    RESET ROLE                                        | session-setting
    SET SESSION AUTHORIZATION boss                    | session-setting
    SET search_path = evil, public                    | session-setting
    SET session_replication_role = replica            | session-setting
    SET standard_conforming_strings = off             | session-setting
    SET TRANSACTION ISOLATION LEVEL SERIALIZABLE      | session-setting
    SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY | session-setting
    DISCARD ALL                                       | session-setting
    SELECT set_config('lock_timeout', '0', false)     | session-setting
    SELECT pg_catalog.set_config('search_path', '', false) | session-setting
    SELECT set_config('lock' || '_timeout', '0', false) | session-setting
    UPDATE acc SET bio = set_config('role', 'x', true) WHERE id = 5 | session-setting
    COPY acc FROM stdin                               | copy-stdin
    COPY acc TO stdout                                | copy-stdin
    COPY acc FROM '/etc/passwd'                       | copy-file
    COPY acc TO PROGRAM 'curl x'                      | copy-program
    COPY (SELECT 1) TO PROGRAM 'curl x'               | copy-program
    ALTER SYSTEM SET fsync = off                      | alter-system
    SELECT pg_terminate_backend(1)                    | ends-sessions
    SELECT 1 FROM pg_cancel_backend(1)                | ends-sessions
    CREATE DATABASE x                                 | outside-database
    DROP DATABASE x                                   | outside-database
    CREATE TABLESPACE t LOCATION '/x'                 | outside-database
    DROP TABLESPACE t                                 | outside-database
    CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p | subscription
    DROP SCHEMA twokey_migrate CASCADE                | own-schemas
    DELETE FROM twokey_migrate.steps                  | own-schemas
    ALTER TABLE acc SET SCHEMA twokey_aside           | own-schemas
    ALTER SCHEMA twokey_aside RENAME TO x             | own-schemas
    CREATE FUNCTION twokey_migrate.f() RETURNS int LANGUAGE sql AS '1' | own-schemas
    DROP TABLE twokey_aside.acc                       | own-schemas
    UPDATE pg_class SET relname = 'x'                 | catalog-write
    DROP OWNED BY me                                  | drops-owned
    LOAD 'x'                                          | opaque-code
"""
ERRORS = [
    (s.strip(), r.strip()) for s, _, r in (x.rpartition("|") for x in REFUSED.splitlines()) if s
]


@pytest.mark.parametrize(("sql", "rule"), ERRORS)
def test_some_statements_have_no_place_in_a_migration(sql: str, rule: str) -> None:
    statement = one(sql)
    assert (rule, Level.ERROR) in {(each.rule, each.level) for each in statement.findings}
    assert statement.kind in {StatementKind.OPAQUE, StatementKind.DESTRUCTIVE}


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE INDEX CONCURRENTLY i ON acc (email)",
        "DROP INDEX CONCURRENTLY acc_email",
        "REINDEX TABLE CONCURRENTLY acc",
        "REINDEX (CONCURRENTLY) TABLE acc",
        "REINDEX DATABASE orders",
        "VACUUM acc",
        "CLUSTER",
        "ALTER TABLE parent DETACH PARTITION acc CONCURRENTLY",
        "ALTER SYSTEM SET work_mem = '1MB'",
        "CREATE DATABASE x",
    ],
)
def test_what_postgresql_refuses_in_a_transaction_stands_alone(sql: str) -> None:
    assert one(sql).must_be_alone
    assert not judged(sql).is_transactional
    assert "concurrently-in-transaction" in rules(sql, says=True)


def test_a_small_table_is_a_note_and_a_large_one_a_warning() -> None:
    (large,) = [f for f in one("CREATE INDEX i ON acc (id)").findings if f.source == "twokey"]
    (small,) = [f for f in one("CREATE INDEX i ON tenants (id)").findings if f.source == "twokey"]
    assert (large.level, small.level) == (Level.WARNING, Level.NOTE)


def test_nobody_waits_for_a_table_that_the_file_makes() -> None:
    made = "CREATE TABLE fresh (id int, tenant_id int);"
    statement = last(made + "CREATE INDEX ON fresh (id)")
    assert (statement.kind, statement.touched, statement.findings) == (
        StatementKind.ADDITIVE,
        (),
        (),
    )
    assert last(made + "UPDATE fresh SET id = 1").kind is StatementKind.ADDITIVE
    assert last(made + "DROP TABLE fresh").kind is StatementKind.ADDITIVE
    key = last(made + "ALTER TABLE fresh ADD FOREIGN KEY (tenant_id) REFERENCES tenants")
    assert [(each.table, each.lock) for each in key.touched] == [
        ("public.tenants", Lock.SHARE_ROW_EXCLUSIVE)
    ]


def test_making_a_table_that_is_there_does_not_make_it_new() -> None:
    assert last("CREATE TABLE IF NOT EXISTS acc (id int); DROP TABLE acc").destroys
    blind = judged("CREATE INDEX i ON acc (id)", facts=type(FACTS)())
    assert blind.kind is StatementKind.BLOCKING


def test_a_foreign_key_locks_both_tables() -> None:
    sql = "ALTER TABLE acc ADD FOREIGN KEY (tenant_id) REFERENCES tenants"
    touched = {each.table: (each.lock, each.work) for each in one(sql).touched}
    assert touched == {
        "public.acc": (Lock.SHARE_ROW_EXCLUSIVE, Work.SCAN),
        "public.tenants": (Lock.SHARE_ROW_EXCLUSIVE, Work.CATALOG),
    }


def test_sizes_and_rows_stand_beside_the_table() -> None:
    (touched,) = one("CREATE INDEX CONCURRENTLY i ON public.acc (email)").touched
    assert (touched.size_bytes, touched.rows) == (2_000_000_000, 5_000_000)


def test_a_table_that_is_not_there_is_a_note_and_counts_as_before() -> None:
    statement = one("CREATE INDEX i ON nothing_here (id)")
    assert statement.kind is StatementKind.BLOCKING
    assert {(f.rule, f.level) for f in statement.findings} == {
        ("unknown-table", Level.NOTE),
        ("index-blocks-writes", Level.WARNING),
    }


def test_each_statement_of_the_grammar_is_known_or_counts_as_the_worst() -> None:
    from pglast import ast

    # Those that stand inside of others, or in PL/pgSQL alone.
    inner = {"RawStmt", "PLAssignStmt", "ReturnStmt", "SetOperationStmt", "ReplicaIdentityStmt"}
    statements = {name for name in dir(ast) if name.endswith("Stmt")} - inner
    assert statements == set(HANDLERS)

    effect = judge(ast.ReturnStmt(), Scene(facts=FACTS, major=17))
    assert effect.judged is StatementKind.OPAQUE
    assert effect.findings[0].level is Level.ERROR


def test_each_command_of_alter_table_is_known_or_counts_as_the_worst() -> None:
    from pglast import ast, enums, parse_sql

    # PostgreSQL makes these itself, after parsing.
    inner = {
        "AT_AddColumnToView", "AT_CookedColumnDefault", "AT_AddIndex", "AT_ReAddIndex",
        "AT_ReAddConstraint", "AT_ReAddDomainConstraint", "AT_AddIndexConstraint",
        "AT_ReAddComment", "AT_ReplaceRelOptions", "AT_ReAddStatistics",
    }  # fmt: skip
    assert {each.name for each in enums.AlterTableType} - inner == set(COMMANDS)
    tree = parse_sql("ALTER TABLE acc ADD COLUMN x int")[0].stmt
    tree.cmds = (ast.AlterTableCmd(subtype=enums.AlterTableType.AT_ReAddComment),)
    effect = judge(tree, Scene(facts=FACTS, major=17))
    assert effect.judged is StatementKind.OPAQUE
    assert [(each.lock, each.work) for each in effect.touches] == [
        (Lock.ACCESS_EXCLUSIVE, Work.UNKNOWN)
    ]


@pytest.mark.parametrize("kind", list(StatementKind)[:-1])
def test_only_what_no_run_may_do_is_an_error(kind: StatementKind) -> None:
    statements = [one(sql) for sql, is_kind in CASES if is_kind is kind]
    assert {f.rule for each in statements for f in each.findings if f.level is Level.ERROR} == set()


def test_a_default_that_may_differ_from_row_to_row_writes_the_table_anew() -> None:
    sql = "ALTER TABLE acc ADD COLUMN x text DEFAULT pg_read_file('x')"
    assert one(sql).touched[0].work is Work.REWRITE
