"""The inventory file, right and wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from approvals.words import BadInputError
from bot.inventory import Inventory, load_inventory, parse_inventory
from jobs.operation import Tier

GOOD = """
policy: policy.yml
groups: {dba: S0DBA}
databases:
  orders:
    dsn: postgresql://twokey:hush@db1/orders
    environment: production
    tier: critical
    channel: C0DBOPS
    backup_folder: backups/orders
    critical_queries: [{name: orders, sql: SELECT 1, expect: "1"}]
"""


def parsed(text: str, environ: dict[str, str] | None = None) -> Inventory:
    return parse_inventory(text, path=Path("/etc/twokey/twokey.yml"), environ=environ or {})


def test_it_becomes_values_with_absolute_paths() -> None:
    inventory = parsed(GOOD)
    orders = inventory.databases["orders"]
    assert orders.tier is Tier.CRITICAL
    assert orders.backup_folder == Path("/etc/twokey/backups/orders")
    assert orders.critical_queries[0].expect == "1"
    assert inventory.policy == Path("/etc/twokey/policy.yml")
    assert inventory.groups == {"dba": "S0DBA"}


def test_a_dsn_does_not_show() -> None:
    assert "hush" not in repr(parsed(GOOD))


def test_a_dsn_may_stand_in_the_environment_or_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("postgresql://from-file\n")
    text = GOOD.replace("postgresql://twokey:hush@db1/orders", "{file: dsn}")
    inventory = parse_inventory(text, path=tmp_path / "twokey.yml", environ={})
    assert inventory.databases["orders"].dsn.get_secret_value() == "postgresql://from-file"
    text = GOOD.replace("postgresql://twokey:hush@db1/orders", "{env: ORDERS}")
    assert (
        parsed(text, {"ORDERS": "postgresql://e"}).databases["orders"].dsn.get_secret_value()
        == "postgresql://e"
    )


@pytest.mark.parametrize(
    ("change", "into", "says"),
    [
        ("    tier: critical\n", "", "databases.orders.tier"),
        ("tier: critical", "tier: gold", "databases.orders.tier"),
        ("channel: C0DBOPS", "channel: '#db-ops'", "databases.orders.channel"),
        ("    channel:", "    chanel:", "databases.orders.c"),
        ("  orders:\n", "  Orders:\n", "databases.Orders"),
        ("  orders:\n", '  "":\n', "databases."),
        ("dba: S0DBA", "dba: dba-team", "groups.dba"),
        ("policy: policy.yml\n", "", "policy"),
        ("postgresql://twokey:hush@db1/orders", "mysql://x", "databases.orders.dsn"),
        ("postgresql://twokey:hush@db1/orders", "{env: NOT_SET_ANYWHERE}", "NOT_SET_ANYWHERE"),
        ("postgresql://twokey:hush@db1/orders", "{file: /no/such/file}", "/no/such/file"),
        ("postgresql://twokey:hush@db1/orders", "{path: x}", "databases.orders.dsn"),
        ("    environment: production", "    environment: a\n    environment: b", "twice"),
        ("databases:", "databases: [", "YAML"),
        ("policy: policy.yml", "? [a]\n: b", "YAML"),
        ("policy: policy.yml", "policy: !!python/object:os.system x", "YAML"),
    ],
)
def test_a_mistake_names_the_key_and_shows_how_to_write_it(
    change: str, into: str, says: str
) -> None:
    assert change in GOOD
    with pytest.raises(BadInputError) as refusal:
        parsed(GOOD.replace(change, into))
    assert says in refusal.value.problem
    assert "hush" not in refusal.value.problem
    assert refusal.value.next_step


@pytest.mark.parametrize("text", ["", "[]", "just words", "databases: {}"])
def test_a_file_that_is_no_inventory_is_refused(text: str) -> None:
    with pytest.raises(BadInputError):
        parsed(text)


def test_a_missing_file_says_what_to_copy(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cannot be read") as refusal:
        load_inventory(tmp_path / "none.yml", {})
    assert "twokey.example.yml" in refusal.value.next_step


def test_an_unknown_database_suggests_the_nearest() -> None:
    with pytest.raises(BadInputError, match="ordrs") as refusal:
        parsed(GOOD).database("ordrs")
    assert "orders" in refusal.value.next_step


def test_the_example_in_the_tree_is_valid(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "twokey.example.yml"
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "reports_dsn").write_text("postgresql://reports")
    inventory = parse_inventory(
        example.read_text(),
        path=tmp_path / "twokey.yml",
        environ={"ORDERS_DSN": "postgresql://orders"},
    )
    assert set(inventory.databases) == {"orders", "reports"}
