"""Recover to a chosen moment: lay a backup out, replay WAL up to there, and give the server over.

WAL is decrypted and decompressed while the backup is unpacked, and then moved into the copy's
`pg_wal`: nothing is written twice, and nothing is started for each file.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal

import asyncpg

from postgres.backup.engine import Engine, LaidOut
from postgres.backup.facts import BackupFacts
from postgres.backup.wal import lsn_number
from postgres.binaries import Binaries
from postgres.connect import connection
from postgres.dsn import Target, parse_dsn
from postgres.errors import DamagedError, PostgresError
from postgres.restore.ending import Reached
from postgres.restore.folders import disk_error, give, remove_scratch, scratch_folder
from postgres.restore.replay import Replayed, replay
from postgres.restore.report import OnStep
from postgres.restore.scratch import ScratchServer, start_scratch
from postgres.restore.target import RecoveryTarget
from postgres.restore.window import Choice, Mark, choose
from postgres.server import Server
from postgres.sizes import pretty_bytes
from postgres.together import together, unbroken

Action = Literal["promote", "pause"]

TIME_LIMIT: Final = timedelta(hours=12)
_PROMOTE_SECONDS: Final = 3600
_LOOK_EVERY_SECONDS: Final = 0.02
_MARGIN_BYTES: Final = 256 * 1024 * 1024
STAGED: Final = "wal"
_BATCH: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """A copy that was laid out with all WAL that its recovery needs, and was not started."""

    choice: Choice
    laid: LaidOut
    seconds: float

    @property
    def has_command(self) -> bool:
        """Whether the engine fetches WAL by a command of its own."""
        return bool(self.laid.settings.get("restore_command"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """A server that stands where it was to stand.

    `reached_at` is the last commit that it has, if any was replayed; `reached_lsn` the end of
    what was replayed. `wal_bytes` is the WAL between the backup's start and that end. With
    `is_paused` it is a standby that replays nothing more; else it is a primary. `note` is for
    people: what there is to say about the end, or nothing.
    """

    server: Server
    facts: BackupFacts
    target: RecoveryTarget
    timeline: int
    reached_at: datetime | None
    reached_lsn: str
    lay_out_seconds: float
    replay_seconds: float
    promote_seconds: float
    wal_bytes: int
    is_paused: bool
    note: str = ""

    @property
    def seconds(self) -> float:
        """From the first byte laid out until it could be used."""
        return round(self.lay_out_seconds + self.replay_seconds + self.promote_seconds, 3)

    @property
    def dsn(self) -> Target:
        """The database that was backed up, as the superuser, over the private socket."""
        return parse_dsn(self.server.dsn(self.facts.database, self.facts.superuser))

    @property
    def scratch(self) -> ScratchServer:
        """The same as what the checks look at."""
        return ScratchServer(server=self.server, facts=self.facts, restore_seconds=self.seconds)


async def plan_recovery(
    engine: Engine,
    target: RecoveryTarget,
    *,
    marks: Sequence[Mark] = (),
    backup_id: str | None = None,
) -> Choice:
    """Ask the engine what it keeps, and choose; see `window.choose`."""
    listing, archive = await engine.backups(), await engine.archive()
    return choose(listing.backups, archive, target, marks=marks, backup_id=backup_id)


async def recover(
    engine: Engine,
    binaries: Binaries,
    choice: Choice,
    work_folder: Path,
    *,
    action: Action = "promote",
    settings: Mapping[str, str] | None = None,
    time_limit: timedelta = TIME_LIMIT,
    on_step: OnStep | None = None,
) -> Recovered:
    """A running, isolated server with everything that belongs to the target.

    It stands in `<work_folder>/scratch` and ends with our process. `binaries` are of the
    backup's major version; `settings` override those of the scratch server.

    Raises:
        PostgresError: it could not be recovered, in words for people. Nothing is left behind.
    """
    try:
        laid = await lay_out(engine, choice, work_folder, on_step=on_step)
        _reject_changed(laid)
        return await start(
            binaries,
            laid,
            work_folder,
            action=action,
            settings=settings,
            time_limit=time_limit,
            on_step=on_step,
        )
    except DamagedError as error:
        await asyncio.shield(remove_scratch(work_folder))
        raise damaged(choice, error) from error
    except BaseException:
        await asyncio.shield(remove_scratch(work_folder))
        raise


async def lay_out(
    engine: Engine, choice: Choice, work_folder: Path, *, on_step: OnStep | None = None
) -> Laid:
    """Lay out the backup and, at the same time, the WAL that it needs.

    What of the backup was hashed on the way is in `LaidOut.read`, and is not judged here.

    Raises:
        DamagedError: a file of it is damaged.
        PostgresError: there is no room, or something is not there.
    """
    began = time.monotonic()
    await remove_scratch(work_folder)
    folder = scratch_folder(work_folder)
    _check_room(folder, choice)
    if on_step:
        wal = f" and {pretty_bytes(choice.wal_bytes)} of WAL" if choice.wal else ""
        await on_step(f"Unpacking {pretty_bytes(choice.backup.data_bytes)}{wal}")
    async with together() as group:
        laying = group.create_task(engine.lay_out(choice.backup.id, work_folder))
        if choice.wal:
            group.create_task(_stage(engine, choice.wal, folder, laying))
    seconds = round(time.monotonic() - began, 3)
    return Laid(choice=choice, laid=laying.result(), seconds=seconds)


async def start(
    binaries: Binaries,
    laid: Laid,
    work_folder: Path,
    *,
    action: Action = "promote",
    settings: Mapping[str, str] | None = None,
    time_limit: timedelta = TIME_LIMIT,
    on_step: OnStep | None = None,
) -> Recovered:
    """Start what was laid out, replay up to the target, and promote it or leave it paused.

    Raises:
        DamagedError: the backup or its WAL is damaged.
        PostgresError: the target is not in the WAL, there is no room, or the time is up.
    """
    began, choice = time.monotonic(), laid.choice
    wanted = {**laid.laid.settings, **(settings or {})}
    if on_step:
        await on_step(f"Starting the copy, to recover {choice.target}")
    await asyncio.to_thread(_move_wal, scratch_folder(work_folder))
    if choice.target.kind == "end" and not laid.has_command:
        return await _plain(binaries, laid, work_folder, wanted, time_limit)
    done = await replay(
        binaries, choice, work_folder, settings=wanted, time_limit=time_limit, on_step=on_step
    )
    replayed = time.monotonic()
    await _finish(done, choice.backup, action)
    return _recovered(
        laid,
        done.server,
        done.reached,
        replay_seconds=replayed - began,
        promote_seconds=time.monotonic() - replayed,
        is_paused=action == "pause",
        note=" ".join(filter(None, (choice.note, done.note))),
    )


def damaged(choice: Choice, error: DamagedError) -> PostgresError:
    """What people are told of a damaged backup."""
    return PostgresError(
        f"The backup {choice.backup.id} cannot be recovered to {choice.target}: "
        f"{str(error).removesuffix('.')}.",
        next_step="Choose another backup or an earlier moment, and take a new full backup.",
    )


async def _plain(
    binaries: Binaries,
    laid: Laid,
    work_folder: Path,
    settings: Mapping[str, str],
    time_limit: timedelta,
) -> Recovered:
    """The backup at its own end: an ordinary start replays the WAL that it brought along."""
    began, facts = time.monotonic(), laid.choice.backup
    server = await start_scratch(
        binaries, facts, work_folder, settings=settings, time_limit=time_limit
    )
    return _recovered(
        laid,
        server,
        Reached(lsn=facts.end_lsn, commit_at=facts.ended_at),
        replay_seconds=time.monotonic() - began,
        promote_seconds=0.0,
        is_paused=False,
        note=laid.choice.note,
    )


def _recovered(
    laid: Laid,
    server: Server,
    reached: Reached,
    *,
    replay_seconds: float,
    promote_seconds: float,
    is_paused: bool,
    note: str,
) -> Recovered:
    facts = laid.choice.backup
    return Recovered(
        server=server,
        facts=facts,
        target=laid.choice.target,
        timeline=laid.choice.timeline,
        reached_at=reached.commit_at,
        reached_lsn=reached.lsn,
        lay_out_seconds=laid.seconds,
        replay_seconds=round(replay_seconds, 3),
        promote_seconds=round(promote_seconds, 3),
        wal_bytes=max(lsn_number(reached.lsn) - lsn_number(facts.start_lsn), 0),
        is_paused=is_paused,
        note=note,
    )


async def _finish(done: Replayed, facts: BackupFacts, action: Action) -> None:
    """Make it a primary, or see that it replays nothing more."""
    target, server = parse_dsn(done.server.dsn("template1", facts.superuser)), done.server
    is_done = False
    try:
        async with connection(target) as conn, asyncio.timeout(_PROMOTE_SECONDS):
            await conn.execute(_ending(done, action), timeout=_PROMOTE_SECONDS)
            is_done = action == "pause"
            while not is_done:
                is_done = not await conn.fetchval("SELECT pg_is_in_recovery()")
                await asyncio.sleep(0 if is_done else _LOOK_EVERY_SECONDS)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise DamagedError(f"it could not be promoted: {error or 'in time'}") from error
    finally:
        if not is_done:
            await asyncio.shield(server.stop("immediate"))


def _ending(done: Replayed, action: Action) -> str:
    """Who waits at its target looks for a promotion only once a second, but hears this."""
    match action, done.is_paused:
        case "promote", True:
            return "SELECT pg_wal_replay_resume()"
        case "promote", False:
            return "SELECT pg_promote(false)"
        case _:
            return "SELECT pg_wal_replay_pause()"


async def _stage(
    engine: Engine, names: Sequence[str], folder: Path, laying: asyncio.Task[LaidOut]
) -> None:
    """Bring the WAL as soon as the folder of the copy is there, which laying out makes anew."""
    while not (folder / "data").is_dir():
        if (await asyncio.wait([laying], timeout=_LOOK_EVERY_SECONDS))[0]:
            break
    place = folder / STAGED
    try:
        place.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise disk_error(folder, error) from error
    for at in range(0, len(names), _BATCH):
        # A thread that writes there cannot be cancelled.
        await unbroken(engine.stage_wal(names[at : at + _BATCH], place))


def _move_wal(folder: Path) -> None:
    """Into the copy, which is still closed to everybody else."""
    place = folder / STAGED
    with suppress(FileNotFoundError):
        for path in sorted(place.iterdir()):
            give(path)
            path.replace(folder / "data" / "pg_wal" / path.name)
        shutil.rmtree(place)


def _reject_changed(laid: Laid) -> None:
    """What was hashed on the way must be what was written; nothing is read once more for it."""
    wanted = {file.name: file for file in laid.choice.backup.files}
    changed = [file.name for file in laid.laid.read if wanted.get(file.name) != file]
    if changed:
        raise DamagedError(f"{', '.join(changed)} is not what was written: its SHA-256 differs")


def _check_room(folder: Path, choice: Choice) -> None:
    """Room for all of it, before anything is unpacked; the engine looks for its own part too."""
    needed = choice.backup.data_bytes + choice.wal_bytes + _MARGIN_BYTES
    parent = next(part for part in folder.parents if part.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise PostgresError(
            f"Recovering {choice.backup.id} to {choice.target} needs {pretty_bytes(needed)}, "
            f"{pretty_bytes(choice.wal_bytes)} of it for WAL, but {parent} has "
            f"{pretty_bytes(free)} free.",
            next_step="Free some space there, or set TWOKEY_HOME to a larger disk.",
        )
