"""Which of a cluster's servers is "the database" now, and a `Database` that leads there. Pure.

The inventory's `dsn` says who connects to what; where that is today, the servers themselves say.
`jobs.routes` asks them. Nothing here guesses: where it is not sure who takes writes, what comes
out leads nowhere and says so to whoever wants to connect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final, NoReturn

from pydantic import SecretStr

from jobs.cluster_settings import ClusterNode
from jobs.health_settings import MonitoringSettings, Node, Volume
from jobs.operation import Database
from postgres.cluster.findings import names
from postgres.cluster.judge import split_brain, writable_servers
from postgres.cluster.words import ClusterKind, NodeSeen, Role
from postgres.dsn import Target, parse_dsn
from postgres.errors import PostgresError

# Where a connection goes is the node's to say, and wholly so: a port of the endpoint is not one
# of the server behind it.
_PLACE: Final = ("host", "port")
# How the server is known is the node's where it says so; else what holds for the endpoint holds
# for it, as a route must not be less safe than what it replaces. A client's certificate says who
# we are, and stays with the user.
_TRUST: Final = ("sslmode", "sslrootcert", "sslcrl")


class NoRouteError(PostgresError):
    """Nobody can tell which server is the database now. Nothing was connected to."""


class ClosedDsn(SecretStr):
    """Leads nowhere: whoever wants to connect hears why.

    What needs no connection goes on while nobody takes writes; what does is refused by this,
    whichever way it takes.
    """

    def __init__(self, refusal: NoRouteError) -> None:
        super().__init__("")
        self.refusal = refusal

    def get_secret_value(self) -> NoReturn:
        """Raises: NoRouteError: always."""
        raise NoRouteError(self.refusal.problem, next_step=self.refusal.next_step)

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__


def refusal_of(database: Database) -> NoRouteError | None:
    """Why this value leads nowhere; None when it leads somewhere."""
    return database.dsn.refusal if isinstance(database.dsn, ClosedDsn) else None


def closed(database: Database, refusal: NoRouteError) -> Database:
    """The same, leading nowhere: also for who only looks with a login of its own."""
    nowhere = ClosedDsn(refusal)
    looking = database.monitoring.dsn
    monitoring = replace(database.monitoring, dsn=nowhere if looking else None)
    return replace(database, dsn=nowhere, monitoring=monitoring)


def choose(
    name: str, nodes: Sequence[NodeSeen], *, kind: ClusterKind, newest: Mapping[str, int]
) -> NodeSeen:
    """The node that takes writes, when it is sure that it alone does.

    `newest`: the newest timeline that was ever seen here, by system identifier.

    Raises:
        NoRouteError: more than one node takes writes, or none; the one that does is on an older
            timeline than another, or no copy of the same data. Says what to do.
    """
    split = split_brain(nodes)
    if split is not None:
        raise NoRouteError(f"{name}: {split.problem}", next_step=split.next_step)
    writers = writable_servers(nodes)
    if not writers:
        raise _nobody(name, nodes, kind)
    found = writers[0]
    if refusal := _stranger(name, found, nodes) or _older(name, found, nodes, newest):
        raise refusal
    return found


def routed(database: Database, node: str) -> Database:
    """The database as it is while the server called `node` is its primary.

    Host and port are the node's, and so is how its server is known where it says that; user,
    password, dbname and the rest stay. `replicas` are the others: the node's own entry makes
    room for the server that the inventory has in its place. A disk that was named for another
    server is not this one's.

    Raises:
        PostgresError: a DSN cannot be understood.
    """
    if database.cluster is None:
        return database
    nodes = database.cluster.nodes
    target = parse_dsn(database.dsn.get_secret_value())
    goal = next(each for each in nodes if each.name == node)
    home = _home(nodes, target)
    return replace(
        database,
        dsn=_aimed(database.dsn, goal),
        region=goal.region or database.region,
        monitoring=_monitoring(database.monitoring, goal, home),
        replicas=_replicas(database, goal, home),
    )


def measured(database: Database, primary: str) -> Database:
    """The database as the collector looks at it: each server under one name for ever.

    Who is named as a replica is that also while it is the primary: its numbers say so. The
    database's own row is then about the server that nobody named; where only one is measured, it
    is the primary.
    """
    if database.cluster is None:
        return database
    nodes = database.cluster.nodes
    named = {node.name for node in nodes if any(_is_of(each, node) for each in database.replicas)}
    home = _home(nodes, parse_dsn(database.dsn.get_secret_value()))
    unnamed = [node.name for node in nodes if node.name not in named]
    own = home.name if home and home.name in unnamed else next(iter(unnamed), primary)
    there = routed(database, own if primary in named else primary)
    return replace(there, replicas=database.replicas)


def _nobody(name: str, nodes: Sequence[NodeSeen], kind: ClusterKind) -> NoRouteError:
    away = [f"{each.name} does not answer ({each.problem})" for each in nodes if each.problem]
    shut = [
        f"{each.name} is the primary and takes no writes: default_transaction_read_only is on"
        for each in nodes
        if each.role is Role.PRIMARY
    ]
    standbys = [each for each in nodes if each.role is Role.STANDBY]
    follow = f"{names(standbys)} {'is a standby' if len(standbys) == 1 else 'are standbys'}"
    said = "; ".join([*shut, *away, *([follow] if standbys else [])])
    step = f"Look at /db replication {name}."
    if shut:
        step += " Find out who closed it and why, before it is opened again."
    elif kind is ClusterKind.PAIR:
        step += (
            " Bring the primary back; if it is lost, ask for /db failover with forced=true. Then"
            " ask again."
        )
    else:
        step += (
            " Patroni promotes a standby by itself where it can; if it does not, ask for"
            " /db failover with forced=true. Then ask again."
        )
    return NoRouteError(f"No server of {name} takes writes: {said}.", next_step=step)


def _stranger(name: str, writer: NodeSeen, nodes: Sequence[NodeSeen]) -> NoRouteError | None:
    """With another cluster's server among them nobody can tell which of both is meant."""
    own = writer.system_identifier
    others = [each for each in nodes if own and each.system_identifier not in {"", own}]
    if not others:
        return None
    return NoRouteError(
        f"{writer.name} takes writes, and {names(others)} {'is' if len(others) == 1 else 'are'} no"
        f" copy of it: which of them is {name} cannot be told.",
        next_step=f"Look at /db replication {name}, and mend the DSNs under `cluster:` in the"
        " inventory, or build the odd one anew.",
    )


def _older(
    name: str, writer: NodeSeen, nodes: Sequence[NodeSeen], newest: Mapping[str, int]
) -> NoRouteError | None:
    """An old primary that came back takes writes too, and everything there is lost later."""
    if writer.timeline is None:
        return NoRouteError(
            f"{writer.name} takes writes and does not say on which timeline.",
            next_step=f"Look at /db replication {name}, then ask again.",
        )
    ahead = [each for each in nodes if (each.timeline or 0) > writer.timeline]
    known = newest.get(writer.system_identifier, 0)
    if ahead:
        top = max(ahead, key=lambda each: each.timeline or 0)
        where = f"{top.name} is on {top.timeline}"
    elif known > writer.timeline:
        where = f"this cluster has been seen on {known}"
    else:
        return None
    return NoRouteError(
        f"{writer.name} takes writes on timeline {writer.timeline}, but {where}: another server"
        f" was promoted since, and {writer.name} may be an old primary that came back.",
        next_step=f"Keep applications away from {writer.name}, and look at /db replication {name}:"
        " what is written there may have to be thrown away. If it was restored on purpose, restart"
        " Twokey.",
    )


def _aimed(dsn: SecretStr, node: ClusterNode) -> SecretStr:
    """Who connects to what is of the DSN, where to is of the node."""
    target = parse_dsn(dsn.get_secret_value())
    place = parse_dsn(node.dsn.get_secret_value()).words
    words = {word: value for word, value in target.words.items() if word not in _PLACE}
    words |= {word: place[word] for word in (*_PLACE, *_TRUST) if place.get(word)}
    # The name is made explicit: left out, it would be that of the user.
    words["dbname"] = target.database
    return SecretStr(Target(words=MappingProxyType(words)).url())


def _place(target: Target) -> tuple[str, str]:
    return target.words.get("host", "localhost"), target.words.get("port", "5432")


def _leads_to(dsn: SecretStr) -> tuple[str, str]:
    return _place(parse_dsn(dsn.get_secret_value()))


def _home(nodes: Sequence[ClusterNode], target: Target) -> ClusterNode | None:
    """The node that the database's own DSN leads to; None for an endpoint."""
    found = (each for each in nodes if _leads_to(each.dsn) == _place(target))
    return next(found, None)


def _monitoring(
    settings: MonitoringSettings, goal: ClusterNode, home: ClusterNode | None
) -> MonitoringSettings:
    volume = settings.volume
    if home is not None and home.name != goal.name:
        volume = Volume(total_bytes=volume.total_bytes)
    dsn = _aimed(settings.dsn, goal) if settings.dsn else None
    return replace(settings, dsn=dsn, volume=volume)


def _replicas(database: Database, goal: ClusterNode, home: ClusterNode | None) -> tuple[Node, ...]:
    """The others: whoever is named as a replica and is the primary now, changes places."""
    is_primary = [_is_of(each, goal) for each in database.replicas]
    if True not in is_primary:
        return database.replicas
    nodes = database.cluster.nodes if database.cluster else ()
    named = {node.name for node in nodes for each in database.replicas if _is_of(each, node)}
    unnamed = [node for node in nodes if node.name not in named]
    follower = home if home in unnamed else next(iter(unnamed), None)
    found = []
    for each, is_goal in zip(database.replicas, is_primary, strict=True):
        if not is_goal:
            found.append(each)
        elif follower is not None:
            dsn = _aimed(each.dsn, follower)
            found.append(Node(name=follower.name, dsn=dsn, region=follower.region))
            follower = None
    return tuple(found)


def _is_of(replica: Node, node: ClusterNode) -> bool:
    """Whether a replica's entry is about this node: by its name, or where it leads."""
    return replica.name == node.name or _leads_to(replica.dsn) == _leads_to(node.dsn)
