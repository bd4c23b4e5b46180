"""Alembic's revisions, as the SQL that they would run.

env.py and the revisions are code of the application: they run in a child process alone, with a
time limit, an environment without anything of ours, and no address of any database. What they
read is what the account that runs Twokey may read.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from postgres.errors import PostgresError
from postgres.migrate.folders import alembic_order
from postgres.migrate.folders.alembic_child import URL
from postgres.migrate.folders.alembic_sql import Script, read_script
from postgres.migrate.folders.files import FILE_BYTES_MAX, FILES_MAX, sha256_of
from postgres.migrate.folders.folder import Folder
from postgres.migrate.words import Migration, Tool
from postgres.programs import Finished, run_program

TIME_LIMIT: Final = timedelta(seconds=60)
_CHILD: Final = Path(__file__).with_name("alembic_child.py")
_ANSWER_BYTES_MAX: Final = 2**26
_REMEMBERED_MAX: Final = 8
# What a revision imports from the application may change without a change of its file.
_REMEMBERED_SECONDS: Final = 300.0
_HASHED_FILES_MAX: Final = 2 * FILES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What the child said, with the SQL of those revisions alone that were asked for."""

    revisions: tuple[alembic_order.Revision, ...]
    rendered: Mapping[str, Mapping[str, Any]]
    heads: tuple[str, ...]
    table: str
    schema: str
    places: tuple[Path, ...]  # where scripts are
    at: float  # time.monotonic


# By the bytes of every file that has a say. One plan asks several times.
_remembered: dict[str, _Answer] = {}


async def read(
    folder: Path, *, python: Path | None = None, versions: Collection[str] | None = None
) -> Folder:
    """The revisions in an order in which Alembic could apply them.

    Those in `versions` (None: all of them) have their SQL; the others have none, and '' as
    `sha256`: nobody can have agreed to that.

    Raises:
        PostgresError: there is no alembic.ini, or the application's code fails before a revision
            is reached, or takes longer than TIME_LIMIT.
    """
    if not await asyncio.to_thread((folder / "alembic.ini").is_file):
        raise PostgresError(
            f"There is no alembic.ini in {folder}.",
            next_step="Point `migrations.folder` at the folder that alembic.ini stands in.",
        )
    answer = await _ask(folder, python or Path(sys.executable), versions)
    order, problems = alembic_order.linear(answer.revisions, answer.heads)
    table = f"{_part(answer.schema)}.{_part(answer.table)}" if answer.schema else answer.table
    is_usual = not answer.schema and answer.table in {"", "alembic_version"}
    return Folder(
        tool=Tool.ALEMBIC,
        path=folder,
        migrations=await asyncio.to_thread(_migrations, order, answer),
        problems=problems,
        table="" if is_usual else table,
    )


def _part(name: str) -> str:
    """A part of a table's name, as the settings would write it."""
    return '"' + name.replace('"', '""') + '"' if "." in name or '"' in name else name


async def _ask(folder: Path, python: Path, versions: Collection[str] | None) -> _Answer:
    """The child's answer, or one that we remember and that has all that is asked for."""
    key = f"{await asyncio.to_thread(_fingerprint, folder)} {python}"
    known = _remembered.pop(key, None)
    if known is not None and time.monotonic() - known.at > _REMEMBERED_SECONDS:
        known = None
    if known is None or not _has(known, versions):
        more = versions if versions is None or known is None else {*versions, *known.rendered}
        known = _parsed(folder, await _run(folder, python, more))
    if not await asyncio.to_thread(_are_hashed, folder, known.places):
        return known
    _remembered[key] = known  # the newest last
    while len(_remembered) > _REMEMBERED_MAX:
        del _remembered[next(iter(_remembered))]
    return known


def _has(answer: _Answer, versions: Collection[str] | None) -> bool:
    known = {each.revision for each in answer.revisions}
    wanted = known if versions is None else known & set(versions)
    return wanted <= answer.rendered.keys()


def _fingerprint(folder: Path) -> str:
    """The SHA-256 of alembic.ini and of every Python file below its scripts' folders.

    Modules of the application that a revision imports are not among them.
    """
    found = hashlib.sha256(f"{folder.resolve()}\0".encode())
    for count, path in enumerate(sorted(_sources(folder))):
        if count > _HASHED_FILES_MAX:
            raise PostgresError(
                f"{folder} has more than {_HASHED_FILES_MAX} files of Alembic.",
                next_step="Point `migrations.folder` at the migrations alone.",
            )
        found.update(f"{path}\0{path.stat().st_size}\0".encode())
        found.update(path.read_bytes()[:FILE_BYTES_MAX])
    return found.hexdigest()


def _sources(folder: Path) -> Iterable[Path]:
    yield from (p for name in ("alembic.ini", "pyproject.toml") if (p := folder / name).is_file())
    for place in _script_folders(folder):
        yield from (path for path in place.rglob("*.py") if path.is_file())


def _script_folders(folder: Path) -> set[Path]:
    """Where an env.py stands, as far down as people put it."""
    found = {*folder.glob("env.py"), *folder.glob("*/env.py"), *folder.glob("*/*/env.py")}
    return {env.parent for env in found}


def _are_hashed(folder: Path, places: tuple[Path, ...]) -> bool:
    """Whether a change of any script would change the fingerprint."""
    hashed = [place.resolve() for place in _script_folders(folder)]
    return all(any(place.is_relative_to(each) for each in hashed) for place in places)


async def _run(folder: Path, python: Path, versions: Collection[str] | None) -> Finished:
    ask = {
        "folder": str(await asyncio.to_thread(folder.resolve)),
        "versions": None if versions is None else sorted(versions),
        "chars_max": FILE_BYTES_MAX,
    }
    finished = await run_program(
        [python, _CHILD],
        time_limit=TIME_LIMIT,
        as_server=False,
        environ={
            "HOME": "/nonexistent",  # there may be a .pgpass in ours
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONIOENCODING": "utf-8",
            "DATABASE_URL": URL,
            "SQLALCHEMY_DATABASE_URI": URL,
            "TWOKEY_ALEMBIC_ASK": json.dumps(ask),
        },
        stdout_bytes_max=_ANSWER_BYTES_MAX,
    )
    if finished.code:
        raise PostgresError(
            f"Alembic's folder {folder} cannot be read: {finished.last_words[:500]}.",
            next_step="Run `alembic history` there with the same Python. Its packages are those of"
            " `migrations.python` in the inventory.",
        )
    return finished


def _parsed(folder: Path, finished: Finished) -> _Answer:
    try:
        answer = json.loads(finished.stdout)
        return _Answer(
            revisions=tuple(
                alembic_order.Revision(
                    revision=str(each["revision"]),
                    parents=tuple(map(str, each["parents"])),
                    name=str(each["doc"]),
                    path=Path(each["path"]),
                    depends_on=bool(each["depends_on"]),
                )
                for each in answer["revisions"]
            ),
            rendered={each["revision"]: each for each in answer["revisions"] if "up" in each},
            heads=tuple(map(str, answer["heads"])),
            table=str(answer["table"]),
            schema=str(answer["schema"]),
            places=tuple(map(Path, answer["places"])),
            at=time.monotonic(),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise PostgresError(
            f"The answer about Alembic's folder {folder} cannot be understood.",
            next_step="See whether env.py ends or replaces its process.",
        ) from error


def _migrations(order: tuple[alembic_order.Placed, ...], answer: _Answer) -> tuple[Migration, ...]:
    return tuple(_migration(placed, answer) for placed in order)


def _migration(placed: alembic_order.Placed, answer: _Answer) -> Migration:
    revision = placed.revision
    rendered = answer.rendered.get(revision.revision)
    if rendered is None:
        return _not_rendered(placed)
    up, down = _script(rendered["up"], answer), _script(rendered["down"], answer)
    has_down = not down.problem and bool(down.sql)
    return Migration(
        tool=Tool.ALEMBIC,
        version=revision.revision,
        name=revision.name,
        path=revision.path,
        up=up.sql,
        sha256=sha256_of(up.sql),
        down=down.sql if has_down else None,
        down_sha256=sha256_of(down.sql) if has_down else "",
        is_transactional=up.is_transactional,
        down_is_transactional=down.is_transactional,
        book_before=placed.before,
        book_after=placed.after,
        problem=_problem(revision, up.problem),
    )


def _not_rendered(placed: alembic_order.Placed) -> Migration:
    return Migration(
        tool=Tool.ALEMBIC,
        version=placed.revision.revision,
        name=placed.revision.name,
        path=placed.revision.path,
        up="",
        sha256="",
        book_before=placed.before,
        book_after=placed.after,
    )


def _script(rendered: Mapping[str, str], answer: _Answer) -> Script:
    if problem := rendered.get("problem", ""):
        return Script(sql="", is_transactional=None, problem=problem)
    return read_script(rendered["sql"], table=answer.table, schema=answer.schema)


def _problem(revision: alembic_order.Revision, problem: str) -> str:
    if not problem:
        return ""
    return (
        f"Revision {revision.revision} ({revision.path.name}) cannot be written as SQL without a"
        f" database: {problem.rstrip('.')}. Write what it does with op.execute or as a backfill."
    )
