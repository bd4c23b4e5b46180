"""The alerts about all servers of a cluster at once, as data. Pure.

For databases whose inventory names their servers. What they say is what the last look found:
`jobs.alert_cluster` has the words.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from jobs.alert_machine import Severity
from jobs.alert_rule import (
    NODE_MISSING,
    NODES_MISSING,
    NODES_WRITABLE,
    TWO_WRITABLE,
    Help,
    Rule,
    Scope,
)

_MINUTE: Final = timedelta(minutes=1)

CLUSTERS: Final = (
    Rule(
        name=TWO_WRITABLE,
        metric=NODES_WRITABLE,
        fire=1,
        clear=1,
        # A look that finds two looks again before it says so.
        hold=_MINUTE,
        repeat=15 * _MINUTE,
        escalate=5 * _MINUTE,
        severity=Severity.CRITICAL,
        says="{value} servers of {where} take writes at once: what is written to one is missing on"
        " the others.",
        action="See which, with timelines and positions: /db replication {database}",
        scope=Scope.CLUSTER,
        helps=(Help.REPLICATION,),
    ),
    Rule(
        name=NODE_MISSING,
        metric=NODES_MISSING,
        fire=0,
        clear=0,
        lasting=_MINUTE,
        hold=_MINUTE,
        severity=Severity.WARNING,
        says="Servers of {where} that do not answer: {value}.",
        action="See what is left: /db replication {database}. If it is gone for good, take it out"
        " of `cluster.nodes`.",
        scope=Scope.CLUSTER,
        helps=(Help.REPLICATION,),
    ),
)
