"""Files encrypted with age: streaming, authenticated, and written without the key that reads.

Whoever has the recipient (a public key) can write; only the identity can read. A sealed file
is hashed as it is written, so that damage is found without any key; with it, age notices every
byte that was changed, left out or cut off.
"""

# pyrage is compiled and brings no types.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import hashlib
import io
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, cast

import pyrage
from pydantic import SecretStr

from postgres.backup.facts import FileFact
from postgres.errors import DamagedError, PostgresError

if TYPE_CHECKING:
    from hashlib import _Hash

    from typing_extensions import Buffer

SEALED: Final = ".age"
CHUNK_BYTES: Final = 1 << 18
_QUEUED_CHUNKS_MAX: Final = 16
_WAIT_SECONDS: Final = 0.2
_NO_KEY: Final = "No matching keys found"


class Readable(Protocol):
    """Anything that gives bytes, and none at its end."""

    def read(self, size: int = -1, /) -> bytes:
        """Some bytes."""
        ...


class WrongKeyError(PostgresError):
    """A sealed file does not open with this identity, or its head is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A key to read with and the one to write with that belongs to it."""

    identity: SecretStr
    recipient: str


def new_identity() -> KeyPair:
    """A new pair of keys. Whoever loses the identity loses every backup sealed for it."""
    made = pyrage.x25519.Identity.generate()
    return KeyPair(identity=SecretStr(str(made)), recipient=str(made.to_public()))


def recipient_of(identity: SecretStr) -> str:
    """The public key that belongs to an identity.

    Raises:
        PostgresError: this is no identity of age.
    """
    return str(_identity(identity).to_public())


def check_recipient(recipient: str) -> None:
    """Raise `PostgresError` for what is no recipient of age."""
    _recipient(recipient)


def seal_file(source: Path, goal: Path, recipient: str) -> FileFact:
    """Encrypt a file into another one, on disk when this returns; what was written.

    Raises:
        PostgresError: the recipient is none.
        OSError: the disk is full, or a file cannot be read.
    """
    with source.open("rb", buffering=0) as file:
        return seal_stream(cast("Readable", file), goal, recipient)


def seal_stream(source: Readable, goal: Path, recipient: str) -> FileFact:
    """Encrypt what a stream gives; as `seal_file`. An error of the stream comes out as it is."""
    key = _recipient(recipient)
    handle = os.open(goal, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb", buffering=0) as file:
        reading, writing = _Reading(source), _Hashing(cast("BinaryIO", file))
        with suppress(pyrage.EncryptError):
            pyrage.encrypt_io(reading, writing, [key])
            writing.whole = True
        # Also where age raised nothing: it does not tell of what its last write met.
        if error := reading.error or writing.error:
            raise error
        if not writing.whole:
            raise OSError(f"age gave up on {goal}")
        os.fsync(file.fileno())
    return FileFact(name=goal.name, size_bytes=writing.size_bytes, sha256=writing.hash.hexdigest())


def open_sealed(source: Path | Readable, identity: SecretStr, *, name: str = "") -> BinaryIO:
    """Read a sealed file as if it were not; close it, also when it was not read to its end.

    It never gives fewer bytes than were sealed: where they end too early, `read` raises. What
    it gave before is authentic. `name` is for errors, where `source` is no path.

    Raises:
        WrongKeyError: it was sealed for somebody else.
        DamagedError: here or from `read`: it is not what was written.
        OSError: it cannot be read.
    """
    key = _identity(identity)
    if isinstance(source, Path):
        opened = source.open("rb", buffering=0)
        pump = _Pump(cast("Readable", opened), name or source.name, key, opened.close)
    else:
        pump = _Pump(source, name, key, lambda: None)
    reader = _Unsealing(pump)
    try:
        reader.begin()
    except BaseException:
        reader.close()
        raise
    return cast("BinaryIO", reader)


def no_identity(name: str) -> WrongKeyError:
    """The error for something sealed where no key to read with was configured."""
    return WrongKeyError(
        f"{name} is encrypted, and Twokey has no identity to open it with.",
        next_step="Set encryption.identity of the inventory, where backups are restored, to a"
        " reference to the key that belongs to the recipient.",
    )


def _recipient(text: str) -> pyrage.x25519.Recipient:
    try:
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        raise PostgresError(
            f"{text} is no age recipient: {error}.",
            next_step="Write the line that starts with `age1` of `age-keygen`'s output into"
            " encryption.recipient of the inventory.",
        ) from error


def _identity(secret: SecretStr) -> pyrage.x25519.Identity:
    lines = [line.strip() for line in secret.get_secret_value().splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    try:
        (text,) = keys
        return pyrage.x25519.Identity.from_str(text)
    except (ValueError, pyrage.IdentityError):
        raise PostgresError(
            "The identity that opens encrypted backups is no age identity.",
            next_step="encryption.identity of the inventory must lead to one line that starts"
            " with AGE-SECRET-KEY-1, as `age-keygen` writes it.",
        ) from None


@dataclass(slots=True)
class _Reading:
    """A stream whose error is kept, as age gives it back as a text."""

    source: Readable
    error: BaseException | None = None

    def read(self, size: int = CHUNK_BYTES) -> bytes:
        try:
            return self.source.read(size)
        except BaseException as error:
            self.error = error
            raise


@dataclass(slots=True)
class _Hashing:
    """A file that is hashed as it is written."""

    file: BinaryIO
    hash: _Hash = field(default_factory=hashlib.sha256)
    size_bytes: int = 0
    error: OSError | None = None
    whole: bool = False

    def write(self, chunk: bytes) -> int:
        left = memoryview(chunk)
        try:
            while left:
                left = left[self.file.write(left) :]
        except OSError as error:
            self.error = error
            raise
        self.hash.update(chunk)
        self.size_bytes += len(chunk)
        return len(chunk)

    def flush(self) -> None:
        return


class _StoppedError(Exception):
    """The reader was closed."""


@dataclass(slots=True)
class _Pump:
    """Decrypts in a thread of its own into a queue of bounded length; b"" is the end."""

    source: Readable
    name: str
    key: pyrage.x25519.Identity
    close: Callable[[], None]
    chunks: queue.Queue[bytes] = field(default_factory=lambda: queue.Queue(_QUEUED_CHUNKS_MAX))
    stopped: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None
    _gathered: bytearray = field(default_factory=bytearray)

    def run(self) -> None:
        reading = _Reading(self.source)
        try:
            pyrage.decrypt_io(reading, self, [self.key])
            self._hand_on()
        except _StoppedError:
            return
        except pyrage.DecryptError as error:
            self.error = reading.error or self._refused(error)
        except OSError as error:  # the stream's own, or age's for a chunk that is not authentic
            self.error = reading.error or DamagedError(f"{self.name} is not authentic: {error}")
        except BaseException as error:  # noqa: BLE001  (raised again in the reading thread)
            self.error = error
        finally:
            self.close()
        with suppress(_StoppedError):
            self._put(b"")

    def write(self, chunk: bytes) -> int:
        """Called by age, with 8 kB at a time."""
        self._gathered += chunk
        if len(self._gathered) >= CHUNK_BYTES:
            self._hand_on()
        return len(chunk)

    def flush(self) -> None:
        return

    def _hand_on(self) -> None:
        if self._gathered:
            chunk, self._gathered = bytes(self._gathered), bytearray()
            self._put(chunk)

    def _put(self, chunk: bytes) -> None:
        while not self.stopped.is_set():
            try:
                self.chunks.put(chunk, timeout=_WAIT_SECONDS)
            except queue.Full:
                continue
            return
        raise _StoppedError

    def _refused(self, error: Exception) -> Exception:
        if _NO_KEY not in str(error):
            return DamagedError(f"{self.name} is no file that age can open: {error}")
        return WrongKeyError(
            f"{self.name} does not open with the identity that Twokey has: it was encrypted for"
            " another one.",
            next_step="Point encryption.identity of the inventory at the key that belongs to the"
            " recipient of that time.",
        )


class _Unsealing(io.RawIOBase):
    """The reading end of a pump."""

    def __init__(self, pump: _Pump) -> None:
        super().__init__()
        self._pump = pump
        self._left = memoryview(b"")
        self._ended = False
        self._thread = threading.Thread(target=pump.run, name=f"open {pump.name}", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Wait for the first bytes, so that a wrong key shows at once."""
        self._fill()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        goal = memoryview(buffer).cast("B")
        if not self._left and not self._ended:
            self._fill()
        if self._ended and self._pump.error:
            raise self._pump.error
        part = self._left[: len(goal)]
        goal[: len(part)] = part
        self._left = self._left[len(part) :]
        return len(part)

    def close(self) -> None:
        if not self.closed:
            self._pump.stopped.set()
            self._thread.join()
        super().close()

    def _fill(self) -> None:
        chunk = self._pump.chunks.get()
        if chunk:
            self._left = memoryview(chunk)
            return
        self._ended = True
        if self._pump.error:
            raise self._pump.error
