"""`twokey wal`: the archive of WAL, as a server's archive_command calls it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bot.cli.wal_push import push_wal

wal_app = typer.Typer(help="Keep a server's WAL.", no_args_is_help=True)


@wal_app.callback()
def wal() -> None:
    """Keep a server's WAL."""


@wal_app.command()
def push(
    path: Annotated[str, typer.Argument(help="Where the file is: %p.")],
    name: Annotated[str, typer.Argument(help="What it is called: %f.")],
    folder: Annotated[
        Path, typer.Option("--folder", help="The database's backup_folder in the inventory.")
    ],
    recipient: Annotated[
        str, typer.Option("--recipient", help="age's public key to encrypt it for.")
    ] = "",
) -> None:
    """Keep one WAL file: archive_command = 'twokey wal push --folder FOLDER %p %f'.

    It ends with 0 when the file is on disk, also if it was there already; a different file of
    the same name is refused. Ends with 1 otherwise: the server keeps the file and tries again.
    """
    sys.exit(push_wal(folder, path, name, recipient=recipient))
