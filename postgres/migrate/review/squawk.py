"""squawk, a linter of migrations, as a child process: SQL in, findings out.

It knows no sizes and no catalog, and a comment can silence it: the caller empties comments
before it sees them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from postgres.errors import PostgresError
from postgres.migrate.words import Finding, Level
from postgres.process import end_with_parent

LIMIT_SECONDS: Final = 30.0
OUTPUT_BYTES_MAX: Final = 50_000_000
SYNTAX: Final = "syntax-error"
# We set the limits ourselves; the others are matters of taste, or ours to say better.
_EXCLUDED: Final = (
    "require-lock-timeout",
    "require-statement-timeout",
    "prefer-robust-stmts",
    "prefer-bigint-over-int",
    "prefer-bigint-over-smallint",
    "prefer-identity",
    "prefer-text-field",
    "prefer-timestamp-tz",
    "ban-char-field",
    "ban-uncommitted-transaction",
    "transaction-nesting",
)
_FINE: Final = (0, 1)  # without findings, with findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A finding and where it stands: `line` from 0, `column` in bytes of UTF-8 of that line."""

    finding: Finding
    line: int
    column: int


async def lint(
    sql: str, *, major: int, in_transaction: bool, program: Path | None = None
) -> tuple[Remark, ...]:
    """What squawk says about a file.

    Raises:
        PostgresError: it is not installed, breaks, or takes longer than 30 seconds. A review
            without it would look as if it had nothing to say.
    """
    if not sql.strip():
        return ()
    found = await _output(program or Path(sys.executable).with_name("squawk"), sql, [
        "--reporter", "json", "--stdin-filepath", "migration.sql", "--pg-version", f"{major}.0",
        "--assume-in-transaction" if in_transaction else "--no-assume-in-transaction",
        *(part for rule in _EXCLUDED for part in ("--exclude", rule)),
    ])  # fmt: skip
    return tuple(_remark(each) for each in found)


async def _output(program: Path, sql: str, arguments: Sequence[str]) -> Sequence[dict[str, Any]]:
    try:
        child = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # No configuration of whoever's folder we stand in: it could switch rules off.
            cwd="/",
            env={"HOME": "/nonexistent", "LC_ALL": "C.UTF-8"},
            preexec_fn=end_with_parent(signal.SIGKILL),
            start_new_session=True,
        )
    except OSError as error:
        raise _broken(f"squawk cannot be started: {error}") from error
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            out, err = await child.communicate(sql.encode())
    except TimeoutError as error:
        raise _broken(f"squawk takes longer than {LIMIT_SECONDS:.0f} seconds") from error
    finally:
        if child.returncode is None:
            # With whatever it has started: a grandchild would keep our pipes open.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
    if child.returncode not in _FINE or len(out) > OUTPUT_BYTES_MAX:
        raise _broken(f"squawk ended with {child.returncode}: {err.decode(errors='replace')[:200]}")
    try:
        said = json.loads(out)
    except ValueError as error:
        raise _broken("squawk says something that is no JSON") from error
    if not isinstance(said, list):
        raise _broken("squawk says something that is no list")
    return said


def _remark(said: dict[str, Any]) -> Remark:
    try:
        rule, line, column = str(said["rule_name"]), int(said["line"]), int(said["column"])
        text, is_error = str(said["message"]), said["level"] == "Error"
    except (KeyError, TypeError, ValueError) as error:
        raise _broken("squawk's findings have another shape than we know") from error
    found = Finding(
        rule=rule,
        level=Level.ERROR if is_error else Level.WARNING,
        text=text,
        line=line + 1,
        help=str(said.get("help") or ""),
        source="squawk",
    )
    return Remark(finding=found, line=line, column=column)


def _broken(problem: str) -> PostgresError:
    return PostgresError(
        f"The SQL cannot be reviewed: {problem}.",
        next_step="Reinstall the bot's environment (make setup): squawk is a part of it.",
    )
