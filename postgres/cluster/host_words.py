"""What a node's machine says about the server there: read from its answers. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from postgres.errors import PostgresError
from postgres.layout import setting

HELLO: Final = "twokey"  # the first line of every answer: without it nobody has been asked
_SHUT_DOWN: Final = frozenset({"shut down", "shut down in recovery"})
_OPTION: Final = re.compile(r'"([^"]*)"')
_NAME: Final = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProcess:
    """A process of the server. `state`: /proc's letter; T is stopped, as a frozen one is."""

    pid: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSeen:
    """A node's machine as it answered.

    `is_owner`: the account that was asked owns the data folder, and so sees all its processes.
    `servers`: living processes that work in the folder; zombies are no longer there.
    `note_pid`, `note_holder`: whose number postmaster.pid holds: "server", "zombie", "other",
    "gone", or '' without the file. `listens`: whether something listens on the node's port.
    `tools`: programs that write into the folder (pg_rewind, pg_basebackup).
    """

    exists: bool = False
    is_owner: bool = False
    sees_processes: bool = False
    version: str = ""
    servers: tuple[ServerProcess, ...] = ()
    tools: tuple[int, ...] = ()
    note_pid: int = 0
    note_holder: str = ""
    listens: bool | None = None
    has_standby_signal: bool = False
    is_half: bool = False  # pg_rewind or a swap of folders was not finished here

    @property
    def is_alive(self) -> bool:
        """Whether any process of the server lives."""
        return bool(self.servers)

    @property
    def is_frozen(self) -> bool:
        """Whether its processes are stopped, and go on when somebody lets them."""
        return any(each.state in {"T", "t"} for each in self.servers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A stopped server's control file. `checkpoint`: where the latest one's record begins."""

    state: str
    checkpoint: int
    timeline: int
    system_identifier: str
    can_rewind: bool  # data checksums, or wal_log_hints

    @property
    def is_shut_down(self) -> bool:
        """Whether it ended in order: nothing is left to be recovered."""
        return self.state in _SHUT_DOWN

    @property
    def was_primary(self) -> bool:
        """Whether it ended in order as a primary."""
        return self.state == "shut down"


def host_seen(answer: str) -> HostSeen:
    """What the look's answer says; see `host_scripts.LOOK`."""
    words = [line.split() for line in answer.splitlines()[1:] if line.strip()]
    single = {each[0]: each[1:] for each in words}
    note = single.get("note", [])
    return HostSeen(
        exists="exists" in single,
        is_owner="owner" in single,
        sees_processes="sees" in single,
        version=" ".join(single.get("version", [])),
        servers=tuple(
            ServerProcess(pid=int(each[1]), state=each[2]) for each in words if each[0] == "server"
        ),
        tools=tuple(int(each[1]) for each in words if each[0] == "tool"),
        note_pid=int(note[0]) if note else 0,
        note_holder=note[1] if note else "",
        listens={"yes": True, "no": False}.get(" ".join(single.get("listens", []))),
        has_standby_signal="standby" in single,
        is_half="half" in single,
    )


def control_of(answer: str) -> Control:
    """What pg_controldata says.

    Raises:
        PostgresError: it says something else.
    """
    lines = dict(line.split(":", 1) for line in answer.splitlines() if ":" in line)
    said = {name.strip(): value.strip() for name, value in lines.items()}
    try:
        return Control(
            state=said["Database cluster state"],
            checkpoint=lsn_of(said["Latest checkpoint location"]),
            timeline=int(said["Latest checkpoint's TimeLineID"]),
            system_identifier=said["Database system identifier"],
            can_rewind=said["wal_log_hints setting"] == "on"
            or said["Data page checksum version"] != "0",
        )
    except (KeyError, ValueError) as error:
        raise PostgresError(
            f"pg_controldata gave no answer that can be understood (at {error}).",
            next_step="Run it by hand on the data folder: its control file may be damaged.",
        ) from error


def lsn_of(text: str) -> int:
    """Bytes of a position such as 0/3000060.

    Raises:
        ValueError: it is none.
    """
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def lsn_text(lsn: int) -> str:
    """A position as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def start_options(opts: str) -> tuple[str, ...]:
    """What postmaster.opts says the server was last started with, without its data folder.

    A server whose configuration stands elsewhere is told so there: `-c config_file=...`.
    """
    _, _, rest = opts.strip().partition(' "')
    given = _OPTION.findall('"' + rest) if rest else []
    kept: list[str] = []
    skip = False
    for word in given:
        if skip or (word.startswith("-D") and word != "-D"):
            skip = False
        elif word == "-D":
            skip = True
        else:
            kept.append(word)
    return tuple(kept)


def with_settings(conf: str, values: Mapping[str, str]) -> str:
    """A configuration file with these settings at its end, and nowhere else in it."""
    lines = [line for line in conf.splitlines() if _name_of(line) not in values]
    lines += [f"{name} = {setting(value)}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def setting_in(conf: str, name: str) -> str:
    """What a configuration file that PostgreSQL wrote (postgresql.auto.conf) says; '' for nothing.

    The last one counts, as for the server.
    """
    found = ""
    for line in conf.splitlines():
        if _name_of(line) == name:
            value = line.partition("=")[2].strip()
            found = (
                value[1:-1].replace("''", "'").replace("\\\\", "\\") if value[:1] == "'" else value
            )
    return found


def _name_of(line: str) -> str:
    found = _NAME.match(line)
    return found[1].lower() if found else ""
