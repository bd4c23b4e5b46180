"""Clusters to be broken: where the rest finds them."""

from __future__ import annotations

from sandbox.ha_pair import PairSandbox
from sandbox.ha_patroni import PatroniPrograms, PatroniSandbox, find_patroni
from sandbox.ha_routing import Haproxy, Pgbouncer

__all__ = [
    "Haproxy",
    "PairSandbox",
    "PatroniPrograms",
    "PatroniSandbox",
    "Pgbouncer",
    "find_patroni",
]
