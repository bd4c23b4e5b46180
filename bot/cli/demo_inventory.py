"""The inventory that one would write for the demo's clusters."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from bot.inventory import Inventory, load_inventory
from jobs.cluster_settings import DRILL_CRON
from postgres.cluster.words import NodeSpec
from sandbox.clusters import TEAM, DemoCluster
from sandbox.ha import PatroniSandbox
from sandbox.payments import Payments

ROOT: Final = Path(__file__).parents[2]
CHANNEL: Final = "C0ORDERS"
DESK: Final = "C0DBOPS"
_ARCHIVE: Final = {"method": "receive", "slot_max": "1GB"}
_NEVER: Final[Mapping[str, object]] = dict.fromkeys(
    ("daily", "weekly", "monthly", "verify", "prune"), False
)


def demo_inventory(
    home: Path, clusters: tuple[DemoCluster, ...], payments: Payments | None, *, by_clock: bool
) -> Inventory:
    """Write it with its policy under `home`, and the team's folders beside it; then read it."""
    (home / "policy.yml").write_text((ROOT / "policy.example.yml").read_text(encoding="utf-8"))
    shutil.copytree(TEAM, home / "shop", dirs_exist_ok=True)
    known = {cluster.name: cluster for cluster in clusters}
    orders, reports, trials = known["orders"], known["reports"], known["trials"]
    databases: Mapping[str, Mapping[str, Any]] = {
        "orders": {
            **_watched(home, orders, by_clock=by_clock),
            "environment": "production",
            "tier": "critical",
            "migrations": _migrations("orders-dev", "orders-staging"),
            "critical_queries": [
                {"name": "there are orders", "sql": "SELECT 1 FROM orders LIMIT 1"},
                {
                    "name": "every payment has its order",
                    "sql": "SELECT count(*) FROM payments p LEFT JOIN orders o"
                    " ON o.id = p.order_id WHERE o.id IS NULL",
                    "expect": "0",
                },
            ],
        },
        "reports": {
            **_watched(home, reports, by_clock=by_clock),
            "environment": "staging",
            "tier": "standard",
        },
        "orders-staging": {
            **_trial(home, trials, "orders_staging"),
            "environment": "staging",
            "migrations": _migrations("orders-dev"),
        },
        "orders-dev": {
            **_trial(home, trials, "orders_dev"),
            "environment": "development",
            "migrations": _migrations(),
        },
        **({payments.name: _clustered(home, payments, by_clock=by_clock)} if payments else {}),
    }
    content = {
        "policy": "policy.yml",
        "anchors": {"channel": DESK, "file": "anchors.jsonl"},
        "databases": databases,
    }
    (home / "twokey.yml").write_text(yaml.safe_dump(content, sort_keys=False))
    return load_inventory(home / "twokey.yml")


def _watched(home: Path, cluster: DemoCluster, *, by_clock: bool) -> Mapping[str, Any]:
    return {
        "dsn": cluster.dsn,
        "channel": CHANNEL,
        "backup_folder": str(home / "backups" / cluster.name),
        "backups": _backups(cluster, by_clock=by_clock),
        "monitoring": _monitoring(cluster, by_clock=by_clock),
    }


def _trial(home: Path, cluster: DemoCluster, database: str) -> Mapping[str, Any]:
    """Nobody loses anything here, and nobody is woken for it."""
    return {
        "dsn": cluster.server.dsn(database),
        "tier": "archive",
        "channel": CHANNEL,
        "backup_folder": str(home / "backups" / database),
        "backups": {"archive": {"method": "none"}, **_NEVER},
        "monitoring": False,
    }


def _clustered(home: Path, payments: Payments, *, by_clock: bool) -> Mapping[str, Any]:
    """Two servers that may be broken on purpose, and what leads to whichever is the primary."""
    return {
        "dsn": payments.dsn,
        "environment": "staging",
        "tier": "standard",
        "channel": DESK,
        "backup_folder": str(home / "backups" / payments.name),
        "backups": {"archive": _ARCHIVE, **_schedules(by_clock=by_clock)},
        "monitoring": {
            "every": "2s",
            "volume": {"total": "4GB"},
            "digest": {"channel": DESK} if by_clock else False,
        },
        "cluster": {
            "kind": str(payments.kind),
            "sandbox": True,
            "endpoint": payments.endpoint,
            **_patroni(payments),
            "nodes": [_node(each, payments) for each in payments.sandbox.specs],
            "drills": {
                "kinds": ["switchover", "primary-crash", "host-loss", "replica-loss", "restore"],
                "schedule": DRILL_CRON if by_clock else None,
                "rto": "1m",
            },
        },
    }


def _patroni(payments: Payments) -> Mapping[str, str]:
    sandbox = payments.sandbox
    if not isinstance(sandbox, PatroniSandbox):
        return {}
    return {"user": sandbox.rest_user, "password": sandbox.rest_password}


def _node(spec: NodeSpec, payments: Payments) -> Mapping[str, Any]:
    host = spec.host
    assert host is not None  # noqa: S101 - a sandbox knows where it runs
    return {
        "name": spec.name,
        "region": spec.region,
        "dsn": payments.node_dsn(spec.name),
        **({"rest": spec.rest} if spec.rest else {}),
        "host": {
            "data": str(host.data),
            "programs": str(host.programs),
            **({"agent_pid": str(host.agent_pid)} if host.agent_pid else {}),
            "agent_start": list(host.agent_start),
        },
    }


def _migrations(*before: str) -> Mapping[str, Any]:
    return {"folder": "shop/migrations", "changes": "shop/changes", "before": list(before)}


def _backups(cluster: DemoCluster, *, by_clock: bool) -> Mapping[str, object]:
    """WAL comes continuously, and the server may be replaced by a restored one."""
    return {
        "archive": _ARCHIVE,
        "place": {"data": str(cluster.server.data)},
        **_schedules(by_clock=by_clock),
    }


def _schedules(*, by_clock: bool) -> Mapping[str, object]:
    """The tier's schedules, or none at all."""
    return {} if by_clock else _NEVER


def _monitoring(cluster: DemoCluster, *, by_clock: bool) -> Mapping[str, object]:
    """As one would watch it, but that nobody has to wait half a minute to see something."""
    sensitive = ["public.customers"] if cluster.name == "orders" else []
    return {
        "every": "2s",
        "volume": {"total": "4GB"},
        "cores": os.cpu_count() or 1,
        "pools": [{"name": "shop", "instances": 2, "size": 10}],
        "rules": {"LockWait": {"fire": 3, "clear": 1, "hold": "2s"}},
        "sensitive_tables": sensitive,
        "digest": {"channel": DESK} if by_clock else False,
        "cache": "1m",
    }
