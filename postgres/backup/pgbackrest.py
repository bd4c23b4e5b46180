"""pgBackRest as a backup engine, and what we do not believe of it.

It says that all is well with exit status 0 in three cases in which nothing is: pages with a
wrong checksum were copied, `verify` found damage, a WAL file is missing in the middle of a
backup. So after each command its JSON is read, and the continuity of WAL is our own sum.
It also forgets on its own (`expire` after a backup, dependents of a removed one): here it only
removes what it was told to.

Its repository is all that is needed to restore. Row counts are kept beside it, in
`<folder>/<id>/twokey.json`, as it has no room for them.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from postgres.backup.counting import Counted, count_around
from postgres.backup.engine import Archive, LaidOut, OnText, Probe, TakeOrder
from postgres.backup.facts import BackupFacts, EngineName, Listing, backup_folder, complete
from postgres.backup.partial import begun
from postgres.backup.pgbackrest_facts import facts_of, read_notes
from postgres.backup.pgbackrest_json import (
    DATABASE_NOTE,
    FIRST_WITH_VERIFY_SET,
    ID_NOTE,
    SUPERUSER_NOTE,
    USABLE,
    Stanza,
    Taken,
    parse_archive,
    parse_info,
    parse_verify,
    parse_version,
)
from postgres.backup.pgbackrest_probe import probe_pgbackrest
from postgres.backup.pgbackrest_program import PgBackRest, failure
from postgres.backup.pgbackrest_progress import Watch
from postgres.backup.pgbackrest_restore import lay_out_pgbackrest
from postgres.backup.pgbackrest_rules import (
    NAMED_MAX,
    check_cluster,
    check_removable,
    check_removed,
    damaged_pages,
    named,
    type_of,
)
from postgres.backup.progress import OnProgress
from postgres.backup.removal import remove_folder
from postgres.backup.source import Source, look_at
from postgres.backup.wal import missing
from postgres.dsn import Target, parse_dsn
from postgres.errors import DamagedError, PostgresError

TAKE_LIMIT: Final = timedelta(hours=24)
VERIFY_LIMIT: Final = timedelta(hours=12)
COUNTING_LIMIT: Final = timedelta(minutes=10)
# As many as it takes to keep all: what goes is decided here, and each is named.
_KEEP_ALL: Final = (
    "--repo1-retention-full-type=count",
    "--repo1-retention-full=9999999",
    "--repo1-retention-archive-type=full",
)
_INVALID: Final = re.compile(r"invalid (?:checksum|size) '([^']+)'")


@dataclass(frozen=True, slots=True, kw_only=True)
class PgBackRestEngine:
    """Backups of one stanza, in its first repository.

    `dsn` is the server that the stanza is of, for row counts; pgBackRest itself connects as its
    configuration says. `folder` keeps our notes about backups.
    """

    dsn: SecretStr
    folder: Path
    config: Path
    stanza: str
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    workers: int = 4
    rate_max_bytes: int | None = None
    counting_limit: timedelta = COUNTING_LIMIT

    @property
    def name(self) -> EngineName:
        """Which engine it is."""
        return "pgbackrest"

    async def probe(self) -> Probe:
        """Its version, what that version can do, and what is not safe about its repository."""
        target = parse_dsn(self.dsn.get_secret_value())
        return await probe_pgbackrest(self._program, target, rate_max_bytes=self.rate_max_bytes)

    async def take(self, order: TakeOrder, *, on_progress: OnProgress | None = None) -> BackupFacts:
        """Take a full or an incremental backup, and believe it only after a look at it.

        Raises:
            PostgresError: it failed; or it copied damaged pages, and is then marked as refused.
        """
        before = await self._look()
        if earlier := before.find(order.backup_id):
            return await self._believed(earlier, before)
        target = parse_dsn(self.dsn.get_secret_value())
        source = await look_at(target)
        check_cluster(self.stanza, before, source)
        kind = type_of(order, before)
        watch = Watch(target, on_progress)
        with begun(self.folder, order.backup_id) as partial:
            counted = await count_around(
                target,
                lambda: watch.around(self._back_up(order, kind, target, source, watch)),
                limit=self.counting_limit,
            )
            after = await self._look()
            facts = await self._facts(after, order, source, target, counted, watch)
            await asyncio.to_thread(complete, partial, facts)
        return facts

    async def backups(self) -> Listing:
        """All sound backups of the repository, also those that others took.

        Those with damaged pages count as unreadable.
        """
        stanza = await self._look()
        known = await asyncio.to_thread(read_notes, self.folder)
        options = await self._compression()
        database = parse_dsn(self.dsn.get_secret_value()).database
        return Listing(
            backups=tuple(
                known.get(taken.label)
                or facts_of(taken, stanza, compression=options, database=database)
                for taken in stanza.backups
                if not taken.error
            ),
            unreadable=tuple(taken.id for taken in stanza.backups if taken.error),
        )

    async def archive(self) -> Archive:
        """The WAL of the cluster as it is now: not that of an older major version."""
        stanza = await self._look()
        return await self._archive(stanza, stanza.current)

    async def inspect(self, backup_id: str) -> Sequence[str]:
        """What is wrong, by pgBackRest's own look at each file and by our look at its WAL."""
        stanza = await self._look()
        taken = named(stanza, backup_id)
        findings = []
        if taken.error:
            findings.append(damaged_pages(await self._closer(taken)))
        findings += await self._verify(taken)
        return [*findings, *await self._missing_wal(taken, stanza)]

    async def lay_out(
        self, backup_id: str, work_folder: Path, *, on_step: OnText | None = None
    ) -> LaidOut:
        """Restore it with pgBackRest, which checks each file, and fetch the WAL that it needs."""
        stanza = await self._look()
        taken = await self._closer(named(stanza, backup_id))
        if taken.error:
            raise DamagedError(damaged_pages(taken))
        if lacking := await self._missing_wal(taken, stanza):
            raise DamagedError("; ".join(lacking))
        listing = await self.backups()
        facts = next(each for each in listing.backups if each.label == taken.label)
        return await lay_out_pgbackrest(
            self._program, taken, facts, work_folder,
            environ=self.environ, workers=self.workers, on_step=on_step,
        )  # fmt: skip

    async def stage_wal(self, names: Sequence[str], folder: Path) -> int:
        """Nothing: a recovery fetches its WAL through pgBackRest's archive-get."""
        del names, folder
        return 0

    async def remove(self, backup_id: str) -> int:
        """Remove exactly one backup. pgBackRest would remove those that build on it as well.

        Raises:
            PostgresError: others build on it, or it is the last full one, or it failed.
        """
        stanza = await self._look()
        taken = stanza.find(backup_id)
        if taken is not None:
            check_removable(taken, stanza)
            done = await self._program.run(
                "expire", f"--set={taken.label}", *_KEEP_ALL, "--repo1-retention-archive=9999999",
                "--repo=1", time_limit=TAKE_LIMIT,
            )  # fmt: skip
            if done.code:
                raise failure("expire", done)
            check_removed(taken, stanza, await self._look())
        # Our notes go last: without them the backup would still be one.
        await asyncio.to_thread(remove_folder, backup_folder(self.folder, backup_id))
        return taken.size_bytes if taken else 0

    async def trim(self, before: str) -> int:
        """Have pgBackRest remove WAL, from the newest full backup that began before `before` on.

        It counts in full backups and keeps what each older one needs, so more may stay than was
        asked for, and never less.
        """
        stanza = await self._look()
        fulls = [taken for taken in stanza.backups if taken.type == "full"]
        keep = next(
            (count for count, taken in enumerate(reversed(fulls), 1) if taken.start_wal <= before),
            None,
        )
        if keep is None:
            return 0
        size = await self._archive_bytes()
        done = await self._program.run(
            "expire", *_KEEP_ALL, f"--repo1-retention-archive={keep}", "--repo=1",
            time_limit=TAKE_LIMIT,
        )  # fmt: skip
        if done.code:
            raise failure("expire", done)
        return max(size - await self._archive_bytes(), 0)

    @property
    def _program(self) -> PgBackRest:
        return PgBackRest(config=self.config, stanza=self.stanza, environ=self.environ)

    async def _look(self) -> Stanza:
        """What the repository holds.

        Raises:
            PostgresError: it cannot be read: that is not the same as an empty one.
        """
        stanza = parse_info(await self._program.ask("info", "--output=json", "--repo=1"))
        if stanza.status not in USABLE:
            raise PostgresError(
                f"pgBackRest's repository of {self.stanza} cannot be used: {stanza.message}.",
                next_step=f"Make the stanza (pgbackrest --stanza={self.stanza} stanza-create), or "
                "see whether its storage can be reached.",
            )
        return stanza

    async def _closer(self, taken: Taken) -> Taken:
        """The same, with its tablespaces and its damaged files."""
        text = await self._program.ask("info", "--output=json", "--repo=1", f"--set={taken.label}")
        return named(parse_info(text), taken.label)

    async def _back_up(
        self, order: TakeOrder, kind: str, target: Target, source: Source, watch: Watch
    ) -> None:
        done = await self._program.run(
            "backup",
            f"--type={kind}",
            "--no-expire-auto",
            "--archive-check",
            "--repo=1",
            f"--process-max={max(self.workers, 1)}",
            f"--annotation={ID_NOTE}={order.backup_id}",
            f"--annotation={DATABASE_NOTE}={target.database}",
            f"--annotation={SUPERUSER_NOTE}={source.superuser}",
            "--log-level-stderr=detail",
            time_limit=TAKE_LIMIT,
            on_line=watch.hear,
        )
        if done.code:
            raise failure("backup", done)

    async def _facts(
        self,
        stanza: Stanza,
        order: TakeOrder,
        source: Source,
        target: Target,
        counted: Counted[None],
        watch: Watch,
    ) -> BackupFacts:
        """What is known about a backup that was just taken, once it has been looked at."""
        taken = stanza.find(order.backup_id)
        if taken is None:
            raise PostgresError(
                f"pgBackRest says that it took {order.backup_id}, but its repository has none.",
                next_step="See pgBackRest's log, and take the backup again.",
            )
        await self._check(taken, stanza, pages=watch.pages)
        facts = facts_of(
            taken, stanza, compression=await self._compression(), database=target.database
        )
        return facts.model_copy(
            update={
                "tables": counted.tables,
                "counting_problem": counted.problem,
                "server_version": source.version,
                "page_checksums": source.page_checksums,
                "superuser": source.superuser,
                "settings": dict(source.settings),
                "wal_segment_bytes": source.segment_bytes,
            }
        )

    async def _believed(self, taken: Taken, stanza: Stanza) -> BackupFacts:
        """A backup that an earlier attempt has taken, if it is sound."""
        await self._check(taken, stanza)
        listing = await self.backups()
        return next(facts for facts in listing.backups if facts.label == taken.label)

    async def _check(self, taken: Taken, stanza: Stanza, *, pages: Sequence[str] = ()) -> None:
        """Exit status 0 is not enough for a backup to count."""
        if taken.error:
            said = "; ".join(pages) or damaged_pages(await self._closer(taken))
            raise PostgresError(
                f"The server has damaged pages, so the backup {taken.id} does not count: {said}.",
                next_step="Find out what is damaged (`/db integrity`, the disk's health), and keep "
                f"the older backups. pgBackRest keeps this one as {taken.label}; once it is "
                f"mended: pgbackrest --stanza={self.stanza} expire --set={taken.label}",
            )
        if lacking := await self._missing_wal(taken, stanza):
            raise PostgresError(
                f"The backup {taken.id} cannot be restored: {'; '.join(lacking)}.",
                next_step="See the server's archive_command and pg_stat_archiver, then take "
                "another backup.",
            )

    async def _verify(self, taken: Taken) -> list[str]:
        version = parse_version(await self._program.version())
        only = (f"--set={taken.label}",) if version >= FIRST_WITH_VERIFY_SET else ()
        done = await self._program.run(
            "verify", "--output=text", "--verbose", "--repo=1", "--log-level-stderr=info", *only,
            time_limit=VERIFY_LIMIT,
        )  # fmt: skip
        if done.code and not done.stdout.strip():
            raise failure("verify", done)
        found = parse_verify(done.stdout)
        if not found.usable:
            return ["pgBackRest's own list of backups or of WAL is damaged"]
        findings = [
            f"{label}: {problem}"
            for label in (*taken.builds_on, taken.label)
            for problem in found.backups.get(label, ())
        ]
        if taken.label not in found.backups:
            findings.append("pgBackRest did not look at it")
        named = _INVALID.findall(done.stderr)[:NAMED_MAX] if findings or found.archive else []
        return [*findings, *found.archive, *(f"{path} is damaged" for path in named)]

    async def _missing_wal(self, taken: Taken, stanza: Stanza) -> list[str]:
        """2.45's verify calls a backup valid whose own WAL has a hole."""
        archive = await self._archive(stanza, taken.database)
        lacking = missing(
            archive,
            start_wal=taken.start_wal,
            end_wal=taken.end_wal,
            segment_bytes=taken.segment_bytes,
        )
        more = f" and {len(lacking) - NAMED_MAX} more" if len(lacking) > NAMED_MAX else ""
        named = ", ".join(lacking[:NAMED_MAX])
        return [f"WAL {named}{more} is missing in the archive"] if lacking else []

    async def _archive(self, stanza: Stanza, number: int) -> Archive:
        folder = stanza.archives.get(number)
        if folder is None:
            return Archive()
        text = await self._listed()
        segments, histories = parse_archive(text, folder)
        texts = {
            int(name[:8], 16): await self._program.ask(
                "repo-get", "--repo=1",
                arguments=(f"archive/{self.stanza}/{folder}/{name}",),
            )
            for name in histories
        }  # fmt: skip
        return Archive(segments=segments, histories=texts)

    async def _archive_bytes(self) -> int:
        stanza = await self._look()
        text = await self._listed()
        folders = stanza.archives.values()
        return sum(each.size_bytes for name in folders for each in parse_archive(text, name)[0])

    async def _listed(self) -> str:
        return await self._program.ask(
            "repo-ls", "--output=json", "--recurse", "--repo=1",
            arguments=(f"archive/{self.stanza}",),
        )  # fmt: skip

    async def _compression(self) -> str:
        """How the repository compresses, as far as its configuration says."""
        return await asyncio.to_thread(self._program.option, "compress-type", "gz")
