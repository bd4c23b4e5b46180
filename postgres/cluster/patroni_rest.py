"""Patroni's REST API over HTTP: one call to one node, with limits, and what went wrong in words.

The only module of this package that imports aiohttp. A change is asked for once: whether it
reached the agent is what a caller must know, so connections are never reused and redirects never
followed. Credentials go with changes alone; Patroni answers questions to anybody.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import aiohttp
from pydantic import SecretStr

from postgres.cluster.patroni_words import Answer
from postgres.cluster.words import NodeSpec
from postgres.errors import PostgresError

CONNECT_SECONDS_MAX: Final = 3.0
_BYTES_MAX: Final = 4_000_000
_HEADER_BYTES_MAX: Final = 16_384


class NoAnswerError(PostgresError):
    """A node's Patroni did not answer. `was_sent`: it may have read what we asked for."""

    def __init__(self, node: str, why: str, *, was_sent: bool, next_step: str) -> None:
        super().__init__(f"Patroni on {node} does not answer: {why}.", next_step=next_step)
        self.node = node
        self.why = why
        self.was_sent = was_sent


class PatroniRest:
    """Calls to the agents of one cluster. Nothing is opened before the first call."""

    def __init__(
        self, *, user: str = "", password: SecretStr | None = None, ca: Path | None = None
    ) -> None:
        self._auth = _authorization(user, password) if password else {}
        self._ca = ca
        self._session: aiohttp.ClientSession | None = None

    async def get(self, node: NodeSpec, path: str, *, limit: timedelta) -> Answer:
        """Ask.

        Raises:
            NoAnswerError: nothing came back in time, or half of it.
            PostgresError: the certificate authority's file cannot be read.
        """
        return await self._call("GET", node, path, None, limit)

    async def post(
        self, node: NodeSpec, path: str, body: Mapping[str, str], *, limit: timedelta
    ) -> Answer:
        """Ask for a change, once.

        Raises:
            NoAnswerError: nothing came back in time; `was_sent` says whether it may be at work.
            PostgresError: the certificate authority's file cannot be read.
        """
        return await self._call("POST", node, path, body, limit)

    async def close(self) -> None:
        """Hang up."""
        if self._session:
            await self._session.close()
            self._session = None

    async def _call(
        self,
        method: str,
        node: NodeSpec,
        path: str,
        body: Mapping[str, str] | None,
        limit: timedelta,
    ) -> Answer:
        try:
            async with self._opened().request(
                method,
                f"{node.rest.rstrip('/')}{path}",
                json=body,
                headers=self._auth if body is not None else None,
                allow_redirects=False,
                timeout=_timeout(limit),
            ) as response:
                text = await _text(node, response)
                return Answer(status=response.status, text=text, at=_date(response))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _explained(node, error) from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    force_close=True, ssl=self._tls() if self._ca else True
                ),
                max_line_size=_HEADER_BYTES_MAX,
                max_field_size=_HEADER_BYTES_MAX,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._ca)
        except (OSError, ssl.SSLError) as error:
            raise PostgresError(
                f"The certificate authority of Patroni's REST API, {self._ca}, cannot be read: "
                f"{getattr(error, 'strerror', None) or error}.",
                next_step="Put the PEM file there, or correct the path in the inventory.",
            ) from error


def _authorization(user: str, password: SecretStr) -> Mapping[str, str]:
    return {"Authorization": aiohttp.encode_basic_auth(user, password.get_secret_value())}


def _timeout(limit: timedelta) -> aiohttp.ClientTimeout:
    seconds = limit.total_seconds()
    return aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, CONNECT_SECONDS_MAX))


async def _text(node: NodeSpec, response: aiohttp.ClientResponse) -> str:
    body = bytearray()
    async for part in response.content.iter_chunked(65_536):
        body += part
        if len(body) > _BYTES_MAX:
            raise NoAnswerError(
                node.name,
                f"its answer is longer than {_BYTES_MAX} bytes",
                was_sent=True,
                next_step="See whether its address in the inventory leads to Patroni.",
            )
    return body.decode(errors="replace")


def _date(response: aiohttp.ClientResponse) -> datetime | None:
    try:
        return parsedate_to_datetime(response.headers.get("Date", ""))
    except ValueError:
        return None


def _explained(node: NodeSpec, error: Exception) -> NoAnswerError:
    look = (
        f"See whether Patroni runs on {node.name} and {node.rest or 'its REST address'} is open "
        "to the worker."
    )
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return NoAnswerError(
                node.name,
                "its certificate is not trusted, or it speaks no TLS",
                was_sent=False,
                next_step="Name the certificate authority as `ca` in the inventory's cluster, "
                "and see whether `rest` begins with https where Patroni has a certificate.",
            )
        case aiohttp.ConnectionTimeoutError():
            return NoAnswerError(node.name, "no connection in time", was_sent=False, next_step=look)
        case aiohttp.ClientConnectorError():
            return NoAnswerError(
                node.name, _no_connection(error.os_error), was_sent=False, next_step=look
            )
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return NoAnswerError(
                node.name,
                "its address cannot be understood",
                was_sent=False,
                next_step="Write `rest` in the inventory as http://10.0.0.1:8008.",
            )
        case TimeoutError():
            return NoAnswerError(node.name, "no answer in time", was_sent=True, next_step=look)
        case _:
            return NoAnswerError(
                node.name, "it hung up before its answer ended", was_sent=True, next_step=look
            )


def _no_connection(error: OSError) -> str:
    """Asyncio words its own failures by address; the system's number says more."""
    if error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()
    return (error.strerror or str(error) or "no connection").lower()
