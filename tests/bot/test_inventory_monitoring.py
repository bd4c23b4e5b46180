"""How the inventory says what is monitored, right and wrong."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from approvals.words import BadInputError
from bot.inventory import parse_inventory
from jobs.health_settings import (
    COLLECT_EVERY,
    AlertRule,
    AppPool,
    DigestSettings,
    MonitoringSettings,
    SchemaKind,
    Volume,
)
from jobs.operation import Database

START = """
policy: policy.yml
databases:
  orders:
    dsn: postgresql://db1/orders
    environment: production
    tier: critical
    channel: C0DBOPS
    backup_folder: backups/orders
"""
ALL = """
    region: eu-central-1
    replicas:
      - {name: west, region: us-west-2, dsn: "env:WEST"}
      - {name: south, dsn: postgresql://south/orders}
    monitoring:
      every: 10s
      replicas: 3
      volume: {path: data, wal: /wal, total: 500GB}
      cores: 8
      spindles: 2
      pools: [{name: web, instances: 4, size: 10}, {name: fn, size: 2, serverless: true}]
      pgbouncer: "env:BOUNCER"
      dsn: "env:LOOKER"
      rules:
        ReplicationLag: {fire: 30000, clear: 10000, for: 2m, hold: 5m, repeat: 4h, escalate: 15m}
        Deadlocks: false
        TooManyTemp: {metric: temp_bytes_s, fire: 1000000, severity: warning, action: Look.}
      runbooks: https://wiki.example/{alert}
      escalate_to: C0ONCALL
      digest: {daily: false, weekly: "0 9 * * 1", zone: Europe/Berlin, channel: C0MANAGERS}
      cache: 1m
      sensitive_tables: [public.users]
      schema: {kind: prisma, path: prisma/schema.prisma}
"""
ENVIRON = {"WEST": "postgresql://west/orders", "BOUNCER": "postgresql://bouncer/pgbouncer",
           "LOOKER": "postgresql://looker/orders"}  # fmt: skip


def orders(text: str = "") -> Database:
    path = Path("/etc/twokey/twokey.yml")
    return parse_inventory(START + text, path=path, environ=ENVIRON).databases["orders"]


def test_what_nobody_wrote_for_is_monitored_in_the_usual_way() -> None:
    found = orders()
    assert found.monitoring == MonitoringSettings(is_on=True, every=COLLECT_EVERY)
    assert (found.region, found.replicas) == ("", ())


def test_monitoring_can_be_turned_off() -> None:
    assert orders("    monitoring: false\n").monitoring == MonitoringSettings(is_on=False)


def test_everything_that_can_be_said_becomes_values() -> None:
    found = orders(ALL)
    settings = found.monitoring
    assert (settings.every, settings.replicas) == (timedelta(seconds=10), 3)
    assert settings.volume == Volume(
        path=Path("/etc/twokey/data"), wal_path=Path("/wal"), total_bytes=500 * 1024**3
    )
    assert (settings.cores, settings.spindles) == (8, 2)
    assert settings.pools == (
        AppPool(name="web", instances=4, size=10),
        AppPool(name="fn", instances=1, size=2, is_serverless=True),
    )
    assert settings.dsn is not None
    assert settings.dsn.get_secret_value() == ENVIRON["LOOKER"]
    assert settings.pgbouncer is not None
    assert settings.pgbouncer.get_secret_value() == ENVIRON["BOUNCER"]
    assert (settings.runbooks, settings.escalate_to) == ("https://wiki.example/{alert}", "C0ONCALL")
    assert settings.digest == DigestSettings(
        daily="", weekly="0 9 * * 1", zone="Europe/Berlin", channel="C0MANAGERS"
    )
    assert settings.cache_for == timedelta(minutes=1)
    assert settings.sensitive_tables == ("public.users",)
    assert settings.schema is not None
    assert settings.schema.kind is SchemaKind.PRISMA
    assert settings.schema.path == Path("/etc/twokey/prisma/schema.prisma")


def test_rules_of_its_own_and_other_thresholds() -> None:
    rules = orders(ALL).monitoring.rules
    assert rules["ReplicationLag"] == AlertRule(
        name="ReplicationLag", fire=30000, clear=10000, lasting=timedelta(minutes=2),
        hold=timedelta(minutes=5), repeat=timedelta(hours=4), escalate=timedelta(minutes=15),
    )  # fmt: skip
    assert rules["Deadlocks"].is_on is False
    assert rules["TooManyTemp"].metric == "temp_bytes_s"
    assert rules["TooManyTemp"].severity == "warning"


def test_replicas_have_names_regions_and_secret_dsns() -> None:
    found = orders(ALL)
    west, south = found.replicas
    assert (found.region, west.name, west.region) == ("eu-central-1", "west", "us-west-2")
    assert west.dsn.get_secret_value() == ENVIRON["WEST"]
    assert (south.name, south.region) == ("south", "")
    assert "postgresql://" not in repr(found)


def test_a_digest_that_nobody_asks_for_is_none_and_an_empty_one_is_usual() -> None:
    assert orders("    monitoring: {every: 5s}\n").monitoring.digest is None
    usual = orders("    monitoring: {digest: {}}\n").monitoring.digest
    assert usual == DigestSettings(daily="0 8 * * *", weekly="0 8 * * 1", zone="UTC", channel="")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("monitoring: {evry: 10s}", "evry"),
        ("monitoring: true", "monitoring"),
        ("monitoring: {every: 0s}", "every"),
        ("monitoring: {every: 100ms}", "every"),
        ("monitoring: {every: 2h}", "every"),
        ("monitoring: {replicas: -1}", "replicas"),
        ("monitoring: {cores: 0}", "cores"),
        ("monitoring: {volume: {total: 0}}", "total"),
        ("monitoring: {volume: {paths: /x}}", "paths"),
        ("monitoring: {pools: [{name: web}]}", "size"),
        ("monitoring: {rules: {Mine: {metric: nonsense, fire: 1}}}", "no metric nonsense"),
        ("monitoring: {rules: {Mine: {fire: 1}}}", "Mine"),
        ("monitoring: {rules: {1x: {fire: 1}}}", "1x"),
        ("monitoring: {rules: {ReplicationLag: true}}", "ReplicationLag"),
        ("monitoring: {rules: {ReplicationLag: {severity: bad}}}", "severity"),
        ("monitoring: {escalate_to: '#ops'}", "escalate_to"),
        ("monitoring: {digest: {daily: often}}", "often"),
        ("monitoring: {digest: {zone: Mars/Olympus}}", "Mars/Olympus"),
        ("monitoring: {digest: true}", "digest"),
        ("monitoring: {sensitive_tables: [users]}", "sensitive_tables"),
        ("monitoring: {schema: {kind: alembic, path: x}}", "MODULE:ATTRIBUTE"),
        ("monitoring: {schema: {kind: rails, path: x}}", "kind"),
        ("monitoring: {pgbouncer: 'env:NOBODY'}", "NOBODY"),
        ("monitoring: {dsn: 'env:NOBODY'}", "NOBODY"),
        ("replicas: [{name: West, dsn: x}]", "name"),
        ("replicas: [{name: west}]", "dsn"),
        ("replicas: [{name: orders, dsn: 'postgresql://x'}]", "a name of its own"),
        ("replicas: [{name: a, dsn: 'postgresql://x'}, {name: a, dsn: 'postgresql://y'}]", "own"),
        ("replicas: [{name: west, dsn: 'env:NOBODY'}]", "NOBODY"),
    ],
)
def test_a_mistake_is_named_with_its_place(wrong: str, says: str) -> None:
    with pytest.raises(BadInputError) as caught:
        orders(f"    {wrong}\n")
    assert "databases.orders" in caught.value.problem
    assert says in caught.value.problem
    assert caught.value.next_step


def test_too_many_rules_or_replicas_are_refused() -> None:
    rules = ", ".join(f"R{number}: false" for number in range(101))
    with pytest.raises(BadInputError, match="rules"):
        orders(f"    monitoring: {{rules: {{{rules}}}}}\n")
    nodes = ", ".join(f"{{name: n{number}, dsn: 'postgresql://x'}}" for number in range(101))
    with pytest.raises(BadInputError, match="replicas"):
        orders(f"    replicas: [{nodes}]\n")
