"""Clusters to be broken: where the rest finds them."""

from __future__ import annotations

from sandbox.ha_pair import PairSandbox
from sandbox.ha_patroni import PatroniPrograms, PatroniSandbox, find_patroni

__all__ = ["PairSandbox", "PatroniPrograms", "PatroniSandbox", "find_patroni"]
