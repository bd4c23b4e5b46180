"""What speaks against replacing a server, one reason at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from jobs import aside
from jobs.backup_settings import ArchiveMethod, BackupSettings, PlaceSettings
from jobs.operation import Database, JobError
from jobs.place_look import place_settings
from jobs.place_objections import Place, objection
from jobs.reader import LiveContext, Readers
from store.connect import Store
from store.replaced import ReplacedServer
from tests.jobs.support import clock
from tests.jobs.test_routes import ORDERS

GIB = 1024**3
FINE = Place(
    database="orders",
    data=Path("/data/orders"),
    server_system="77",
    is_standby=False,
    sees_sessions=True,
    may_switch=True,
    archive_mode="on",
    prepared=0,
    followers=(),
    slots=(),
    folder_system="77",
    standing="up",
    is_same_server=True,
    owner_fits=True,
    can_rename=True,
    hba="/data/orders/pg_hba.conf",
    hba_writable=True,
    data_bytes=GIB,
    free_bytes=4 * GIB,
)
KEPT = ReplacedServer(
    request_id=17,
    database="orders",
    host="db1",
    data="/data/orders",
    aside="/data/orders.twokey-old-17",
    state="kept",
    at=datetime(2026, 11, 22, 12, tzinfo=UTC),
    detail={"inode": 5},
)


@pytest.mark.parametrize(
    ("changed", "because"),
    [
        ({"is_standby": True}, "is a standby"),
        ({"folder_system": "78"}, "of another cluster"),
        ({"standing": "down"}, "does not run on"),
        ({"is_same_server": False}, "does not run on"),
        ({"patroni": True}, "managed by Patroni"),
        ({"followers": ("standby1",)}, "standby1 follows"),
        ({"followers": ("a", "b")}, "a, b follow "),
        ({"kept": (16,)}, "Restore #16 still keeps"),
        ({"strangers": ("orders.twokey-old-3",)}, "no restore knows of it"),
        ({"tablespaces": 2}, "2 tablespaces"),
        ({"wal_is_elsewhere": True}, "is a link"),
        ({"is_mount": True}, "mount point"),
        ({"owner_fits": False}, "cannot replace"),
        ({"can_rename": False}, "cannot replace"),
        ({"hba_writable": False}, "to keep the applications out"),
        ({"sees_sessions": False}, "does not see the sessions"),
        ({"may_switch": False}, "last WAL archived"),
        ({"free_bytes": GIB}, "needs"),
    ],
)
def test_a_server_that_cannot_be_replaced_is_refused_with_the_reason(
    changed: dict[str, Any], because: str
) -> None:
    found = objection(replace(FINE, **changed), needed_bytes=GIB, archive=ArchiveMethod.RECEIVE)
    assert found is not None
    assert because in found.problem
    assert found.next_step


def test_a_server_against_which_nothing_speaks_may_be_replaced() -> None:
    assert objection(FINE, needed_bytes=GIB, archive=ArchiveMethod.RECEIVE) is None


def test_without_an_archive_nobody_needs_to_switch_wal_and_without_a_copy_no_room() -> None:
    place = replace(FINE, may_switch=False, free_bytes=0)
    assert objection(place, needed_bytes=None, archive=ArchiveMethod.NONE) is None


@pytest.mark.parametrize(
    ("changed", "inode", "here", "because"),
    [
        ({"state": "undone"}, 5, "db1", "was put back"),
        ({"state": "confirmed"}, 5, "db1", "was removed"),
        ({}, 5, "db2", "stands on db1, and this is db2"),
        ({}, None, "db1", "is gone"),
        ({}, 6, "db1", "another folder"),
    ],
)
def test_what_was_put_aside_is_left_alone_unless_it_is_there_as_it_was(
    changed: dict[str, Any], inode: int | None, here: str, because: str
) -> None:
    found = aside.objection(replace(KEPT, **changed), inode=inode, here=here)
    assert found is not None
    assert because in found.problem


def test_what_stands_aside_as_it_was_can_be_put_back() -> None:
    assert aside.objection(KEPT, inode=5, here="db1") is None


def test_of_several_servers_none_is_replaced_alone(tmp_path: Path) -> None:
    place = BackupSettings(place=PlaceSettings(data=tmp_path))
    several = replace(ORDERS, backups=place)
    with pytest.raises(JobError, match="orders has 2 servers, and a restore into place") as refusal:
        place_settings(_context(several))
    assert "--into scratch" in refusal.value.next_step
    assert several.cluster is not None
    alone = replace(several.cluster, nodes=several.cluster.nodes[:1])
    assert place_settings(_context(replace(several, cluster=alone))).data == tmp_path
    assert place_settings(_context(replace(several, cluster=None))).data == tmp_path


def _context(orders: Database) -> LiveContext:
    return LiveContext(target=orders, readers=Readers(), store=cast("Store", None), clock=clock)
