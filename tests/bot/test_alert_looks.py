"""Looks at what was measured, through the store: silences, runs at work, what cannot be read."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bot.alerting import Watch
from bot.inventory import parse_inventory
from jobs.alert_helps import backup_suggestions, suggestions_for, suggestions_of
from jobs.alert_rule import Help
from jobs.alerts import NAMES
from jobs.health_settings import AlertRule, MonitoringSettings
from jobs.registry import load_operations
from store.connect import Store
from store.incidents import open_incidents
from store.silences import active_silences, add_silence, end_silence
from store.tables import nodes
from store.watches import WatchRow, open_watch
from tests.bot.clock_world import INVENTORY, SATURDAY, inventory
from tests.bot.test_alerting import HAND, Looker
from tests.jobs.alert_world import WELL
from tests.store.test_incidents import a_run

SECONDS, MINUTE = timedelta(seconds=30), timedelta(minutes=1)
POOL: dict[str, Any] = {"pool_usage_pct": 90}


class Sensed(Looker):
    """A watch on two databases whose servers were measured at each look."""

    broken: list[str]

    async def measured(self, database: str = "orders", **numbers: Any) -> None:
        """A server's numbers, as of now."""
        row = {
            "database": database, "node": database, "region": "", "collector": "w",
            "at": self.clock.now, "ok": True, "seen_at": self.clock.now, "problem": "",
            "next_step": "", "numbers": {**WELL, **numbers}, "detail": {"role": "primary"},
        }  # fmt: skip
        async with self.store.begin() as conn:
            await conn.execute(nodes.delete().where(nodes.c.database == database))
            await conn.execute(nodes.insert().values(row))

    async def lives(self, span: timedelta, **numbers: Any) -> list[str]:
        """Looks of every half minute; what was told meanwhile."""
        before, end = len(await self.told()), self.clock.now + span
        while self.clock.now < end:
            self.clock.now += SECONDS
            for database in self.watch.inventory.databases:
                await self.measured(database, **(numbers if database == "orders" else {}))
            await self.watch.look()
        return (await self.told())[before:]

    def rules(self, database: str, **rules: AlertRule) -> None:
        """Other rules for one database."""
        known = self.watch.inventory
        changed = replace(known.databases[database], monitoring=MonitoringSettings(rules=rules))
        databases = {**known.databases, database: changed}
        self.watch = replace(self.watch, inventory=replace(known, databases=databases))


@pytest.fixture
def sensed(store: Store, tmp_path: Path) -> Sensed:
    known = inventory(tmp_path, HAND.replace("{", "{daily: false, ", 1), grant=True)
    orders = known.databases["orders"]
    made = Sensed(
        store, replace(known, databases={"orders": orders, "users": replace(orders, name="users")})
    )
    made.broken = []
    made.watch = replace(made.watch, broke=made.broken.append)
    return made


async def test_what_was_measured_is_told_with_what_helps(sensed: Sensed) -> None:
    (told,) = await sensed.lives(3 * MINUTE, **POOL)
    assert told.startswith("warning warning: PoolUsage. 90 % of the connection slots of orders")
    incident = await sensed.stands()
    assert incident is not None
    (alert,) = incident.firing
    assert (alert.value, alert.detail["metric"], alert.detail["muted"]) == (
        90, "pool_usage_pct", "",
    )  # fmt: skip
    assert [each.operation for each in suggestions_of(alert.detail)] == ["pool", "locks"]
    assert await sensed.stands("users") is None


async def test_any_number_of_bots_tell_it_once(sensed: Sensed) -> None:
    others = [replace(sensed.watch) for _ in range(3)]
    for _ in range(14):
        sensed.clock.now += SECONDS
        for database in ("orders", "users"):
            await sensed.measured(database, **POOL)
        await asyncio.gather(*(each.look() for each in [sensed.watch, *others]))
    assert len(await sensed.told()) == 2
    assert len(await sensed.rows("SELECT id FROM incidents")) == 2


async def test_a_silence_hides_what_fires_until_somebody_ends_it(sensed: Sensed) -> None:
    async with sensed.store.begin() as conn:
        number = await add_silence(
            conn, database="orders", name="PoolUsage", source="person", reason="the move",
            by="ana@acme.example", by_slack="T0/U0", request_id=None, starts_at=SATURDAY,
            ends_at=SATURDAY + timedelta(hours=4),
        )  # fmt: skip
    assert await sensed.lives(10 * MINUTE, **POOL) == []
    assert await sensed.rows("SELECT name, incident_id FROM alerts") == [("PoolUsage", None)]
    async with sensed.store.begin() as conn:
        assert await end_silence(conn, number, by="ben@acme.example", at=sensed.clock.now)
    assert len(await sensed.lives(SECONDS, **POOL)) == 1


async def test_a_run_at_work_silences_its_database_and_a_while_longer(sensed: Sensed) -> None:
    async with sensed.store.begin() as conn:
        request = await a_run(conn, at=SATURDAY + 2 * MINUTE)
    assert await sensed.lives(5 * MINUTE, **POOL) == []
    async with sensed.store.begin() as conn:
        (silence,) = await active_silences(conn, sensed.clock.now)
    assert silence.reason == f"request {request} (failover) is at work"
    await sensed.rows("UPDATE runs SET state = 'done' RETURNING id")
    assert await sensed.lives(4 * MINUTE, **POOL) == []
    assert len(await sensed.lives(MINUTE + SECONDS, **POOL)) == 1


async def test_a_run_whose_worker_has_died_silences_nothing(sensed: Sensed) -> None:
    async with sensed.store.begin() as conn:
        await a_run(conn, at=SATURDAY - timedelta(hours=1))
    assert len(await sensed.lives(3 * MINUTE, **POOL)) == 1


async def test_a_database_that_cannot_be_looked_at_stops_none_of_the_others(
    sensed: Sensed, caplog: pytest.LogCaptureFixture
) -> None:
    await sensed.lives(3 * MINUTE, **POOL)
    sensed.rules("orders", Broken=AlertRule(name="Broken"))
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        for _ in range(10):
            sensed.clock.now += SECONDS
            await sensed.measured("users", **POOL)
            await sensed.watch.look()
    assert [text for text in await sensed.told() if "users" in text]
    assert [record.message for record in caplog.records] == [
        "Alerts cannot be looked at (orders: metrics); the others are."
    ]
    assert sensed.broken == ["alerts"] * 10
    incident = await sensed.stands()
    assert incident is not None  # and nothing of it has ended
    assert [alert.name for alert in incident.firing] == ["PoolUsage"]


async def test_what_cannot_be_stored_of_one_database_is_undone_for_it_alone(
    sensed: Sensed,
) -> None:
    sensed.rules("orders", Mine=AlertRule(name="Mine", metric="qps", fire=1, action="a\0b"))
    for _ in range(7):
        sensed.clock.now += SECONDS
        await sensed.measured("orders", qps=9, **POOL)
        await sensed.measured("users", **POOL)
        await sensed.watch.look()
    async with sensed.store.begin() as conn:
        assert [each.database for each in await open_incidents(conn, None)] == ["users"]
    assert await sensed.rows("SELECT DISTINCT database FROM alerts") == [("users",)]
    assert sensed.broken


async def test_rows_that_are_no_numbers_are_no_data(sensed: Sensed) -> None:
    await sensed.lives(3 * MINUTE, **POOL)
    for broken in ("[1]", '"x"', '{"pool_usage_pct": "much"}'):
        sensed.clock.now += SECONDS
        await sensed.measured("orders")
        await sensed.rows(
            f"UPDATE nodes SET numbers = '{broken}', detail = '[]' WHERE database = 'orders'"
            " RETURNING node"
        )
        await sensed.watch.look()
    assert sensed.broken == []
    assert await sensed.stands() is not None


def test_what_helps_is_an_operation_with_these_parameters() -> None:
    operations = load_operations("commands")
    detail = {"roots": [{"pid": 10}]}
    found = [
        *suggestions_for(Help, database="orders", detail=detail, why="w"),
        *(each for name in NAMES for each in backup_suggestions(name, "orders", "w")),
    ]
    assert len(found) >= len(Help)
    for each in found:
        operations[each.operation].params.model_validate(dict(each.params))


def test_a_rule_that_cannot_be_meant_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "policy.yml").write_text("rules: []")
    text = INVENTORY % HAND + "    monitoring: {rules: {PoolUsage: {clear: 90}}}\n"
    with pytest.raises(Exception, match="fires above 80, so it must clear below that, not at 90"):
        parse_inventory(text, path=tmp_path / "twokey.yml", environ={})


async def test_a_look_that_takes_too_long_is_given_up(sensed: Sensed) -> None:
    assert isinstance(sensed.watch, Watch)
    async with sensed.store.begin() as conn:
        await conn.execute(sa.text("LOCK TABLE incidents"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await sensed.watch.look()
    assert await sensed.watch.look() is not None


async def test_a_change_is_watched_until_it_is_well(sensed: Sensed) -> None:
    begun = sensed.clock.now
    async with sensed.store.begin() as conn:
        request = await a_run(conn, operation="migrate", risk="disruptive")
        await conn.execute(sa.text("UPDATE runs SET state = 'done'"))
        await open_watch(
            conn,
            WatchRow(
                database="orders", request_id=request, subject="0042 add email", state="watching",
                at=begun, until=begun + 10 * MINUTE, before={"lock_waits": 0.0},
                undo={"operation": "migrate", "params": {"database": "orders"}},
            ),
        )  # fmt: skip
    (told,) = await sensed.lives(4 * MINUTE, lock_waits=30)
    assert f"orders is worse than before request {request} (0042 add email)" in told
    assert await sensed.rows("SELECT state FROM watches") == [("worse",)]
    incident = await sensed.stands()
    assert incident is not None
    assert [each.text for each in suggestions_of(incident.firing[0].detail)] == ["Take it back"]
    (over,) = await sensed.lives(8 * MINUTE, lock_waits=0)
    assert over.startswith("done ")
    assert await sensed.rows("SELECT state FROM watches") == [("fine",)]
    assert await sensed.stands() is None
