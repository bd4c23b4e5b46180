"""Stop and start a server that we did not make, the way it was started before.

What it was started with stands in its own note, `postmaster.opts`, and is asked of PostgreSQL's
own programs: nothing here needs a connection or a privilege inside of the server. It is started
detached, and lives on when we end.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

from postgres.account import identity_of, server_account
from postgres.errors import PostgresError
from postgres.postmaster import disown_stale_note, live_postmaster
from postgres.process import clean_environment, send
from postgres.programs import Finished, run_program

OPTIONS_FILE: Final = "postmaster.opts"
_LOOK_LIMIT: Final = timedelta(seconds=30)
_LOOK_EVERY_SECONDS: Final = 0.02
_HARD_SECONDS: Final = 15.0
_LOG_TAIL_BYTES: Final = 20_000
_MINIMA: Final[Mapping[str, str]] = {
    "max_connections setting": "max_connections",
    "max_worker_processes setting": "max_worker_processes",
    "max_wal_senders setting": "max_wal_senders",
    "max_prepared_xacts setting": "max_prepared_transactions",
    "max_locks_per_xact setting": "max_locks_per_transaction",
}

Standing = Literal["down", "starting", "up", "stopping"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A server by its data folder: the program and the arguments that it was started with."""

    data: Path
    program: Path
    arguments: tuple[str, ...]
    log: Path

    @property
    def folder(self) -> Path:
        """Where PostgreSQL's programs of this server are."""
        return self.program.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlFacts:
    """What the control file says. Of a server that is down cleanly, all of it is exact.

    `next_xid` counts on over wraparounds. `redo_wal` is the WAL file in which a start would
    begin to read. `minima`: what a server needs at least to replay this one's WAL.
    """

    system_identifier: str
    state: str
    timeline: int
    redo_wal: str
    next_xid: int
    minima: Mapping[str, str]

    @property
    def is_clean(self) -> bool:
        """Whether the server was stopped in good order."""
        return self.state == "shut down"


def read_instance(data: Path) -> Instance:
    """The server that runs, or ran last, on a data folder.

    Raises:
        PostgresError: the folder says nothing about it, or its program is gone.
    """
    try:
        text = (data / OPTIONS_FILE).read_text()
    except OSError as error:
        raise PostgresError(
            f"How the server on {data} was started cannot be read: {error.strerror or error}.",
            next_step="Run Twokey's worker as root or as the owner of that folder, and start the"
            " server once.",
        ) from error
    program, arguments = parse_options(text)
    if not program.is_file():
        raise PostgresError(
            f"The server on {data} was started with {program}, which is gone.",
            next_step="Install that version of PostgreSQL again.",
        )
    return Instance(data=data, program=program, arguments=arguments, log=_log_of(data))


def parse_options(text: str) -> tuple[Path, tuple[str, ...]]:
    """The program and its arguments, without its data folder, out of `postmaster.opts`."""
    program, _, rest = text.strip().partition(' "')
    found = re.findall(r'"([^"]*)"', f'"{rest}')
    kept: list[str] = []
    words = iter(found)
    for word in words:
        if word == "-D":
            next(words, None)
        elif not word.startswith("-D"):
            kept.append(word)
    return Path(program), tuple(kept)


def standing(data: Path) -> Standing:
    """Whether a server runs on this folder, and whether it takes connections."""
    found = live_postmaster(data)
    if found is None:
        return "down"
    if found.ready:
        return "up"
    return "stopping" if found.status == "stopping" else "starting"


async def setting_of(instance: Instance, name: str) -> str:
    """What the configuration files and arguments say about a setting, running or not.

    Raises:
        PostgresError: they cannot be read.
    """
    done = await _run(instance, "postgres", "-D", instance.data, *instance.arguments, "-C", name)
    return done.stdout.strip()


async def control_facts(folder: Path, data: Path) -> ControlFacts:
    """The control file of a data folder, read with the programs in `folder`.

    Raises:
        PostgresError: it cannot be read.
    """
    instance = Instance(data=data, program=folder / "postgres", arguments=(), log=data)
    done = await _run(instance, "pg_controldata", "-D", data)
    return parse_control(done.stdout)


def parse_control(text: str) -> ControlFacts:
    """Understand what `pg_controldata` says in the C locale."""
    pairs = (line.partition(":") for line in text.splitlines())
    values = {name.strip(): value.strip() for name, _, value in pairs}
    epoch, _, xid = values["Latest checkpoint's NextXID"].partition(":")
    return ControlFacts(
        system_identifier=values["Database system identifier"],
        state=values["Database cluster state"],
        timeline=int(values["Latest checkpoint's TimeLineID"]),
        redo_wal=values["Latest checkpoint's REDO WAL file"],
        next_xid=(int(epoch) << 32) + int(xid),
        minima={ours: values[theirs] for theirs, ours in _MINIMA.items()},
    )


async def stop(
    instance: Instance, *, command: Sequence[str] = (), time_limit: timedelta
) -> Standing:
    """Stop it in good order, by `command` or pg_ctl; how it stands when the time is up.

    "down": it has stopped. "up": it did not even begin to. Nothing here is an error.
    """
    if standing(instance.data) == "down":
        return "down"
    seconds = time_limit.total_seconds()
    try:
        if command:
            await run_program(command, time_limit=time_limit, as_server=False)
        else:
            await _run(instance, "pg_ctl", "-D", instance.data, "-m", "fast", "-W", "stop")
    except PostgresError:
        return standing(instance.data)
    await _until(lambda: standing(instance.data) == "down", seconds)
    return standing(instance.data)


async def stop_hard(instance: Instance) -> Standing:
    """End it without a checkpoint: its next start recovers what was committed."""
    for number in (signal.SIGQUIT, signal.SIGKILL):
        found = live_postmaster(instance.data)
        if found is None:
            break
        send(found.pid, number)
        await _until(lambda: standing(instance.data) == "down", _HARD_SECONDS)
    return standing(instance.data)


async def start(instance: Instance, *, command: Sequence[str] = (), time_limit: timedelta) -> None:
    """Start it as it was started before, and wait until it takes connections.

    Nothing happens to one that does already.

    Raises:
        PostgresError: it did not start in time; it may still be starting.
    """
    if standing(instance.data) == "up":
        return
    offset = _size(instance.log)
    if standing(instance.data) == "down":
        disown_stale_note(instance.data)
        await _launch(instance, command, time_limit)
    if await _until(lambda: standing(instance.data) == "up", time_limit.total_seconds()):
        return
    raise PostgresError(
        f"The server on {instance.data} did not start: {_last_words(instance.log, offset)}.",
        next_step=f"Read the end of {instance.log}, mend what it names, and start the server.",
    )


async def _launch(instance: Instance, command: Sequence[str], time_limit: timedelta) -> None:
    if command:
        done = await run_program(command, time_limit=time_limit, as_server=False)
        if done.code:
            raise PostgresError(
                f"`{shlex.join(command)}` did not start the server on {instance.data}:"
                f" {done.last_words}",
                next_step="Mend the command `place: start` in the inventory, then start the"
                " server by hand.",
            )
        return
    arguments = " ".join(shlex.quote(word) for word in instance.arguments)
    seconds = str(max(1, int(time_limit.total_seconds())))
    with instance.log.open("ab") as log:
        # In a session of its own and without a signal at our end: it lives on without us.
        child = await asyncio.create_subprocess_exec(
            instance.folder / "pg_ctl",
            *("-D", str(instance.data), "-o", arguments, "-s", "-w", "-t", seconds, "start"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=clean_environment(instance.folder),
            start_new_session=True,
            **identity_of(server_account()),
        )
    async with asyncio.timeout(time_limit.total_seconds() + _HARD_SECONDS):
        code = await child.wait()
    if code:
        raise PostgresError(
            f"The server on {instance.data} did not start: {_last_words(instance.log, 0)}.",
            next_step=f"Read the end of {instance.log}, mend what it names, and start the server.",
        )


async def _run(instance: Instance, name: str, *arguments: str | Path) -> Finished:
    done = await run_program([instance.folder / name, *arguments], time_limit=_LOOK_LIMIT)
    if done.code:
        raise PostgresError(
            f"{name} failed for {instance.data}: {done.last_words}",
            next_step="Mend what it names, then try again.",
        )
    return done


def _log_of(data: Path) -> Path:
    """Where the running server writes, if that is a file; else one beside the data folder."""
    found = live_postmaster(data)
    beside = data.with_name(f"{data.name}.twokey.log")
    if found is None:
        return beside
    try:
        target = Path(f"/proc/{found.pid}/fd/2").readlink()
    except OSError:
        return beside
    return target if target.is_absolute() and target.is_file() else beside


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _last_words(log: Path, offset: int) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(offset, _size(log) - _LOG_TAIL_BYTES))
            lines = file.read(_LOG_TAIL_BYTES).decode(errors="replace").strip().splitlines()
    except OSError:
        return "it left no log"
    fatal = [line for line in lines if "FATAL:" in line or "PANIC:" in line]
    said = (fatal or lines or ["it said nothing"])[-1]
    return said.split("FATAL:")[-1].strip().removesuffix(".")


async def _until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
    return True
