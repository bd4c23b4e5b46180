"""Encrypted files: written with a public key, read with the other one, and never cut short."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from postgres.backup.sealing import (
    CHUNK_BYTES,
    WrongKeyError,
    check_recipient,
    new_identity,
    open_sealed,
    recipient_of,
    seal_file,
    seal_stream,
)
from postgres.errors import DamagedError, PostgresError

KEYS = new_identity()
# Nothing, less than one of age's chunks, exactly some of them, and more than are queued.
SIZES = (0, 1, 65536, 3 * 65536, 24 * CHUNK_BYTES + 7)


@pytest.fixture
def sealed(tmp_path: Path) -> Callable[[int], tuple[bytes, Path]]:
    def make(size_bytes: int) -> tuple[bytes, Path]:
        plain = os.urandom(size_bytes)
        (tmp_path / "plain").write_bytes(plain)
        seal_file(tmp_path / "plain", tmp_path / "plain.age", KEYS.recipient)
        return plain, tmp_path / "plain.age"

    return make


@pytest.mark.parametrize("size_bytes", SIZES)
def test_what_was_sealed_comes_back(
    sealed: Callable[[int], tuple[bytes, Path]], size_bytes: int
) -> None:
    plain, path = sealed(size_bytes)
    with open_sealed(path, KEYS.identity) as reader:
        assert reader.read() == plain
    if size_bytes > 100:
        assert plain[:100] not in path.read_bytes()


def test_the_facts_are_those_of_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"orders" * 100_000)
    fact = seal_file(tmp_path / "plain", tmp_path / "out.age", KEYS.recipient)
    written = (tmp_path / "out.age").read_bytes()
    assert (fact.name, fact.size_bytes) == ("out.age", len(written))
    assert fact.sha256 == hashlib.sha256(written).hexdigest()
    assert (tmp_path / "out.age").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("at", [0, 70, 150, 500, 100_000, -1])
def test_a_flipped_byte_is_never_read_as_if_it_were_whole(
    sealed: Callable[[int], tuple[bytes, Path]], at: int
) -> None:
    plain, path = sealed(200_000)
    damaged = bytearray(path.read_bytes())
    damaged[at] ^= 1
    path.write_bytes(damaged)
    with pytest.raises((DamagedError, WrongKeyError)), open_sealed(path, KEYS.identity) as reader:
        reader.read()
    assert plain


@pytest.mark.parametrize("left", [0, 50, 150, 200, 65_000, 65_752, 131_304, -1])
def test_a_file_that_ends_too_early_is_damaged_and_not_short(
    sealed: Callable[[int], tuple[bytes, Path]], left: int
) -> None:
    _, path = sealed(5 * 65_536)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(DamagedError), open_sealed(path, KEYS.identity) as reader:
        reader.read()


@pytest.mark.parametrize("chunks", [1, 2, 5])
def test_a_cut_between_two_chunks_is_seen(
    sealed: Callable[[int], tuple[bytes, Path]], chunks: int
) -> None:
    # Of age's format: a head of its own length, then chunks of 64 kB and a tag of 16 bytes each.
    plain, path = sealed(5 * 65_536)
    whole = path.read_bytes()
    head = len(whole) - len(plain) - 5 * 16
    path.write_bytes(whole[: head + (5 - chunks) * (65_536 + 16)])
    with pytest.raises(DamagedError), open_sealed(path, KEYS.identity) as reader:
        reader.read()


def test_another_ones_key_opens_nothing_and_says_so(
    sealed: Callable[[int], tuple[bytes, Path]],
) -> None:
    _, path = sealed(1000)
    with pytest.raises(WrongKeyError, match="encrypted for another one") as refusal:
        open_sealed(path, new_identity().identity)
    assert "recipient" in refusal.value.next_step


def test_a_reader_that_is_closed_early_leaves_no_thread(
    sealed: Callable[[int], tuple[bytes, Path]],
) -> None:
    plain, path = sealed(40 * CHUNK_BYTES)
    with open_sealed(path, KEYS.identity) as reader:
        assert reader.read(10) == plain[:10]
    assert not [thread for thread in threading.enumerate() if path.name in thread.name]


class _Breaks:
    def read(self, size: int = -1, /) -> bytes:
        raise OSError(5, "Input/output error", str(size))


def test_an_error_of_the_disk_stays_one(
    tmp_path: Path, sealed: Callable[[int], tuple[bytes, Path]]
) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        seal_stream(_Breaks(), tmp_path / "out.age", KEYS.recipient)
    with pytest.raises(OSError, match="Input/output error"):
        open_sealed(_Breaks(), KEYS.identity)
    sealed(1000)
    with (
        (tmp_path / "plain").open("rb") as file,
        pytest.raises(OSError, match="No space left on device"),
    ):
        seal_stream(file, Path("/dev/full"), KEYS.recipient)


def test_keys_that_are_none_are_refused_without_showing_them() -> None:
    with pytest.raises(PostgresError, match="no age recipient"):
        check_recipient("age1xxxxxxxxxxxxxxxxxxxxxxxx")
    with pytest.raises(PostgresError, match="no age identity") as refusal:
        recipient_of(SecretStr("AGE-SECRET-KEY-1OOPS"))
    assert "OOPS" not in str(refusal.value)


def test_an_identity_is_read_as_age_keygen_writes_it() -> None:
    text = f"# created: today\n# public key: {KEYS.recipient}\n{KEYS.identity.get_secret_value()}\n"
    assert recipient_of(SecretStr(text)) == KEYS.recipient
