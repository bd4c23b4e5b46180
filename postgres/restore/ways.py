"""The folders of an exchange, and the note that stands beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from postgres.restore.closing import Door
from postgres.restore.control import Instance
from postgres.restore.exchange import Exchange, bad_note, read_note


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """Where things stand for one exchange, beside the data folder. `mark`: a request's number."""

    data: Path
    mark: int
    coming: Path
    leaving: Path

    @property
    def note(self) -> Path:
        """What is exchanged with what, written before anything is."""
        return beside(self.data, f"{self.mark}.json")

    @property
    def work(self) -> Path:
        """Where the copy is made before it is complete."""
        return beside(self.data, f"work-{self.mark}")


def ways_of_restore(data: Path, request: int) -> Ways:
    """The folders of a restore into place."""
    return Ways(
        data=data,
        mark=request,
        coming=beside(data, f"new-{request}"),
        leaving=beside(data, f"old-{request}"),
    )


def ways_of_undo(data: Path, request: int, *, undoes: int) -> Ways:
    """The folders of the undo of a restore: what it had put aside comes back."""
    return Ways(
        data=data,
        mark=request,
        coming=beside(data, f"old-{undoes}"),
        leaving=beside(data, f"undone-{undoes}"),
    )


class Note(BaseModel):
    """What must be known after a crash, on the disk beside the folders."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exchange: Exchange
    program: Path
    arguments: tuple[str, ...]
    log: Path
    hba: Path
    hba_kept: Path
    files: tuple[Path, ...]
    coming_xid: int
    coming_timeline: int
    system_identifier: str

    @property
    def instance(self) -> Instance:
        """The server of the place."""
        place = self.exchange.place
        return Instance(data=place, program=self.program, arguments=self.arguments, log=self.log)

    @property
    def door(self) -> Door:
        """Its pg_hba.conf."""
        return Door(data=self.exchange.place, hba=self.hba, kept=self.hba_kept)


def read_ways(ways: Ways) -> Note | None:
    """What was written down, or None.

    Raises:
        PostgresError: it cannot be understood.
    """
    text = read_note(ways.note)
    if text is None:
        return None
    try:
        return Note.model_validate_json(text)
    except ValidationError as error:
        raise bad_note(ways.note, error) from error


def beside(data: Path, what: str) -> Path:
    """A path beside a data folder that says whose it is."""
    return data.with_name(f"{data.name}.twokey-{what}")
