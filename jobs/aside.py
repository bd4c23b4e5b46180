"""The server that a restore has put aside: found, still what it was, and on this host."""

from __future__ import annotations

from pathlib import Path

from jobs.operation import Context, JobError
from jobs.place_look import host
from jobs.text import span_text
from postgres.restore.exchange import inode_of
from store.replaced import ReplacedServer, find_replaced


async def still_aside(context: Context, database: str, request: int) -> ReplacedServer:
    """What restore #`request` has put aside, and is there as it was.

    Raises:
        JobError: there is nothing, it is no longer kept, or it stands on another host.
    """
    async with context.store.begin() as conn:
        server = await find_replaced(conn, database, request)
    if server is None:
        raise JobError(
            f"Request #{request} has put no server of {database} aside.",
            next_step="Give the number of a restore --into place, as its result says it.",
        )
    if found := objection(server, inode=inode_of(Path(server.aside)), here=host()):
        raise found
    return server


def objection(server: ReplacedServer, *, inode: int | None, here: str) -> JobError | None:
    """Why nothing can be done with it, or None. `inode`: of what stands there now. Pure."""
    match server.state:
        case "undone" | "confirmed":
            done = "was put back" if server.state == "undone" else "was removed"
            when = f" on {server.ended_at:%Y-%m-%d %H:%M UTC}" if server.ended_at else ""
            return JobError(
                f"What restore #{server.request_id} had put aside {done}{when}.",
                next_step="There is nothing left to do.",
            )
        case "kept":
            pass
    if server.host != here:
        return JobError(
            f"{server.aside} stands on {server.host}, and this is {here}.",
            next_step=f"Ask where a worker runs on {server.host}.",
        )
    if inode is None or inode != server.detail.get("inode"):
        what = "is gone" if inode is None else "is another folder than the one put aside"
        return JobError(
            f"{server.aside} {what}.",
            next_step="See who moved it, and move it back.",
        )
    return None


def age_text(context: Context, server: ReplacedServer) -> str:
    """How long ago it was put aside."""
    return f"{span_text(context.now - server.at)} ago"
