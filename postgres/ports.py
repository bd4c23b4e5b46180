"""Ports for servers on this machine."""

from __future__ import annotations

import secrets
import socket
from typing import Final

from postgres.errors import PostgresError

LOOPBACK: Final = "127.0.0.1"
# Below 32768, where the system takes the near ends of outgoing connections from: there
# a port that is free now can be gone when the server wants it.
_LOWEST: Final = 20000
_HIGHEST: Final = 32767
_TRIES_MAX: Final = 200


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 right now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A free port between 20000 and 32767 on 127.0.0.1.

    Another process may take it before a server does: whoever starts one tries again.

    Raises:
        PostgresError: none was found.
    """
    for _ in range(_TRIES_MAX):
        port = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST + 1)
        if is_free(port):
            return port
    raise PostgresError(
        f"No free port was found between {_LOWEST} and {_HIGHEST} on {LOOPBACK}.",
        next_step="End programs that listen there (`ss -ltn` lists them), or name a port.",
    )
