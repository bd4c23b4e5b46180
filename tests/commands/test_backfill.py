"""A backfill that is asked for: what is refused, what is said before, and what it leaves."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import Any, cast

import pytest

from commands.backfill import OPERATION, Params, limits_of, pins, plan, run
from jobs.migration_settings import BackfillSettings
from jobs.operation import JobError, Mode, Risk
from postgres.server import Server
from tests.commands.conftest import JobMaker, connected, facts

_numbers = itertools.count(1)
TABLES = """
    CREATE SCHEMA {0};
    CREATE TYPE {0}.mood AS ENUM ('sad', 'glad');
    CREATE TABLE {0}.users (id int PRIMARY KEY, name text NOT NULL, first_name text, n int,
                            mail varchar(40), mood {0}.mood, loud text GENERATED ALWAYS AS
                            (upper(name)) STORED, no int GENERATED ALWAYS AS IDENTITY);
    INSERT INTO {0}.users (id, name, n, mail)
    SELECT i, 'Ada Nr ' || i, 0, i || '@acme.example' FROM generate_series(1, 3000) i;
    CREATE UNIQUE INDEX users_mail ON {0}.users (lower(mail));
    ANALYZE {0}.users;
    CREATE TABLE {0}.keyless (a int);
    CREATE VIEW {0}.seen AS SELECT * FROM {0}.users;
    CREATE FUNCTION {0}.calm(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';
    CREATE FUNCTION {0}.wild(text) RETURNS text LANGUAGE sql AS 'SELECT $1';
    CREATE FUNCTION {0}.lower(varchar) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT ''mine''';
    CREATE OPERATOR {0}.~~> (FUNCTION = pg_catalog.textcat, LEFTARG = text, RIGHTARG = text);
    CREATE FUNCTION {0}.joined(varchar, text) RETURNS text LANGUAGE sql IMMUTABLE
        AS 'SELECT ''mine''';
    CREATE OPERATOR {0}.|| (FUNCTION = {0}.joined, LEFTARG = varchar, RIGHTARG = text);
"""
SPLIT = "first_name = split_part(name, ' ', 1)"


@pytest.fixture(scope="module")
def schema(shop: Server) -> str:
    """A schema with a table of users, and a few things that could be called."""
    name = f"people_{next(_numbers)}"
    asyncio.run(_execute(shop, TABLES.format(name)))
    return name


async def _execute(shop: Server, sql: str) -> None:
    async with connected(shop) as conn:
        await conn.execute(sql)


def asked(schema: str, set_text: str = SPLIT, where: str = "", **more: Any) -> Params:
    table = more.pop("table", f"{schema}.users")
    return Params(database="shop", table=table, set=set_text, where=where, **more)


async def test_the_plan_says_what_it_is_and_what_it_takes(job: JobMaker, schema: str) -> None:
    made = await plan(job(), asked(schema, where="first_name IS NULL"))
    assert made.title == f"Backfill first_name of {schema}.users"
    (statement,) = made.statements
    assert f"UPDATE {schema}.users SET first_name = split_part(name, ' ', 1)" in statement
    assert "WHERE id > $1::text::integer AND id <= $2::text::integer" in statement
    assert "AND (first_name IS NULL" in statement
    said = facts(made)
    assert "about 3,000 rows" in said["Table"]
    assert said["Rows that match"] == "about 3,000, by the planner's statistics"
    assert said["Key"] == f"id, by {schema}.users_pkey"
    assert said["Batches"] == "10,000 rows at first, then as many as take 50 ms"
    assert "replicas more than 5 s behind" in said["Waits for"]
    assert "stopped after 1 h" in said["Time"]
    assert said["Standbys watched"] == "none is connected"
    assert said["Indexes"].startswith("none has these columns")
    assert said["Old values"].startswith("none is overwritten")
    assert made.risk is Risk.RECOVERABLE
    assert made.undo is None
    assert made.attributes == {"kind": "data", "rows": 3000, "rehearsed": "no", "seconds": 1}
    assert any("NOT VALID" in warning for warning in made.warnings)
    assert not any("overwritten" in warning for warning in made.warnings)
    assert OPERATION.is_pausable


async def test_what_overwrites_values_can_lose_them(job: JobMaker, schema: str) -> None:
    made = await plan(job(), asked(schema, "n = n + 1", ranges=1, rows=500, batch_ms=20))
    assert made.risk is Risk.DESTRUCTIVE
    assert any("old values of n are overwritten" in warning for warning in made.warnings)
    assert any("no condition" in warning for warning in made.warnings)
    assert facts(made)["Old values"] == "overwritten, and not kept"
    assert facts(made)["Batches"] == "500 rows at first, then as many as take 20 ms"
    assert facts(made)["Rows that match"] == "all of them"


@pytest.mark.parametrize(
    ("set_text", "where", "problem"),
    [
        ("id = id + 1", "", "id belongs to the key"),
        ("loud = 'X'", "", "loud is generated"),
        ("no = 1", "", "no is generated"),
        ("nothing = 1", "", "no column nothing"),
        ("first_name = nothing", "", "no column nothing"),
        ("first_name = users", "", "no column users"),
        ("first_name = missing(name)", "", "no function missing"),
        ("first_name = lower(name, name)", "", "no function lower"),
        ("first_name = max(name)", "", "no function max"),
        ("first_name = pg_read_file(name)", "", "pg_read_file does more"),
        ("first_name = set_config('a.b', name, false)", "", "set_config does more"),
        ("first_name = query_to_xml(name, true, true, '')::text", "", "query_to_xml does more"),
        ("first_name = name::nowhere", "", "no type nowhere"),
        ("first_name = name COLLATE nowhere", "", "no collation nowhere"),
        ("first_name = lower(mail)", "", "more than one function lower"),
        ("first_name = mail || 'x'", "", "operator || of a column's type"),
        ("first_name = name OPERATOR(public.||) 'x'", "", "no operator public"),
        ("n = name", "", "PostgreSQL does not take it"),
        ("first_name = name; DROP TABLE users", "", "does not read"),
        ("first_name = name", "1", "PostgreSQL does not take it"),
    ],
)
async def test_what_is_refused(
    job: JobMaker, schema: str, set_text: str, where: str, problem: str
) -> None:
    with pytest.raises(JobError, match=f"(?s){problem.replace('|', '[|]')}") as refused:
        await plan(job(), asked(schema, set_text, where))
    assert refused.value.next_step


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("{0}.nothing", "no table"),
        ("{0}.keyless", "no primary key"),
        ("{0}.seen", "is a view"),
        ("pg_catalog.pg_class", "PostgreSQL's own"),
        ("twokey_migrate.backfills", "no table|or ours"),
    ],
)
async def test_which_tables_are_refused(
    job: JobMaker, schema: str, table: str, problem: str
) -> None:
    with pytest.raises(JobError, match=problem):
        await plan(job(), asked(schema, "a = 1", table=table.format(schema)))


async def test_our_user_must_be_allowed_to(job: JobMaker, schema: str, shop: Server) -> None:
    async with connected(shop) as conn:
        await conn.execute(f"GRANT USAGE ON SCHEMA {schema} TO looker")
    with pytest.raises(JobError, match="may not read and update"):
        await plan(job(user="looker"), asked(schema))


async def test_code_of_the_databases_own_is_named_and_not_run_for_a_plan(
    job: JobMaker, schema: str
) -> None:
    calm = await plan(job(), asked(schema, f"first_name = {schema}.calm(name)", "n = 0"))
    assert any(f"{schema}.calm (sql)" in warning for warning in calm.warnings)
    assert calm.attributes["kind"] == "data"
    where = f"first_name IS NULL AND {schema}.wild(name) = 'x'"
    wild = await plan(job(), asked(schema, SPLIT, where))
    assert wild.attributes["kind"] == "opaque"
    assert any("it may do anything" in warning for warning in wild.warnings)
    assert "not known" in facts(wild)["Rows that match"]
    assert wild.risk is Risk.DESTRUCTIVE


async def test_names_get_the_schema_that_they_are_in(job: JobMaker, schema: str) -> None:
    text = "first_name = wild(lower(name)), mood = 'glad'::mood"
    (statement,) = (await plan(job(), asked(schema, text))).statements
    assert f"first_name = {schema}.wild(lower(name))" in statement
    assert f"mood = CAST('glad' AS {schema}.mood)" in statement


async def test_what_gives_another_value_each_time_is_said(job: JobMaker, schema: str) -> None:
    made = await plan(job(), asked(schema, "first_name = gen_random_uuid()::text"))
    assert any("gives another value each time" in warning for warning in made.warnings)
    assert made.attributes["kind"] == "data"


async def test_triggers_indexes_and_keys_that_it_sets_in_motion_are_said(
    job: JobMaker, schema: str, shop: Server
) -> None:
    async with connected(shop) as conn:
        await conn.execute(f"""
            CREATE TABLE {schema}.teams (id int PRIMARY KEY);
            CREATE TABLE {schema}.members (id int PRIMARY KEY, team int REFERENCES {schema}.teams,
                                           n int, m int UNIQUE);
            CREATE FUNCTION {schema}.fire() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN RETURN new; END';
            CREATE TRIGGER always BEFORE UPDATE ON {schema}.members
                FOR EACH ROW EXECUTE FUNCTION {schema}.fire();
            CREATE TRIGGER of_n AFTER UPDATE OF n ON {schema}.members
                FOR EACH STATEMENT EXECUTE FUNCTION {schema}.fire();
            CREATE TRIGGER of_m AFTER UPDATE OF m ON {schema}.members
                FOR EACH STATEMENT EXECUTE FUNCTION {schema}.fire();
        """)
    table = f"{schema}.members"
    made = await plan(
        job(), asked(schema, "team = 1, m = n", "team IS NULL AND m IS NULL", table=table)
    )
    said = " ".join(made.warnings)
    assert "always (each row), of_m (each batch)." in said
    assert "members_team_fkey" in said
    assert "members_m_key is unique" in said
    assert facts(made)["Indexes"] == "members_m_key of 2 indexes"
    # A trigger may write what it likes.
    assert made.risk is Risk.DESTRUCTIVE


async def test_the_rows_are_changed_and_counted(job: JobMaker, schema: str, shop: Server) -> None:
    running, params = job(), asked(schema, where="first_name IS NULL", rows=1000)
    made = await plan(running, params)
    assert {**made.pins} == {**await pins(running, params, made)}
    answer = await run(running, params, made)
    assert running.steps == [("look", Mode.RETRYABLE), ("change", Mode.RESUMABLE)]
    assert answer.numbers["rows"] == 3000
    assert answer.numbers["estimate_seconds"] == made.estimate_seconds
    assert dict(answer.facts)["Still matching"] == "0"
    async with connected(shop) as conn:
        done = await conn.fetchval(f"SELECT count(*) FROM {schema}.users WHERE first_name = 'Ada'")
    assert done == 3000
    with pytest.raises(JobError, match="is finished"):
        await plan(running, replace_params(params, resume=running.request_id))


async def test_what_stopped_goes_on_under_another_request(
    job: JobMaker, schema: str, shop: Server
) -> None:
    first = replace(job(), request_id=11)
    params = asked(schema, "n = n + 1 + 0 / (2900 - id)", rows=100, ranges=1)
    made = await plan(first, params)
    with pytest.raises(JobError, match="cannot be computed") as failed:
        await run(first, params, made)
    assert "Add resume=11 then." in failed.value.next_step
    async with connected(shop) as conn:
        await conn.execute(f"UPDATE {schema}.users SET id = 5000 WHERE id = 2900")
    second = replace(job(), request_id=12)
    again = replace_params(params, resume=11)
    with pytest.raises(JobError, match="no backfill"):
        await plan(second, replace_params(again, set="n = 1"))
    planned = await plan(second, again)
    assert facts(planned)["Goes on"].startswith("request 11 has passed 2,")
    answer = await run(second, again, planned)
    assert answer.numbers["rows"] == 3000
    async with connected(shop) as conn:
        left = await conn.fetchval(f"SELECT count(*) FROM {schema}.users WHERE n <> 1")
    assert left == 0


async def test_a_table_that_was_replaced_since_is_left_alone(
    job: JobMaker, schema: str, shop: Server
) -> None:
    async with connected(shop) as conn:
        await conn.execute(f"CREATE TABLE {schema}.moved (id int PRIMARY KEY, a text)")
    running, params = job(), asked(schema, "a = lower(a)", table=f"{schema}.moved")
    made = await plan(running, params)
    async with connected(shop) as conn:
        await conn.execute(f"DROP TABLE {schema}.moved")
        await conn.execute(f"CREATE TABLE {schema}.moved (id bigint PRIMARY KEY, a text)")
    now = await pins(running, params, made)
    assert {name for name in now if now[name] != made.pins[name]} == {"table", "statement"}
    with pytest.raises(JobError, match="not as it was"):
        await run(running, params, made)


def test_the_form_says_what_it_takes_and_the_inventory_the_rest() -> None:
    params = asked("public", time_limit="90m", lag_max="2s", batch_ms=25)
    limits = limits_of(BackfillSettings(rows=777, retries=9), params)
    assert limits.time_limit.total_seconds() == 5400
    assert limits.lag_max.total_seconds() == 2
    assert limits.batch.total_seconds() == 0.025
    assert (limits.rows, limits.retries) == (777, 9)
    for wrong in ({"time_limit": "0s"}, {"time_limit": "8d"}, {"lag_max": "soon"}, {"rows": 1}):
        with pytest.raises(ValueError, match="validation error"):
            asked("public", **cast("Any", wrong))


def replace_params(params: Params, **more: Any) -> Params:
    return params.model_copy(update=more)
