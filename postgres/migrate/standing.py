"""Where a database stands in its folder of migrations: applied, pending, what is wrong. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from postgres.errors import PostgresError
from postgres.migrate.folders.folder import Folder
from postgres.migrate.words import BookEntry, Migration, Tool

_SHOWN_MAX: Final = 5
_PROBLEMS_MAX: Final = 50
# Numbers above are dates, and there the days without a migration are no gaps.
_COUNTED_MAX: Final = 1_000_000
# Who counts in steps of five or ten leaves room on purpose.
_STEP: Final = 5
_DIGITS_MAX: Final = 100

_NEXT_STEPS: Final = {
    Tool.ALEMBIC: "See what of it stands in the database, then set the book with `alembic stamp`.",
    Tool.PRISMA: "See what of it stands in the database, then `prisma migrate resolve`.",
    Tool.FLYWAY: "See what of it stands in the database, then `flyway repair`.",
    Tool.GOLANG_MIGRATE: "See what of it stands in the database, then `migrate force VERSION`.",
    Tool.DBMATE: "See what of it stands in the database, then correct the book.",
    Tool.PLAIN: "See what of it stands in the database, then correct the book.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What of a folder is applied (in the folder's order) and what would run next, in order.

    `newest` is the newest applied migration that is no repeatable one. `problems`: reasons why
    nothing may be applied now, each with a file's name or a version, and the next step.
    """

    tool: Tool
    applied: tuple[Migration, ...]
    pending: tuple[Migration, ...]
    problems: tuple[str, ...] = ()
    newest: Migration | None = None


def standing(folder: Folder, entries: Sequence[BookEntry] | None) -> Standing:
    """Compare a folder with what its tool's table says. `entries` None: there is no table yet."""
    book = {entry.version: entry for entry in entries or ()}
    covered = _covered(folder, book)
    versioned = [each for each in folder.migrations if not each.is_repeatable]
    known = book.keys() | covered
    applied = [each for each in versioned if each.version in known]
    pending = [each for each in versioned if each.version not in known]
    newest = applied[-1] if applied else None
    repeated = [each for each in folder.migrations if each.is_repeatable]
    changed = [each for each in repeated if _must_repeat(each, book)]
    problems = [
        *folder.problems,
        *_unfinished(folder, book),
        *_unknown(folder, book),
        *_changed(applied, book),
        *_wrong_heads(newest, book),
        *_out_of_order(folder, pending, newest),
        *_gaps(versioned, pending, newest),
        *(each.problem for each in [*pending, *changed] if each.problem),
    ]
    return Standing(
        tool=folder.tool,
        applied=(*applied, *(each for each in repeated if each not in changed)),
        pending=(*pending, *changed),
        problems=_bounded(tuple(dict.fromkeys(problems))),
        newest=newest,
    )


def up_to(stood: Standing, version: str | None = None) -> tuple[Migration, ...]:
    """What would be applied, in order, until `version` is (None: everything that is pending).

    Raises:
        PostgresError: nothing pending has this version.
    """
    if version is None:
        return stood.pending
    wanted = find(stood.pending, version)
    if wanted is None:
        raise _not_there(version, stood.pending, "pending", stood.applied, "applied already")
    return stood.pending[: stood.pending.index(wanted) + 1]


def down_to(stood: Standing, version: str | None = None) -> tuple[Migration, ...]:
    """What would be taken back, the newest first, until `version` is the newest applied one.

    None: the newest alone is taken back; `base`: everything. Repeatable ones stay.

    Raises:
        PostgresError: nothing is applied, or not this version.
    """
    applied = tuple(each for each in stood.applied if not each.is_repeatable)
    if not applied:
        raise PostgresError(
            "Nothing of this folder is applied, so there is nothing to take back.",
            next_step="See what is applied where with `/db migrate <db> status`.",
        )
    if version is None:
        return applied[-1:]
    if version == "base":
        return applied[::-1]
    kept = find(applied, version)
    if kept is None:
        raise _not_there(version, applied, "applied", stood.pending, "not applied yet")
    return applied[applied.index(kept) + 1 :][::-1]


def find(migrations: Sequence[Migration], version: str) -> Migration | None:
    """The one that a person means: its version, the same number, or the only one so beginning."""
    exact = [each for each in migrations if each.version == version]
    number = int(version) if _is_number(version) else None
    same = [e for e in migrations if _is_number(e.version) and int(e.version) == number]
    begins = [each for each in migrations if version and each.version.startswith(version)]
    for found in (exact, same, begins):
        if len(found) == 1:
            return found[0]
    return None


def _bounded(problems: tuple[str, ...]) -> tuple[str, ...]:
    """At most _PROBLEMS_MAX of them: git may have changed the line ends of a thousand files."""
    more = len(problems) - _PROBLEMS_MAX
    if more <= 0:
        return problems
    return (*problems[:_PROBLEMS_MAX], f"There are {more} more. Correct these first.")


def _covered(folder: Folder, book: dict[str, BookEntry]) -> set[str]:
    """Versions that count as applied since a newer one, or a baseline, is."""
    order = [each.version for each in folder.migrations if not each.is_repeatable]
    covering = [entry.version for entry in book.values() if entry.covers_earlier]
    ends = [at for at, version in enumerate(order) if version in covering]
    covered = set(order[: max(ends) + 1]) if ends else set[str]()
    for version in covering:  # a baseline that has no file of its own
        if version not in order and _parts(version):
            covered |= {each for each in order if _parts(each) and _parts(each) <= _parts(version)}
    return covered


def _must_repeat(migration: Migration, book: dict[str, BookEntry]) -> bool:
    entry = book.get(migration.version)
    return entry is None or not entry.is_complete or entry.checksum != migration.checksum


def _unfinished(folder: Folder, book: dict[str, BookEntry]) -> Iterator[str]:
    for entry in book.values():
        if entry.is_complete:
            continue
        what = _file(folder, entry)
        if folder.tool is Tool.GOLANG_MIGRATE:  # dirty is where it was going to, either way
            what = f"{what}, or a way back to it,"
        yield f"{what} was begun and is not known to have ended. {_NEXT_STEPS[folder.tool]}"


def _unknown(folder: Folder, book: dict[str, BookEntry]) -> Iterator[str]:
    known = {each.version for each in folder.migrations}
    missing = [
        entry
        for entry in book.values()
        if entry.version not in known and entry.is_complete and not entry.is_baseline
    ]
    for entry in missing[:_SHOWN_MAX]:
        title = f"{entry.version} {entry.name}".strip()
        yield (
            f"The database has {title}, and its file is not in {folder.path.name}."
            " Check out the code that it came with, or restore the file."
        )
    if len(missing) > _SHOWN_MAX:
        yield f"{len(missing) - _SHOWN_MAX} more applied versions have no file. Restore them too."


def _changed(applied: Sequence[Migration], book: dict[str, BookEntry]) -> Iterator[str]:
    for each in applied:
        entry = book.get(each.version)
        known = (each.checksum, *each.same_checksums)
        if entry and entry.checksum and each.checksum and entry.checksum not in known:
            yield (
                f"{_path(each)} has been changed after it was applied."
                " Take the change back, and write a new migration for it."
            )


def _wrong_heads(newest: Migration | None, book: dict[str, BookEntry]) -> Iterator[str]:
    """A tool that keeps the newest alone says another newest than the folder's order does."""
    if newest is None or not newest.book_after:
        return
    heads = {entry.version for entry in book.values() if entry.covers_earlier}
    if heads != set(newest.book_after):
        yield (
            f"The database stands at {', '.join(sorted(heads))}, between branches that"
            f" {_path(newest)} is part of. Bring it to a point where the branches have met with"
            " the tool itself."
        )


def _out_of_order(
    folder: Folder, pending: Sequence[Migration], newest: Migration | None
) -> Iterator[str]:
    place = {each.version: at for at, each in enumerate(folder.migrations)}
    for each in pending:
        if newest and place[each.version] < place[newest.version]:
            yield (
                f"{_path(each)} comes before {_path(newest)}, which is applied."
                " Give it a newer version, or let the tool itself apply it out of order."
            )


def _gaps(
    versioned: Sequence[Migration], pending: Sequence[Migration], newest: Migration | None
) -> Iterator[str]:
    """Numbers that were left out between what is applied and what would be."""
    numbers = [_number(each.version) for each in versioned]
    counted = [number for number in numbers if number is not None]
    if len(counted) != len(numbers) or all(number % _STEP == 0 for number in counted):
        return
    if max(counted, default=0) >= _COUNTED_MAX:
        return
    row = [*([newest] if newest else []), *pending]
    for before, after in pairwise(row):
        first, last = int(before.version) + 1, int(after.version) - 1
        if first <= last:
            missing = str(first) if first == last else f"{first} to {last}"
            yield (
                f"Version {missing} is missing between {_path(before)} and {_path(after)}."
                " Restore the file, or number the next one without a gap."
            )


def _not_there(
    version: str,
    among: Sequence[Migration],
    state: str,
    others: Sequence[Migration],
    otherwise: str,
) -> PostgresError:
    if other := find(others, version):
        return PostgresError(
            f"{other.title} is {otherwise}.",
            next_step=f"The {state} ones are: {_names(among)}.",
        )
    return PostgresError(
        f"There is no {state} migration {version}.",
        next_step=f"The {state} ones are: {_names(among)}.",
    )


def _names(migrations: Sequence[Migration]) -> str:
    shown = ", ".join(each.title for each in migrations[-_SHOWN_MAX:])
    return shown or "none"


def _file(folder: Folder, entry: BookEntry) -> str:
    found = next((each for each in folder.migrations if each.version == entry.version), None)
    return _path(found) if found else f"Version {entry.version} {entry.name}".strip()


def _path(migration: Migration) -> str:
    """The file as people know it: Prisma's are all called migration.sql."""
    if migration.tool is Tool.PRISMA:
        return f"{migration.path.parent.name}/{migration.path.name}"
    return migration.path.name


def _is_number(version: str) -> bool:
    return version.isascii() and version.isdigit() and len(version) <= _DIGITS_MAX


def _number(version: str) -> int | None:
    return int(version) if _is_number(version) else None


def _parts(version: str) -> tuple[int, ...]:
    """`2.10` as (2, 10); () for what is no such version."""
    parts = version.replace("_", ".").split(".")
    return tuple(int(part) for part in parts) if all(map(_is_number, parts)) else ()
