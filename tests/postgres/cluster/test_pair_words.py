"""What is decided about a pair before anything is done: whom to follow, where to begin."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from postgres.cluster.follow import (
    Place,
    can_be_met,
    conninfo_of,
    following,
    mirrored,
    slot_of,
    sync_names,
    without_password,
    words_of,
)
from postgres.cluster.host_words import HostSeen, ServerProcess
from postgres.cluster.pair_begin import Begin, where_failover_begins, where_switch_begins
from postgres.cluster.pair_steps import follows, fork_of, promotions
from postgres.cluster.rewind import diverged
from postgres.cluster.words import (
    ClusterKind,
    ClusterSeen,
    NodeSeen,
    Promotion,
    Role,
    Sender,
)
from postgres.errors import PostgresError

EAST, WEST = Place(host="10.0.0.1", port="5432"), Place(host="10.0.0.2", port="5433")
PEER = "host=10.0.0.1 port=5432 user=repl passfile=/p sslmode=require application_name=west"

STREAMS = Sender(name="west", address="", state="streaming", sync_state="async")
PRIMARY = NodeSeen(
    name="east", region="", role=Role.PRIMARY, is_writable=True, timeline=3, senders=(STREAMS,)
)
STANDBY = NodeSeen(
    name="west", region="", role=Role.STANDBY, timeline=3, position=100, receiver="streaming"
)
SILENT = "no answer within 3 s"
GONE = HostSeen(exists=True, is_owner=True, sees_processes=True, version="17", listens=False)


def test_a_first_return_takes_the_others_user_and_the_inventorys_address() -> None:
    plan = following("east", own="", peer=PEER, primary=WEST, itself=EAST, uses_slots=True)
    assert words_of(plan.conninfo) == {
        "host": "10.0.0.2",
        "port": "5433",
        "user": "repl",
        "passfile": "/p",
        "sslmode": "require",
        "application_name": "east",
    }
    assert plan.slot == "east"


def test_its_own_credentials_come_before_the_others() -> None:
    own = "host=10.0.0.2 port=5433 user=mine"
    plan = following("east", own=own, peer=PEER, primary=WEST, itself=EAST, uses_slots=False)
    assert words_of(plan.conninfo)["user"] == "mine"
    assert plan.slot == ""


def test_an_address_from_before_a_move_is_replaced() -> None:
    own = "host=10.0.0.77 hostaddr=10.0.0.77 port=1 user=mine"
    words = words_of(
        following("east", own=own, peer=PEER, primary=WEST, itself=EAST, uses_slots=False).conninfo
    )
    assert (words["host"], words["port"]) == ("10.0.0.2", "5433")
    assert "hostaddr" not in words


def test_nodes_that_know_one_another_by_other_addresses_keep_them() -> None:
    own = "host=inner-west port=5432 user=repl"
    peer = "host=inner-east port=5432 user=repl"
    plan = following("east", own=own, peer=peer, primary=WEST, itself=EAST, uses_slots=False)
    assert words_of(plan.conninfo)["host"] == "inner-west"


def test_a_conninfo_that_leads_to_itself_is_a_copied_one() -> None:
    own = "host=10.0.0.1 port=5432 user=repl"
    peer = "host=inner-east user=repl"
    plan = following("east", own=own, peer=peer, primary=WEST, itself=EAST, uses_slots=False)
    assert words_of(plan.conninfo)["host"] == "10.0.0.2"


def test_without_any_conninfo_nobody_knows_whom_to_follow_as() -> None:
    with pytest.raises(PostgresError, match="with which user east may follow"):
        following("east", own="", peer="", primary=WEST, itself=EAST, uses_slots=True)


@pytest.mark.parametrize(
    "text",
    [
        r"host=a password='it\'s \\ here' port=1",
        "host='/run/with blank' user=u",
        "postgresql://u:p@h:5433/d?application_name=x",
    ],
)
def test_a_conninfo_survives_being_written_again(text: str) -> None:
    assert words_of(conninfo_of(words_of(text))) == words_of(text)


def test_a_conninfo_that_cannot_be_understood_is_an_error() -> None:
    with pytest.raises(PostgresError, match="cannot be understood"):
        words_of("host=a 'oops")


def test_a_password_goes_into_a_file_and_not_onto_a_command_line() -> None:
    words, file = without_password({"host": "a", "password": r"a:b\c"})
    assert words == {"host": "a"}
    assert file == "*:*:*:*:a\\:b\\\\c\n"


def test_a_slot_has_small_letters_digits_and_underscores() -> None:
    assert slot_of("East-1.a" + "x" * 80) == ("east_1_a" + "x" * 80)[:63]


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("", ()),
        ("west", ("west",)),
        ("*", ("*",)),
        ('FIRST 1 (west, "East-1")', ("west", "east-1")),
        ("ANY 2 (a, b, c)", ("a", "b", "c")),
        ("2 (a, b)", ("a", "b")),
        ('"fi""rst"', ('fi"rst',)),
    ],
)
def test_who_is_synchronous_is_read_from_the_setting(setting: str, names: tuple[str, ...]) -> None:
    assert sync_names(setting) == names


@pytest.mark.parametrize(
    ("setting", "met"),
    [
        ("", True),
        ("east", True),
        ("EAST", True),
        ("*", True),
        ("ANY 1 (west, east)", True),
        ("west", False),
        ("ANY 2 (east, other)", False),
    ],
)
def test_whether_one_standby_suffices(setting: str, *, met: bool) -> None:
    assert can_be_met(setting, "east") is met


@pytest.mark.parametrize(
    ("setting", "other_side"),
    [
        ("", ""),
        ("west", '"east"'),
        ("FIRST 1 (west)", '"east"'),
        ("*", "*"),
        ("FIRST 1 (east, west)", "FIRST 1 (east, west)"),
    ],
)
def test_who_waited_for_one_waits_for_the_other(setting: str, other_side: str) -> None:
    assert mirrored(setting, old="west", new="east") == other_side


def away(node: NodeSeen) -> NodeSeen:
    return NodeSeen(name=node.name, region="", problem=SILENT)


@pytest.mark.parametrize(
    ("leader", "candidate", "host", "begin"),
    [
        (PRIMARY, STANDBY, GONE, Begin.HAND_OVER),
        (away(PRIMARY), STANDBY, GONE, Begin.STOPPED),
        (away(PRIMARY), away(STANDBY), GONE, Begin.STOPPED),
        (
            away(PRIMARY),
            STANDBY,
            replace(GONE, servers=(ServerProcess(pid=1, state="S"),)),
            Begin.STOPPING,
        ),
        (replace(STANDBY, name="east"), STANDBY, GONE, Begin.BOTH_STANDBY),
        (away(PRIMARY), replace(PRIMARY, name="west"), GONE, Begin.PROMOTED),
        (replace(STANDBY, name="east"), replace(PRIMARY, name="west"), GONE, Begin.PROMOTED),
    ],
)
def test_a_switchover_goes_on_where_the_servers_stand(
    leader: NodeSeen, candidate: NodeSeen, host: HostSeen, begin: Begin
) -> None:
    assert where_switch_begins(leader, candidate, host) is begin


@pytest.mark.parametrize(
    ("leader", "candidate", "host", "why"),
    [
        (PRIMARY, replace(PRIMARY, name="west"), GONE, "both primaries"),
        (replace(PRIMARY, senders=()), STANDBY, GONE, "does not stream"),
        (
            replace(PRIMARY, senders=(replace(STREAMS, state="catchup"),)),
            STANDBY,
            GONE,
            "does not stream",
        ),
        (PRIMARY, replace(STANDBY, timeline=2), GONE, "does not stream"),
        (PRIMARY, replace(STANDBY, is_replay_paused=True), GONE, "Replay is paused"),
        (PRIMARY, away(STANDBY), GONE, "west does not answer"),
        (replace(STANDBY, name="east"), away(STANDBY), GONE, "east is a standby"),
        (
            away(PRIMARY),
            STANDBY,
            replace(GONE, servers=(ServerProcess(pid=1, state="T"),)),
            "frozen",
        ),
    ],
)
def test_a_switchover_is_refused_before_anything_happens(
    leader: NodeSeen, candidate: NodeSeen, host: HostSeen, why: str
) -> None:
    with pytest.raises(PostgresError, match=why) as error:
        where_switch_begins(leader, candidate, host)
    assert error.value.next_step


@pytest.mark.parametrize(
    ("leader", "candidate", "begin"),
    [
        (away(PRIMARY), STANDBY, Begin.STOPPED),
        (replace(STANDBY, name="east"), STANDBY, Begin.BOTH_STANDBY),
        (away(PRIMARY), replace(PRIMARY, name="west"), Begin.PROMOTED),
        (replace(STANDBY, name="east"), replace(PRIMARY, name="west"), Begin.PROMOTED),
    ],
)
def test_a_failover_goes_on_where_the_servers_stand(
    leader: NodeSeen, candidate: NodeSeen, begin: Begin
) -> None:
    assert where_failover_begins(leader, candidate) is begin


@pytest.mark.parametrize(
    ("leader", "candidate", "why"),
    [
        (PRIMARY, STANDBY, "nothing to force"),
        (replace(PRIMARY, is_writable=False), STANDBY, "nothing to force"),
        (PRIMARY, replace(PRIMARY, name="west"), "both primaries"),
        (away(PRIMARY), away(STANDBY), "cannot take over"),
    ],
)
def test_a_failover_is_refused_before_anything_happens(
    leader: NodeSeen, candidate: NodeSeen, why: str
) -> None:
    with pytest.raises(PostgresError, match=why):
        where_failover_begins(leader, candidate)


HISTORY = "1\t0/3000148\tno recovery target specified\n\n2\t0/50000A0\tno recovery target\n"
ENDED = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_history_tells_where_each_timeline_ended_and_when_the_next_began() -> None:
    assert promotions(HISTORY, of=3, times={3: ENDED}) == (
        Promotion(timeline=1, lsn=0x3000148, reason="no recovery target specified"),
        Promotion(timeline=2, lsn=0x50000A0, reason="no recovery target", at=ENDED),
    )


def test_a_timeline_belongs_to_a_history_up_to_its_fork() -> None:
    history = promotions(HISTORY, of=3)
    assert (fork_of(history, 1), fork_of(history, 3)) == (0x3000148, None)


@pytest.mark.parametrize(
    ("timeline", "position", "beyond"),
    [
        (3, 10**9, 0),  # the primary's own
        (2, 0x50000A0, 0),  # exactly where it ended
        (2, 0x50000A8, 8),
        (1, 0x3000148, 0),
        (4, 7, 7),  # promoted on its own
        (None, 7, 0),  # nobody can tell yet
    ],
)
def test_only_what_lies_beyond_the_fork_has_to_be_rewound(
    timeline: int | None, position: int, beyond: int
) -> None:
    own = replace(STANDBY, timeline=timeline, position=position)
    assert diverged(own, PRIMARY, promotions(HISTORY, of=3)) == beyond


@pytest.mark.parametrize(
    ("east", "west", "why"),
    [
        (PRIMARY, STANDBY, ""),
        (away(PRIMARY), STANDBY, "east is no primary"),
        (PRIMARY, away(STANDBY), "does not answer"),
        (PRIMARY, replace(PRIMARY, name="west"), "a primary itself"),
        (PRIMARY, replace(STANDBY, timeline=2), "timeline 2"),
        (replace(PRIMARY, senders=()), STANDBY, "does not stream"),
        (PRIMARY, replace(STANDBY, receiver=""), "does not stream"),
    ],
)
def test_who_follows_streams_on_the_same_timeline(east: NodeSeen, west: NodeSeen, why: str) -> None:
    seen = ClusterSeen(at=ENDED, kind=ClusterKind.PAIR, nodes=(east, west))
    found = follows(seen, "west", "east")
    assert why in found
    assert bool(found) is bool(why)
