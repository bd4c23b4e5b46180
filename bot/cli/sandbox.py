"""`twokey sandbox`: what one needs to try Twokey on one's own machine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from approvals.words import BadInputError
from bot.cli.output import run, say, stop_at_signals
from sandbox.slack.manifest import ManifestError
from sandbox.slack.server import PortTakenError
from sandbox.slack.standalone import serve

sandbox_app = typer.Typer(help="A Slack to play with.", no_args_is_help=True)


@sandbox_app.callback()
def sandbox() -> None:
    """Things to play with on one's own machine."""


@sandbox_app.command("slack")
def slack(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
    manifest: Annotated[Path, typer.Option(help="The app's manifest.")] = Path("manifest.yml"),
    request_url: Annotated[
        str | None,
        typer.Option(help="Deliver by HTTP to this URL on this machine; else over Socket Mode."),
    ] = None,
) -> None:
    """Run the Slack stand-in alone, until Ctrl-C."""
    try:
        run(_until_stopped(manifest, port, request_url))
    except (ManifestError, OSError, ValueError) as error:
        advice = "Choose another one, or leave --port out."
        raise BadInputError(
            str(error),
            next_step=advice if isinstance(error, PortTakenError) else "Mend it and start again.",
        ) from error


async def _until_stopped(manifest: Path, port: int, request_url: str | None) -> None:
    stop = asyncio.Event()
    stop_at_signals(stop)
    await serve(manifest, port, request_url, say=say, stop=stop)
