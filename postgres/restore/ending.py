"""Where a replay stopped, and whether that is where it was to stop. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from postgres.backup.wal import lsn_number, number_of
from postgres.errors import DamagedError, PostgresError
from postgres.restore.window import Choice

UTC_TEXT: Final = "%Y-%m-%d %H:%M:%S.%f UTC"
# A record that goes on in a segment which had only just begun to come.
_TORN_BYTES_MAX: Final = 1024 * 1024
_EARLY: Final = "requested recovery stop point is before consistent recovery point"
_MINIMAL: Final = 'WAL was generated with "wal_level=minimal"'
_PARITY: Final = "insufficient parameter settings"


class UnreachedError(PostgresError):
    """The backup is sound, but with the WAL that is kept it does not lead to the target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """The place of a replay: after this LSN, and the commit before it; None: there was none."""

    lsn: str
    commit_at: datetime | None = None

    def __str__(self) -> str:
        """For people."""
        if self.commit_at is None:
            return f"LSN {self.lsn}"
        return f"LSN {self.lsn}, where the last commit is of {self.commit_at:{UTC_TEXT}}"


def judge_end(choice: Choice, reached: Reached) -> str:
    """What to say of a replay that used up all its WAL without being stopped by the target.

    That is right for `latest`, and where nothing was written after the last transaction that
    belongs to the target: a quiet database.

    Raises:
        DamagedError: WAL that was there was not replayed.
        UnreachedError: the target lies beyond, or is not in this WAL.
    """
    end, target = lsn_number(reached.lsn), choice.target
    if damage := _unread(choice, end):
        raise DamagedError(damage)
    proven = choice.proof_lsn is None or end >= lsn_number(choice.proof_lsn)
    match target.kind:
        case "latest":
            return f"All WAL that is kept was replayed, to {reached}."
        case "time" | "lsn" if proven:
            return f"Nothing was written from {reached}, until {target}."
        case "end":
            raise DamagedError(f"the WAL ends at {reached}, before the backup is consistent")
        case "xid" | "point":
            raise UnreachedError(
                f"There is no {target} in the WAL from {choice.backup.id} on, which ends at "
                f"{reached}.",
                next_step="See whether it was on this server, and was committed. Name another "
                "target, or an older backup.",
            )
        case _:
            raise UnreachedError(
                f"The WAL that is kept does not reach {target}: it ends at {reached}.",
                next_step="Ask for `latest` to get all of it, or look for the rest of the WAL on "
                "the server and put it into the archive.",
            )


def explain(log: str, choice: Choice) -> Exception:
    """Why a server did not get through its recovery, from what it said at its end."""
    if _EARLY in log:
        return UnreachedError(
            f"{choice.target} is before the end of the backup {choice.backup.id} "
            f"({choice.backup.ended_at:{UTC_TEXT}}).",
            next_step="Name a later target, or an older backup.",
        )
    if _MINIMAL in log:
        return UnreachedError(
            f"After {choice.backup.id} the server ran with wal_level=minimal: its WAL holds only "
            "a part of what was written then.",
            next_step="Recover to a moment before that, or from a backup that was taken later.",
        )
    fatal = [line for line in log.splitlines() if "FATAL:" in line or "PANIC:" in line]
    said = (fatal or log.strip().splitlines() or ["it said nothing"])[-1]
    for word in ("FATAL:", "PANIC:"):
        said = said.split(word)[-1]
    return DamagedError(f"PostgreSQL gave up while it replayed WAL: {said.strip()}")


def lacks_settings(log: str) -> bool:
    """Whether it stopped because a setting is lower than it was on the original meanwhile."""
    return _PARITY in log


def fraction(choice: Choice, reached: Reached) -> float | None:
    """How much of the WAL has been replayed, 0 to 1; None: nobody knows how much there is."""
    size = choice.backup.wal_segment_bytes
    begin = lsn_number(choice.backup.start_lsn)
    if choice.proof_lsn is not None:
        end = lsn_number(choice.proof_lsn)
    elif choice.wal:
        end = (number_of(choice.wal[-1], size) + 1) * size
    else:
        return None
    done = lsn_number(reached.lsn) - begin
    return min(max(done / max(end - begin, 1), 0.0), 1.0)


def _unread(choice: Choice, end: int) -> str | None:
    """What is wrong if replay ended before the last segment that was there for it."""
    if not choice.wal or (choice.proof_lsn is not None and end >= lsn_number(choice.proof_lsn)):
        return None
    size = choice.backup.wal_segment_bytes
    last = number_of(choice.wal[-1], size)
    if end >= last * size or (choice.is_open and last * size - end <= _TORN_BYTES_MAX):
        return None
    name = next((name for name in choice.wal if number_of(name, size) == end // size), "")
    where = f"in the WAL file {name}" if name else f"after the backup {choice.backup.id}"
    return (
        f"replay ended at LSN {end >> 32:X}/{end & 0xFFFFFFFF:X}, {where}, although WAL up to "
        f"{choice.wal[-1]} is there: that file is damaged or not whole"
    )
