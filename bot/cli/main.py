"""The `twokey` command."""

from __future__ import annotations

import sys

import typer

from approvals.words import ExplainedError
from bot.cli.lazy import LazyGroup
from bot.cli.output import complain, complain_of_bug
from bot.redact import watch_logs
from postgres.errors import PostgresError

BAD_INPUT = 2


class _Commands(LazyGroup):
    groups = {  # noqa: RUF012 - a ClassVar of the base
        "approvals": "bot.cli.approvals:approvals_app",
        "audit": "bot.cli.audit:audit_app",
        "drills": "bot.cli.drills:drills_app",
        "mfa": "bot.cli.mfa:mfa_app",
        "policy": "bot.cli.policy:policy_app",
        "runs": "bot.cli.runs:runs_app",
        "sandbox": "bot.cli.sandbox:sandbox_app",
        "store": "bot.cli.store:store_app",
        "wal": "bot.cli.wal:wal_app",
    }
    single = {  # noqa: RUF012
        "doctor": "bot.cli.doctor:doctor_app",
        **dict.fromkeys(("serve", "bot", "worker", "demo"), "bot.cli.serving:serving_app"),
        **dict.fromkeys(
            (
                *("request", "query", "requests", "show", "approve", "deny", "cancel"),
                *("withdraw", "review", "break-glass"),
            ),
            "bot.cli.remote:remote_app",
        ),
    }


app = typer.Typer(
    cls=_Commands,
    help="Database operations that turn only with two keys.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _twokey() -> None:
    pass


def main() -> None:
    """Run the command line; a problem is told in two sentences and ends with 2."""
    watch_logs()
    try:
        app()
    except (ExplainedError, PostgresError) as error:
        complain(error.problem, error.next_step)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - the edge: everything else is a bug
        complain_of_bug(error)
        sys.exit(1)
