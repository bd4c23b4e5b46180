"""Where the `twokey` command starts: what a server waits for does not wait for the whole."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; see `bot.cli.main`."""
    if sys.argv[1:3] == ["wal", "push"]:
        from bot.cli.wal_push import as_usual, push_wal  # noqa: PLC0415 - quick, and rarely needed

        if (asked := as_usual(sys.argv[3:])) is not None:
            sys.exit(push_wal(*asked))
    from bot.cli.main import main as everything  # noqa: PLC0415 - slow

    everything()
