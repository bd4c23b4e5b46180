"""A folder of migrations, as it was found. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from postgres.migrate.words import Migration, Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """The migrations of one tool, in the order in which the tool would apply them.

    `problems`: what is wrong with the folder itself, each with the file's name and the next
    step; while there is one, nothing of it should run.
    """

    tool: Tool
    path: Path
    migrations: tuple[Migration, ...]
    problems: tuple[str, ...] = ()
    table: str = ""
