"""Clusters to be broken: where the rest finds them."""

from __future__ import annotations

from sandbox.ha_pair import PairSandbox

__all__ = ["PairSandbox"]
