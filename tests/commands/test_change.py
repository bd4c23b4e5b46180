"""A declared change, through all of its phases, while an application writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from commands import change
from commands.change import Params
from jobs import change_run
from jobs.changing import fill_limits
from jobs.migration_settings import BackfillSettings
from jobs.operation import JobError, Risk
from postgres.migrate.backfill.spec import BackfillLimits
from postgres.migrate.changes.words import Change
from postgres.server import Server
from store.change_phases import phases_of
from store.connect import Store
from store.kept_aside import open_kept
from tests.commands.changes import EMAIL, NAMES, ROWS, World, Writer, make_world, writing
from tests.commands.conftest import JobMaker, connected, facts

BEFORE_SWITCH = ("expand", "backfill", "validate")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else is at work here whose statements could become slower."""

    def limits(change: Change, settings: BackfillSettings) -> BackfillLimits:
        return replace(fill_limits(change, settings), before=timedelta(0))

    monkeypatch.setattr(change_run, "fill_limits", limits)


@pytest.fixture
async def world(job: JobMaker, shop: Server, store: Store, tmp_path: Path) -> AsyncIterator[World]:
    made = await make_world(job, shop, store, tmp_path)
    yield made
    await made.remove()


def names_writer(world: World) -> Writer:
    """A version of the application that knows `name` alone."""

    async def write(conn: Any, number: int, turn: int) -> dict[int, Any]:
        said = f"Old{turn} Name{number}"
        await conn.execute(
            f"INSERT INTO {world.table} (id, name) VALUES ($1, $2)"
            " ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name",
            number, said,
        )  # fmt: skip
        return {number: (said, *said.split(" "))}

    return Writer(write=write)


def first_names_writer(world: World) -> Writer:
    """A version of the application that knows the new columns alone."""

    async def write(conn: Any, number: int, turn: int) -> dict[int, Any]:
        first, last = f"New{turn}", f"Name{number}"
        await conn.execute(
            f'INSERT INTO {world.table} (id, "firstName", "lastName") VALUES ($1, $2, $3)'
            ' ON CONFLICT (id) DO UPDATE SET "firstName" = EXCLUDED."firstName",'
            ' "lastName" = EXCLUDED."lastName"',
            number, first, last,
        )  # fmt: skip
        return {number: (f"{first} {last}", first, last)}

    return Writer(write=write)


def mail_writer(world: World) -> Writer:
    """An application that reads and writes `email`, whatever its type."""

    async def write(conn: Any, number: int, turn: int) -> dict[int, Any]:
        mail = f"m{turn}-{number}@acme.example"
        await conn.execute(
            f"INSERT INTO {world.table} (id, email) VALUES ($1, $2)"
            " ON CONFLICT (id) DO UPDATE SET email = EXCLUDED.email",
            number, mail,
        )  # fmt: skip
        await conn.fetchrow(f"SELECT * FROM {world.table} WHERE id = $1", number)
        return {number: mail}

    return Writer(write=write)


async def test_both_versions_write_after_the_switch_and_nothing_is_lost(world: World) -> None:
    world.declare(world.names, NAMES)
    old, new = names_writer(world), first_names_writer(world)
    async with writing(world, old):
        await world.phases(world.names, *BEFORE_SWITCH)
    async with writing(world, old):
        await world.phase(world.names, "switch")
    async with writing(world, old, new, at_least=100):
        pass
    rows = await world.sql(f'SELECT id, name, "firstName", "lastName" FROM {world.table}')
    found = {row[0]: tuple(row)[1:] for row in rows}
    expected = {i: (f"Ada{i} Nr", f"Ada{i}", "Nr") for i in range(1, ROWS + 1)}
    merged = expected | _latest(old, new, found)
    assert old.errors == new.errors == []
    assert found == merged
    await world.phase(world.names, "back")
    assert await world.value(f"SELECT count(*) FROM {world.table} WHERE name LIKE 'New%'") > 0
    assert "firstName" in await world.columns()
    await world.phases(world.names, "validate", "switch", "contract")
    assert await world.columns() == ["email", "firstName", "id", "lastName"]
    kept = await world.sql(f'SELECT id, "firstName", "lastName" FROM {world.table}')
    assert {row[0]: (row[1], row[2]) for row in kept} == {
        number: values[1:] for number, values in found.items()
    }
    left = await world.value(
        "SELECT count(*) FROM pg_proc WHERE proname = $1", f"{world.names}_sync"
    )
    assert left == 0


def _quoted(name: str) -> str:
    return ".".join(f'"{part}"' for part in name.split("."))


def _latest(old: Writer, new: Writer, found: dict[int, Any]) -> dict[int, Any]:
    """What each wrote last; where both wrote a row, either, as long as its halves agree."""
    both = old.wrote.keys() & new.wrote.keys()
    merged = old.wrote | new.wrote
    for number in both:
        assert found[number] in (old.wrote[number], new.wrote[number])
        merged[number] = found[number]
    return merged


async def test_a_shadow_takes_the_name_and_gives_it_back_without_an_error_or_a_lost_write(
    world: World,
) -> None:
    world.declare(world.email, EMAIL)
    app = mail_writer(world)
    held: dict[str, float] = {}
    for phase in (*BEFORE_SWITCH, "switch", "back", "validate", "switch", "contract"):
        async with writing(world, app):
            answer = await world.phase(world.email, phase)
        held[phase] = float(answer.numbers.get("held_ms", 0))
        kinds = await world.value(
            "SELECT format_type(atttypid, atttypmod) || ' ' || attnotnull FROM pg_attribute"
            " WHERE attrelid = $1::text::regclass AND attname = 'email'",
            world.table,
        )
        is_new = phase in {"switch", "contract"}
        assert kinds == ("text true" if is_new else "character varying(255) true")
    rows = dict(tuple(row) for row in await world.sql(f"SELECT id, email FROM {world.table}"))
    expected = {i: f"{i}@acme.example" for i in range(1, ROWS + 1)} | app.wrote
    assert app.errors == []
    assert rows == expected
    assert held["switch"] > 0
    assert await world.columns() == ["email", "id", "name"]
    indexes = await world.sql(
        "SELECT indexname FROM pg_indexes WHERE schemaname = $1 ORDER BY 1", world.schema
    )
    assert [row[0] for row in indexes] == ["User_email_idx", "User_email_key", "User_pkey"]
    checked = await world.value(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'mail'"
        " AND conrelid = $1::text::regclass",
        world.table,
    )
    assert checked == "CHECK ((email <> ''::text))"
    default = f"INSERT INTO {world.table} (id) VALUES (-1) RETURNING email"
    assert await world.value(default) == "nobody"


async def test_a_plan_says_the_sql_the_risk_and_the_way_back(world: World) -> None:
    world.declare(world.email, EMAIL)
    told: dict[str, Any] = {}
    stands: list[str] = []
    for phase in (*BEFORE_SWITCH, "switch", "contract"):
        params = Params(database="shop", change=world.email, phase=phase)  # type: ignore[arg-type]
        made = await change.plan(world.job, params)
        told[phase] = (made.risk, made.attributes["phase"], made.attributes["kind"])
        stands.append(facts(made)["Stands at"])
        assert made.statements
        assert made.pins.keys() == {"file", "table", "columns", "stands"}
        assert (made.undo is None) == (phase == "contract")
        assert ("Kept aside" in facts(made)) == (phase == "contract")
        await world.phase(world.email, phase)
    assert stands == [
        "not begun; after this: expanded", "expanded; after this: backfilled",
        "backfilled; after this: validated", "validated; after this: switched",
        "switched; after this: contracted",
    ]  # fmt: skip
    assert told == {
        "expand": (Risk.RECOVERABLE, "expand", "additive"),
        "backfill": (Risk.RECOVERABLE, "backfill", "data"),
        "validate": (Risk.RECOVERABLE, "validate", "online"),
        "switch": (Risk.DISRUPTIVE, "switch", "blocking"),
        "contract": (Risk.DESTRUCTIVE, "contract", "destructive"),
    }
    async with world.store.begin() as conn:
        kept = await phases_of(conn, "shop", world.email)
    assert [row.phase for row in kept] == ["contract", "switch", "validate", "backfill", "expand"]
    assert [row.detail["state"] for row in kept] == ["done"] * 5
    async with world.store.begin() as conn:
        (aside,) = [row for row in await open_kept(conn, "shop") if world.schema in row.original]
    assert aside.original == f"{world.schema}.User.email__old"
    mail = await world.value(f"SELECT email__old FROM {_quoted(aside.kept)} WHERE id = 1")
    assert mail == "1@acme.example"
    with pytest.raises(JobError, match="contracted, and back does not follow"):
        await world.phase(world.email, "back")


@pytest.mark.parametrize(("which", "again"), [("names", ("contract",)), ("email", ("back",))])
async def test_a_worker_that_dies_after_every_step_does_nothing_twice(
    world: World, which: str, again: tuple[str, ...]
) -> None:
    name = getattr(world, which)
    world.declare(name, {"names": NAMES, "email": EMAIL}[which])
    for phase in (*BEFORE_SWITCH, "switch", *again):
        assert await world.killed_in(name, phase) >= 3
        marks = await world.sql(
            "SELECT mark FROM twokey_migrate.change_marks WHERE change = $1", name
        )
        # Nobody is left that could be taken for another run's work.
        tokens = [row[0] for row in marks if row[0].startswith("done by ")]
        assert len({str(mark).partition(":")[0] for mark in tokens}) <= 1
    left = {"names": ["firstName", "lastName"], "email": ["email_new", "name"]}[which]
    assert await world.columns() == sorted(["email", "id", *left])
    assert await world.value(f"SELECT count(*) FROM {world.table}") == ROWS


async def test_a_cancelled_backfill_goes_on_where_it_stopped(world: World) -> None:
    world.declare(world.names, NAMES)
    await world.phase(world.names, "expand")
    job = await world.another_run()
    params = Params(database="shop", change=world.names, phase="backfill")
    made = await change.plan(job, params)
    # Nobody may touch this row: the backfill comes to stand before it.
    async with connected(world.server) as conn:
        transaction = conn.transaction()
        await transaction.start()
        await conn.execute(f"SELECT FROM {world.table} WHERE id = 500 FOR UPDATE")
        running = asyncio.create_task(change.run(job, params, made))
        while await world.value(
            f'SELECT count(*) FROM {world.table} WHERE "firstName" IS NOT NULL'
        ) < 200:  # fmt: skip
            await asyncio.sleep(0.02)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await transaction.rollback()
    answer = await world.phase(world.names, "backfill")
    assert answer.numbers["rows_filled"] == ROWS
    whole = await world.value(f'SELECT count(*) FROM {world.table} WHERE "lastName" IS NULL')
    assert whole == 0
    async with world.store.begin() as conn:
        kept = await phases_of(conn, "shop", world.names)
    assert [row.detail["state"] for row in kept] == ["done", "begun", "done"]


async def test_a_row_that_is_wrong_stops_the_validation_by_its_key_alone(world: World) -> None:
    world.declare(world.names, NAMES)
    await world.phases(world.names, "expand", "backfill")
    await world.sql(f"UPDATE {world.table} SET \"lastName\" = 'secret' WHERE id IN (7, 350)")
    with pytest.raises(JobError, match=r"2 of 600 rows .* differ: .*\(id\): 7; 350") as refused:
        await world.phase(world.names, "validate")
    assert "secret" not in refused.value.problem
    assert "backfill again" in refused.value.next_step
    # Nothing was made stricter, and no index was built.
    made = (
        "SELECT count(*) FROM pg_constraint"
        " WHERE conname = 'short' AND conrelid = $1::text::regclass"
    )
    assert await world.value(made, world.table) == 0
    await world.phases(world.names, "backfill", "validate")
    assert await world.value(made, world.table) == 1


async def test_a_value_that_cannot_be_computed_harms_no_write_and_is_found_by_its_key(
    world: World,
) -> None:
    name = f"id_{world.schema}"
    world.declare(name, """
        version: 1
        kind: expand_contract
        table: {0}.User
        expand: ['ALTER TABLE {0}."User" ADD COLUMN number int']
        sync: {{set: {{number: "CAST(email AS int)"}}, reverse: {{}}}}
        validate: {{where: id > 0}}
        contract: {{drop: []}}
    """)  # fmt: skip
    await world.phase(name, "expand")
    await world.sql(f"UPDATE {world.table} SET email = id::text")
    await world.sql(f"UPDATE {world.table} SET email = 'none' WHERE id = 42")
    assert await world.value(f"SELECT number FROM {world.table} WHERE id = 42") is None
    with pytest.raises(JobError, match="cannot be computed"):
        await world.phase(name, "backfill")
    await world.sql(f"UPDATE {world.table} SET email = '42' WHERE id = 42")
    await world.phase(name, "backfill")
    await world.sql(f"UPDATE {world.table} SET email = 'none' WHERE id = 42")
    with pytest.raises(JobError, match=r"the row id = 42 should hold cannot be computed") as found:
        await world.phase(name, "validate")
    assert "none" not in found.value.problem


async def test_both_shapes_are_read_and_written_side_by_side(world: World) -> None:
    old, new = f"{world.schema}_v1", f"{world.schema}_v2"
    world.declare(world.names, f"{NAMES}    views: {{{{old: {old}, new: {new}}}}}\n")
    await world.sql(f"UPDATE {world.table} SET name = 'Ana Maria Smith' WHERE id = 2")
    await world.phase(world.names, "expand")
    async with connected(world.server) as conn:
        await conn.execute("SET ROLE looker")
        await conn.execute(f"INSERT INTO {old}.\"User\" (id, name) VALUES (9001, 'Jo Doe')")
        await conn.execute(
            f'INSERT INTO {new}."User" (id, "firstName", "lastName")'
            " VALUES (9002, 'Mary Ann', 'Smith')"
        )
        await conn.execute(f'UPDATE {new}."User" SET "lastName" = \'Roe\' WHERE id = 9001')
        await conn.execute(f"UPDATE {old}.\"User\" SET name = 'Ada Byron' WHERE id = 1")
    await world.phases(world.names, "backfill", "validate")
    # What a backfill writes to the new columns must not come back to the old ones.
    assert await world.value(f"SELECT name FROM {world.table} WHERE id = 2") == "Ana Maria Smith"
    seen = await world.sql(f'SELECT id, name FROM {old}."User" WHERE id IN (1, 9001, 9002)')
    assert sorted(map(tuple, seen)) == [
        (1, "Ada Byron"), (9001, "Jo Roe"), (9002, "Mary Ann Smith")
    ]  # fmt: skip
    shown = await world.sql(f'SELECT * FROM {new}."User" WHERE id IN (1, 9001, 9002) ORDER BY id')
    assert [tuple(row.values())[2:] for row in shown] == [
        ("Ada", "Byron"), ("Jo", "Roe"), ("Mary Ann", "Smith")
    ]  # fmt: skip
    assert "name" not in shown[0].keys()  # noqa: SIM118 - a record, not a mapping
    await world.phases(world.names, "switch", "contract")
    left = "SELECT count(*) FROM pg_namespace WHERE nspname IN ($1, $2)"
    assert await world.value(left, old, new) == 0


async def test_what_a_replication_worker_applies_is_kept_together_too(world: World) -> None:
    world.declare(world.names, NAMES)
    await world.phase(world.names, "expand")
    async with connected(world.server) as conn:
        await conn.execute("SET session_replication_role = replica")
        await conn.execute(f"INSERT INTO {world.table} (id, name) VALUES (9001, 'Jo Doe')")
    assert await world.value(f'SELECT "firstName" FROM {world.table} WHERE id = 9001') == "Jo"


async def test_values_that_only_the_new_columns_have_are_not_dropped(world: World) -> None:
    world.declare(world.names, NAMES)
    await world.phases(world.names, "expand", "backfill")
    await world.sql(f"UPDATE {world.table} SET \"firstName\" = 'Only here' WHERE id = 3")
    with pytest.raises(JobError, match=r"hold something that the old ones do not say.*: 3\."):
        await world.phase(world.names, "back")
    await world.phases(world.names, "backfill", "back")
    assert await world.columns() == ["email", "id", "name"]
    assert await world.value(
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = $1::text::regclass", world.table
    ) == 0  # fmt: skip
    await world.phase(world.names, "expand")  # and it can begin again


async def test_going_back_stops_where_a_write_would_be_lost(world: World) -> None:
    world.declare(world.email, EMAIL)
    await world.phases(world.email, *BEFORE_SWITCH, "switch")
    long = "x" * 300
    await world.sql(f"UPDATE {world.table} SET email = '{long}' WHERE id = 5")
    # It did not fit, so the old column has NULL, and the application saw no error.
    assert await world.value(f"SELECT email__old FROM {world.table} WHERE id = 5") is None
    with pytest.raises(JobError, match=r"do not hold what was written since.*\(id\): 5\."):
        await world.phase(world.email, "back")
    await world.sql(f"UPDATE {world.table} SET email = 'short' WHERE id = 5")
    await world.phase(world.email, "back")
    assert await world.value(f"SELECT email FROM {world.table} WHERE id = 5") == "short"


async def test_a_file_that_was_changed_after_it_began_is_refused(world: World) -> None:
    path = world.declare(world.names, NAMES)
    await world.phase(world.names, "expand")
    path.write_text(path.read_text().replace("' ', 2", "' ', 3"))
    for phase in ("backfill", "back"):
        with pytest.raises(JobError, match="has changed since the change was begun"):
            await world.phase(world.names, phase)
    answer = await change.answer(world.job, Params(database="shop", change=world.names))
    assert "has changed since" in answer.lines[1]


async def test_a_trigger_that_somebody_has_touched_stops_what_relies_on_it(world: World) -> None:
    world.declare(world.names, NAMES)
    await world.phase(world.names, "expand")
    trigger = f'"zz_twokey_{world.names}"'
    for sql, says in (
        (f"ALTER TABLE {world.table} ENABLE TRIGGER {trigger}", "does not fire always"),
        (f"ALTER TABLE {world.table} DISABLE TRIGGER {trigger}", "does not fire always"),
        (f"DROP TRIGGER {trigger} ON {world.table}", "is gone"),
    ):
        await world.sql(sql)
        with pytest.raises(JobError, match=says):
            await world.phase(world.names, "backfill")
    await world.phase(world.names, "back")  # the old columns were the truth all along
    assert await world.columns() == ["email", "id", "name"]
