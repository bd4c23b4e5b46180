"""Alertmanager's webhooks: who may send them, what of them is believed, and what is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from approvals.words import BadInputError
from bot.alerting import Watch
from bot.alertmanager import PATH, Alertmanager, receiver
from bot.alertmanager_body import ALERTS_MAX, Webhook, groups_of
from bot.foreign_alerts import UNHEARD, sweep
from bot.http import serve_http, web_app
from bot.metrics import Metrics
from bot.settings import Settings
from store.connect import Store
from store.incidents import ack_incident
from store.silences import add_silence, end_silence
from tests.bot.world import inventory

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
TOKEN = "a-token-of-alertmanager"
ZERO = "0001-01-01T00:00:00Z"
GROUP = '{}:{alertname="HighLag"}'


def alert(
    name: str = "HighLag",
    *,
    status: str = "firing",
    severity: str = "critical",
    fingerprint: str = "b2a3c4d5e6f70809",
    annotations: Mapping[str, str] | None = None,
    **labels: str,
) -> dict[str, Any]:
    """An alert as Alertmanager 0.25 sends it."""
    return {
        "status": status,
        "labels": {
            "alertname": name, "severity": severity, "instance": "db1:9187",
            "database": "orders", **labels,
        },
        "annotations": {"summary": "The standby is behind", **(annotations or {})},
        "startsAt": "2026-11-22T11:58:20.123456789Z",
        "endsAt": ZERO if status == "firing" else "2026-11-22T11:59:20.123456789Z",
        "generatorURL": "http://prometheus:9090/graph?g0.expr=up",
        "fingerprint": fingerprint,
    }  # fmt: skip


def webhook(*alerts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A group as Alertmanager 0.25 sends it: firing while one of it is."""
    firing = any(each["status"] == "firing" for each in alerts)
    return {
        "receiver": "twokey", "status": "firing" if firing else "resolved",
        "alerts": list(alerts), "groupLabels": {"alertname": "HighLag"},
        "commonLabels": {"alertname": "HighLag"}, "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093", "version": "4", "groupKey": GROUP,
        "truncatedAlerts": 0, **more,
    }  # fmt: skip


@dataclass(kw_only=True)
class Door:
    """The door, with a clock that a test moves."""

    store: Store
    url: str
    session: aiohttp.ClientSession
    now: datetime = NOW
    metrics: Metrics = field(default_factory=Metrics)

    async def send(
        self, body: object, *, token: str | None = TOKEN, raw: bytes | None = None
    ) -> tuple[int, dict[str, Any]]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        data = raw if raw is not None else json.dumps(body).encode()
        async with self.session.post(self.url, data=data, headers=headers) as answer:
            return answer.status, await answer.json()

    async def told(self) -> list[tuple[str, str]]:
        """What is to be told, as kinds and texts."""
        return [
            (row.kind, row.text or "")
            for row in await self.rows(
                "SELECT payload ->> 'kind' AS kind, payload ->> 'text' AS text"
                " FROM outbox WHERE topic = 'incident' ORDER BY id"
            )
        ]

    async def rows(self, query: str) -> list[Any]:
        async with self.store.begin() as conn:
            return list((await conn.execute(sa.text(query))).all())

    async def alerts(self) -> list[tuple[str, str, str]]:
        return [
            (row.database, row.name, row.state)
            for row in await self.rows("SELECT database, name, state FROM alerts ORDER BY id")
        ]

    async def placed(self) -> None:
        """The incident's message stands in Slack."""
        async with self.store.begin() as conn:
            await conn.execute(
                sa.text(
                    "INSERT INTO places SELECT 'incident', id::text, channel, '1' FROM incidents"
                )
            )


@asynccontextmanager
async def serving(store: Store, home: Path, **given: Any) -> AsyncIterator[Door]:
    given_settings = Settings(home=home, **{"alertmanager_token": TOKEN, **given})
    async with aiohttp.ClientSession() as session:
        door = Door(store=store, url="", session=session)
        made: Alertmanager = receiver(
            given_settings, inventory(home, "postgresql://nobody"), store=store,
            metrics=door.metrics, clock=lambda: door.now,
        )  # fmt: skip
        app = web_app(
            bolt=None, gate=None, store=store, metrics=door.metrics, clock=lambda: door.now,
            api=made.routes(),
        )  # fmt: skip
        runner = await serve_http(app, host="127.0.0.1", port=0)
        door.url = f"http://127.0.0.1:{runner.addresses[0][1]}{PATH}"
        try:
            yield door
        finally:
            await runner.cleanup()


@pytest.fixture
async def door(store: Store, tmp_path: Path) -> AsyncIterator[Door]:
    async with serving(store, tmp_path) as made:
        yield made


async def silence(door: Door, name: str = "", *, length: timedelta = timedelta(hours=1)) -> int:
    async with door.store.begin() as conn:
        return await add_silence(
            conn, database="orders", name=name, source="person", reason="known", by="ana",
            by_slack="", request_id=None, starts_at=door.now, ends_at=door.now + length,
        )  # fmt: skip


async def swept(door: Door) -> None:
    async with door.store.begin() as conn:
        await sweep(conn, door.now)


async def test_a_group_is_one_incident_told_once_however_often_it_comes(door: Door) -> None:
    assert await door.send(webhook(alert())) == (200, {"ok": True, "firing": 1})
    for minutes in (1, 2):
        door.now = NOW + timedelta(minutes=minutes)
        assert (await door.send(webhook(alert())))[0] == 200
    assert await door.told() == [
        ("card", ""), ("note", "HighLag (instance=db1:9187) fires (critical)"),
    ]  # fmt: skip
    [row] = await door.rows("SELECT * FROM alerts")
    assert (row.label, row.severity, row.value) == ("b2a3c4d5e6f70809", "critical", None)
    assert row.fired_at == datetime(2026, 11, 22, 11, 58, 20, 123456, tzinfo=UTC)
    assert row.seen_at == door.now
    assert "The standby is behind" in row.problem
    [incident] = await door.rows("SELECT * FROM incidents")
    assert (incident.source, incident.key, incident.channel) == (
        "alertmanager", f"orders:{GROUP}", "C0DBOPS",
    )  # fmt: skip


async def test_each_alert_of_a_group_has_its_own_state_and_the_last_one_closes_it(
    door: Door,
) -> None:
    other = alert(fingerprint="0000000000000002", instance="db2:9187", severity="warning")
    await door.send(webhook(alert(), other))
    await door.placed()
    await door.send(webhook(alert(status="resolved"), other))
    [incident] = await door.rows("SELECT state, severity FROM incidents")
    assert tuple(incident) == ("open", "warning")
    await door.send(webhook(alert(status="resolved"), other | {"status": "resolved"}))
    [incident] = await door.rows("SELECT state, closed_at FROM incidents")
    assert tuple(incident) == ("closed", NOW)
    assert [text for kind, text in await door.told() if kind == "note"][1:] == [
        "HighLag (instance=db1:9187) is over", "HighLag (instance=db2:9187) is over",
    ]  # fmt: skip
    await door.send(webhook(alert(status="resolved")))  # once more: nothing is left to say
    assert len(await door.told()) == 6


async def test_what_a_whole_group_does_not_name_any_more_is_over_and_a_cut_one_says_nothing(
    door: Door,
) -> None:
    other = alert(fingerprint="0000000000000002", instance="db2:9187")
    await door.send(webhook(alert(), other))
    await door.send(webhook(alert(), truncatedAlerts=1))
    assert [state for _, _, state in await door.alerts()] == ["firing", "firing"]
    [incident] = await door.rows("SELECT detail FROM incidents")
    assert incident.detail["left_out"] == 1
    await door.send(webhook(alert()))
    over = await door.rows("SELECT label FROM alerts WHERE state = 'resolved'")
    assert [row.label for row in over] == ["0000000000000002"]


async def test_what_joins_is_heard_of_and_what_becomes_worse_takes_the_acknowledgement_back(
    door: Door,
) -> None:
    await door.send(webhook(alert(severity="warning")))
    async with door.store.begin() as conn:
        await ack_incident(conn, 1, "ana", door.now)
    await door.send(webhook(alert(severity="warning")))
    assert [row.acked_by for row in await door.rows("SELECT acked_by FROM alerts")] == ["ana"]
    await door.send(webhook(alert(severity="critical")))
    assert [row.acked_by for row in await door.rows("SELECT acked_by FROM alerts")] == [""]
    loud = await door.rows(
        "SELECT payload FROM outbox WHERE payload ->> 'kind' = 'note' ORDER BY id"
    )
    assert [row.payload["loud"] for row in loud] == [False, True]
    assert "has become worse" in loud[1].payload["text"]


async def test_alerts_of_several_databases_are_told_where_each_belongs(
    store: Store, tmp_path: Path
) -> None:
    async with serving(store, tmp_path, alertmanager_database="orders") as door:
        told = [
            alert(fingerprint="1", database="postgres"),  # PostgreSQL's own word decides nothing
            alert(fingerprint="2", twokey_database="orders"),
        ]
        assert (await door.send(webhook(*told)))[0] == 200
        assert await door.alerts() == [("orders", "HighLag", "firing")] * 2


async def test_what_belongs_to_no_database_is_said_and_the_others_are_told(door: Door) -> None:
    status, said = await door.send(
        webhook(alert(), alert("Lost", fingerprint="2", database="elsewhere"))
    )
    assert status == 422
    assert said["problem"] == "Of no database of the inventory: Lost."
    assert "TWOKEY_ALERTMANAGER_DATABASE" in said["next_step"]
    assert await door.alerts() == [("orders", "HighLag", "firing")]


async def test_without_the_right_token_nothing_is_looked_at(door: Door) -> None:
    for token in (None, "", "wrong", f"{TOKEN}x", TOKEN[:-1], "tökén-of-alertmanager"):
        status, said = await door.send(webhook(alert()), token=token)
        assert (status, said["ok"]) == (401, False)
    for scheme in ("Basic", "Token"):
        headers = {"Authorization": f"{scheme} {TOKEN}"}
        async with door.session.post(door.url, json=webhook(alert()), headers=headers) as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert await door.alerts() == []


async def test_where_no_token_is_set_there_is_no_door(store: Store, tmp_path: Path) -> None:
    async with serving(store, tmp_path, alertmanager_token=None) as door:
        for token in (None, "", "None"):
            status, said = await door.send(webhook(alert()), token=token)
            assert status == 404
            assert "TWOKEY_ALERTMANAGER_TOKEN" in said["next_step"]


@pytest.mark.parametrize(
    ("broken", "where"),
    [
        ({"version": "5"}, "version"),
        ({"groupKey": ""}, "groupKey"),
        ({"alerts": [alert() | {"status": "pending"}]}, "alerts.0.status"),
        ({"alerts": [alert() | {"startsAt": "yesterday"}]}, "alerts.0.startsAt"),
        ({"alerts": [alert() | {"startsAt": "2026-11-22T11:58:20"}]}, "alerts.0.startsAt"),
        ({"alerts": [alert() | {"labels": {"alertname": 7}}]}, "alerts.0.labels.alertname"),
        ({"alerts": "none"}, "alerts"),
        ({"truncatedAlerts": -1}, "truncatedAlerts"),
    ],
)
async def test_what_is_no_webhook_is_refused_whole_and_repeated_nowhere(
    door: Door, broken: dict[str, Any], where: str
) -> None:
    status, said = await door.send(webhook(alert()) | broken)
    assert status == 400
    assert where in said["problem"]
    assert "yesterday" not in json.dumps(said)
    assert await door.alerts() == []


async def test_what_is_no_json_or_too_much_of_it_is_refused(door: Door) -> None:
    for raw in (b"", b"{", b"\xff\xfe", b"[]", b'"\\ud800"', b"[" * 5000):
        assert (await door.send(None, raw=raw))[0] == 400
    status, said = await door.send(None, raw=b" " * 1_000_002)
    assert status == 413
    assert "max_alerts" in said["next_step"]


async def test_characters_that_no_database_keeps_and_keys_that_nobody_knows_are_no_obstacle(
    door: Door,
) -> None:
    odd = alert("Nul\x00", annotations={"summary": "a\x00b <!channel>"})
    sent = webhook(odd | {"values": {"A": 1}}, title="[FIRING:1]", orgId=1, version="1")
    assert (await door.send(sent))[0] == 200
    [row] = await door.rows("SELECT name, problem FROM alerts")
    assert row.name == "Nul\N{REPLACEMENT CHARACTER}"
    assert "<!channel>" in row.problem  # escaped where it is drawn


async def test_what_is_silent_is_kept_and_not_told_until_it_is_heard_again(door: Door) -> None:
    number = await silence(door, "HighLag")
    await door.send(webhook(alert()))
    assert await door.told() == []
    await swept(door)
    assert await door.told() == []
    async with door.store.begin() as conn:
        await end_silence(conn, number, by="ana", at=door.now)
    for _ in range(2):
        await swept(door)
        await door.send(webhook(alert()))
    assert [kind for kind, _ in await door.told()] == ["card", "note"]
    assert "is heard again" in (await door.told())[1][1]


async def test_what_was_silent_from_beginning_to_end_is_never_told(door: Door) -> None:
    await silence(door)
    await door.send(webhook(alert()))
    await door.send(webhook(alert(status="resolved")))
    assert await door.told() == []
    assert await door.alerts() == [("orders", "HighLag", "resolved")]


async def test_the_end_of_what_was_told_is_told_also_in_silence(door: Door) -> None:
    await door.send(webhook(alert()))
    await door.placed()
    await silence(door)
    await swept(door)
    await door.send(webhook(alert(status="resolved")))
    assert (await door.told())[-1] == ("note", "HighLag (instance=db1:9187) is over")


async def test_what_is_not_heard_of_for_two_days_is_over_and_says_why(door: Door) -> None:
    await door.send(webhook(alert()))
    await door.placed()
    door.now = NOW + UNHEARD
    await swept(door)
    assert await door.alerts() == [("orders", "HighLag", "firing")]
    door.now += timedelta(seconds=1)
    await swept(door)
    assert await door.alerts() == [("orders", "HighLag", "resolved")]
    assert "nothing was heard of it for 2 d 1 h" in (await door.told())[-1][1]


async def test_one_alert_by_two_routes_is_told_once(door: Door) -> None:
    await door.send(webhook(alert()))
    await door.send(webhook(alert(), groupKey="{}/{team}:{}"))
    assert len(await door.rows("SELECT id FROM incidents")) == 1
    assert len(await door.told()) == 2


async def test_two_that_send_the_same_at_once_open_one_incident(door: Door) -> None:
    answers = await asyncio.gather(*(door.send(webhook(alert())) for _ in range(6)))
    assert [status for status, _ in answers] == [200] * 6
    assert len(await door.rows("SELECT id FROM incidents")) == 1
    assert len(await door.told()) == 2


async def test_our_own_watch_ends_nothing_of_alertmanagers(door: Door, tmp_path: Path) -> None:
    await door.send(webhook(alert()))
    later = NOW + timedelta(hours=1)
    watch = Watch(
        inventory=inventory(tmp_path, "postgresql://nobody"), store=door.store, clock=lambda: later
    )
    assert await watch.look() is not None
    assert ("orders", "HighLag", "firing") in await door.alerts()


async def test_while_the_store_is_away_it_is_asked_to_send_again(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr("bot.alertmanager.take_in", away)
    status, said = await door.send(webhook(alert()))
    assert status == 503
    assert said["next_step"] == "Send it again in a moment."


def test_a_fallback_that_is_not_in_the_inventory_stops_the_start(
    store: Store, tmp_path: Path
) -> None:
    with pytest.raises(BadInputError, match="'nowhere', which is not in the inventory"):
        receiver(
            Settings(home=tmp_path, alertmanager_database="nowhere"),
            inventory(tmp_path, "postgresql://nobody"), store=store, metrics=Metrics(),
            clock=lambda: NOW,
        )  # fmt: skip


def test_a_token_that_is_short_enough_to_guess_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16 characters"):
        Settings(alertmanager_token=SecretStr("short"))


def grouped(*alerts: dict[str, Any], **more: Any) -> Any:
    sent = Webhook.model_validate_json(json.dumps(webhook(*alerts, **more)))
    [group], lost = groups_of(sent, {"orders"}, fallback="", now=NOW)
    assert not lost
    return group


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("2026-11-22T11:00:00+01:00", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("2026-11-22T13:00:00Z", NOW),  # a clock that is ahead
        (ZERO, NOW - timedelta(days=400)),
        ("0001-01-01T00:00:00+14:00", NOW - timedelta(days=400)),  # before year 1 in UTC
    ],
)
def test_since_when_is_believed_as_far_as_a_clock_elsewhere_can_be(
    said: str, kept: datetime
) -> None:
    assert grouped(alert() | {"startsAt": said}).alerts[0].fired_at == kept


@pytest.mark.parametrize(
    ("severity", "ours"),
    [("critical", "critical"), ("Page", "critical"), ("info", "warning"), ("", "warning")],
)
def test_severities_of_others_are_one_of_ours(severity: str, ours: str) -> None:
    assert grouped(alert(severity=severity)).alerts[0].severity == ours


def test_more_than_an_incident_holds_is_counted_and_the_worst_are_kept() -> None:
    many = [alert(fingerprint=str(n), severity="warning") for n in range(ALERTS_MAX + 5)]
    group = grouped(*many, alert(fingerprint="worst"), truncatedAlerts=3)
    assert len(group.firing) == ALERTS_MAX
    assert group.firing[0].label == "worst"
    assert group.left_out == 3 + 6


def test_what_has_no_fingerprint_is_known_by_its_labels() -> None:
    [one, two] = [
        grouped(alert(fingerprint="", instance=name)).alerts[0].label for name in ("db1", "db2")
    ]
    assert one != two
    assert grouped(alert(fingerprint="", instance="db1")).alerts[0].label == one


def test_secrets_in_annotations_are_taken_out() -> None:
    told = grouped(alert(annotations={"description": "postgresql://ana:hunter22@db1/orders"}))
    assert "hunter22" not in told.alerts[0].problem


texts = st.text(max_size=40)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    labels=st.dictionaries(texts, texts, max_size=5),
    annotations=st.dictionaries(st.sampled_from(["summary", "description", "runbook_url"]), texts),
)
def test_whatever_texts_come_they_are_bounded_and_kept(
    labels: dict[str, str], annotations: dict[str, str]
) -> None:
    sent = alert() | {"labels": labels, "annotations": annotations}
    found = Webhook.model_validate(webhook(sent))
    [group], _ = groups_of(found, {"orders"}, fallback="orders", now=NOW)
    for each in group.alerts:
        assert each.name
        assert each.problem
        assert each.next_step
        assert len(each.problem) <= 2000
        assert "\x00" not in each.name + each.problem + each.about + each.label
