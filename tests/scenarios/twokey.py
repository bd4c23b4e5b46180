"""The command line as a module: `python -m tests.scenarios.twokey worker`."""

from __future__ import annotations

from bot.cli.main import main

if __name__ == "__main__":
    main()
