"""What waits in PgBouncer, as its admin console says it.

The console speaks PostgreSQL's simple query protocol and nothing else, which asyncpg uses for no
statement that returns rows. So this is a client for exactly one statement, `SHOW POOLS`, with the
ways to log in that PgBouncer knows: none, a password in the clear, MD5, SCRAM-SHA-256.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import ssl
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from pydantic import SecretStr

from postgres.dsn import Target, parse_dsn
from postgres.errors import PostgresError

SECONDS_MAX: Final = 5.0
_MESSAGE_BYTES_MAX: Final = 4_000_000
_MESSAGES_MAX: Final = 20_000
_POOLS_MAX: Final = 20
_LENGTH_BYTES: Final = 4  # of a message, and part of it
_ROUNDS_MAX: Final = 1_000_000
_PROTOCOL: Final = 196608
_TLS: Final = 80877103
_CONSOLE: Final = "pgbouncer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Clients of one pool; the first of those that wait has waited for `wait_s` seconds."""

    database: str
    user: str
    active: int
    waiting: int
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pools:
    """Clients of all pools, and the fullest of these."""

    waiting: int
    active: int
    wait_s: float
    pools: tuple[Pool, ...]

    def told(self) -> Mapping[str, Any]:
        """As `detail` has it."""
        return asdict(self) | {"pools": [asdict(pool) for pool in self.pools]}


async def waiting_pools(dsn: SecretStr) -> Pools:
    """What waits now.

    Raises:
        PostgresError: the console cannot be reached, refuses us or is no such console.
    """
    target = parse_dsn(dsn.get_secret_value())
    try:
        async with asyncio.timeout(SECONDS_MAX):
            return pools_of(*await simple_query(target, "SHOW POOLS"))
    except (struct.error, ValueError, IndexError) as error:
        raise _odd("it does not speak PostgreSQL's protocol") from error
    except (OSError, TimeoutError) as error:
        raise _odd(str(error).splitlines()[0] if str(error) else "no answer in time") from error


def _odd(said: str) -> PostgresError:
    return PostgresError(
        f"PgBouncer's console says nothing of use: {said}.",
        next_step="See whether pgbouncer runs, and whether this user is in its stats_users.",
    )


def pools_of(names: Sequence[str], rows: Sequence[Sequence[str | None]]) -> Pools:
    """What `SHOW POOLS` says; the console's own pool does not count.

    Raises:
        PostgresError: this is not what `SHOW POOLS` answers.
    """
    try:
        found = [_pool(dict(zip(names, row, strict=True))) for row in rows]
    except (KeyError, ValueError) as error:
        raise _odd(f"its answer is not understood ({error})") from error
    pools = [pool for pool in found if pool.database != _CONSOLE]
    return Pools(
        waiting=sum(pool.waiting for pool in pools),
        active=sum(pool.active for pool in pools),
        wait_s=max((pool.wait_s for pool in pools), default=0.0),
        pools=tuple(sorted(pools, key=lambda p: (-p.waiting, -p.active))[:_POOLS_MAX]),
    )


def _pool(row: Mapping[str, str | None]) -> Pool:
    return Pool(
        database=row["database"] or "",
        user=row["user"] or "",
        active=int(row["cl_active"] or 0),
        waiting=int(row["cl_waiting"] or 0),
        wait_s=int(row["maxwait"] or 0) + int(row.get("maxwait_us") or 0) / 1e6,
    )


async def simple_query(
    target: Target, query: str
) -> tuple[Sequence[str], Sequence[Sequence[str | None]]]:
    """Column names and rows as text, over a connection of its own.

    Raises:
        PostgresError: it refused, or spoke something else.
        OSError: no connection.
    """
    reader, writer = await _connect(target)
    try:
        wire = _Wire(reader, writer)
        await _log_in(wire, target)
        wire.send(b"Q", query.encode() + b"\0")
        answer = await _rows(wire)
        wire.send(b"X", b"")
        return answer
    finally:
        writer.close()


async def _connect(target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = target.words.get("host", "localhost"), target.words.get("port", "6432")
    mode = target.words.get("sslmode", "prefer")
    if host.startswith("/"):
        return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
    reader, writer = await asyncio.open_connection(host, int(port))
    if mode in ("disable", "allow"):
        return reader, writer
    writer.write(struct.pack("!ii", 8, _TLS))
    if await reader.readexactly(1) == b"S":
        await writer.start_tls(_tls(target, mode), server_hostname=host)
    elif mode != "prefer":
        writer.close()
        raise _odd(f"it offers no TLS, and sslmode is {mode}")
    return reader, writer


def _tls(target: Target, mode: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=target.words.get("sslrootcert"))
    context.check_hostname = mode == "verify-full"
    if mode not in ("verify-ca", "verify-full"):
        context.verify_mode = ssl.CERT_NONE  # as libpq does: encrypted, not authenticated
    return context


class _Wire:
    """Messages of the protocol: a kind of one byte, a length, a body."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, kind: bytes, body: bytes) -> None:
        self._writer.write(kind + struct.pack("!i", len(body) + _LENGTH_BYTES) + body)

    async def receive(self) -> tuple[bytes, bytes]:
        """The next one that is no notice and no setting."""
        for _ in range(_MESSAGES_MAX):
            try:
                kind = await self._reader.readexactly(1)
                (length,) = struct.unpack("!i", await self._reader.readexactly(_LENGTH_BYTES))
                if not _LENGTH_BYTES <= length <= _MESSAGE_BYTES_MAX:
                    raise _odd("it does not speak PostgreSQL's protocol")
                body = await self._reader.readexactly(length - _LENGTH_BYTES)
            except asyncio.IncompleteReadError as error:
                raise _odd("it closed the connection") from error
            if kind == b"E":
                raise _odd(_error_text(body))
            if kind not in b"NSK":
                return kind, body
        raise _odd("it does not come to an end")


def _error_text(body: bytes) -> str:
    fields = [part for part in body.split(b"\0") if part.startswith(b"M")]
    return fields[0][1:].decode(errors="replace")[:200] if fields else "it refused"


async def _log_in(wire: _Wire, target: Target) -> None:
    user = target.words.get("user", "pgbouncer")
    password = target.words.get("password", "")
    database = target.words.get("dbname", _CONSOLE)
    words = b"\0".join(
        (b"user", user.encode(), b"database", database.encode(),
         b"application_name", b"twokey-monitor")
    )  # fmt: skip
    wire.send(b"", struct.pack("!i", _PROTOCOL) + words + b"\0\0")
    scram: _Scram | None = None
    while True:
        kind, body = await wire.receive()
        if kind == b"Z":
            return
        if kind != b"R":
            raise _odd("it answers a login with something else")
        (method,) = struct.unpack("!i", body[:4])
        match method:
            case 0:
                continue
            case 3:
                wire.send(b"p", password.encode() + b"\0")
            case 5:
                wire.send(b"p", _md5(user, password, body[4:8]) + b"\0")
            case 10:
                scram = _Scram(password)
                first = scram.first()
                wire.send(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first)
            case 11 if scram:
                wire.send(b"p", scram.answer(body[4:]))
            case 12 if scram:
                scram.check(body[4:])
            case _:
                raise _odd(f"it wants a way to log in that is not known ({method})")


def _md5(user: str, password: str, salt: bytes) -> bytes:
    inner = hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest()
    outer = hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest()
    return b"md5" + outer.encode()


class _Scram:
    """SCRAM-SHA-256 of RFC 5802 and 7677, without channel binding."""

    def __init__(self, password: str) -> None:
        self._password = password.encode()
        self._nonce = base64.b64encode(secrets.token_bytes(18)).decode()
        self._expected = b""

    def first(self) -> bytes:
        return f"n,,n=,r={self._nonce}".encode()

    def answer(self, challenge: bytes) -> bytes:
        words = _scram_words(challenge)
        try:
            nonce, salt, rounds = words["r"], base64.b64decode(words["s"]), int(words["i"])
        except (KeyError, ValueError) as error:
            raise _odd("its SCRAM challenge is not understood") from error
        if not nonce.startswith(self._nonce) or not 1 <= rounds <= _ROUNDS_MAX:
            raise _odd("its SCRAM challenge is not an answer to ours")
        salted = hashlib.pbkdf2_hmac("sha256", self._password, salt, rounds)
        final = f"c=biws,r={nonce}"
        signed = f"n=,r={self._nonce},{challenge.decode()},{final}".encode()
        key = _hmac(salted, b"Client Key")
        signature = _hmac(hashlib.sha256(key).digest(), signed)
        self._expected = _hmac(_hmac(salted, b"Server Key"), signed)
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        return f"{final},p={base64.b64encode(proof).decode()}".encode()

    def check(self, final: bytes) -> None:
        said = base64.b64decode(_scram_words(final).get("v", ""))
        if not self._expected or not hmac.compare_digest(said, self._expected):
            raise _odd("it does not know the password itself: this is another server")


def _scram_words(message: bytes) -> Mapping[str, str]:
    return {part[:1]: part[2:] for part in message.decode(errors="replace").split(",")}


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


async def _rows(wire: _Wire) -> tuple[Sequence[str], Sequence[Sequence[str | None]]]:
    names: list[str] = []
    rows: list[Sequence[str | None]] = []
    for _ in range(_MESSAGES_MAX):
        kind, body = await wire.receive()
        match kind:
            case b"T":
                names = _column_names(body)
            case b"D":
                rows.append(_row(body))
            case b"C":
                continue
            case b"Z":
                return names, rows
            case _:
                raise _odd("it answers with something else than rows")
    raise _odd("its answer does not come to an end")


def _column_names(body: bytes) -> list[str]:
    (count,) = struct.unpack_from("!h", body)
    names, at = [], 2
    for _ in range(count):
        end = body.index(b"\0", at)
        names.append(body[at:end].decode(errors="replace"))
        at = end + 19  # oid, number, type, size, modifier, format
    return names


def _row(body: bytes) -> Sequence[str | None]:
    (count,) = struct.unpack_from("!h", body)
    values: list[str | None] = []
    at = 2
    for _ in range(count):
        (length,) = struct.unpack_from("!i", body, at)
        at += 4
        values.append(None if length < 0 else body[at : at + length].decode(errors="replace"))
        at += max(length, 0)
    return values
