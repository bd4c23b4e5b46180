"""WAL files to keep: a header as PostgreSQL writes it, and the rest made up."""

from __future__ import annotations

import random
import struct
from pathlib import Path

SIZE = 1 << 20
SYSTEM = 7_123_456_789_012_345_678
HEADER = struct.Struct("=HHIQI4xQII")


def name_of(timeline: int, number: int) -> str:
    per_log = (1 << 32) // SIZE
    return f"{timeline:08X}{number // per_log:08X}{number % per_log:08X}"


def content(timeline: int, number: int, *, system: int = SYSTEM, seed: int = 0) -> bytes:
    """A segment of 1 MB; half of it is noise, as WAL is."""
    head = HEADER.pack(0xD110, 2, timeline, number * SIZE, 0, system, SIZE, 8192)
    noise = random.Random(f"{timeline}.{number}.{seed}").randbytes(SIZE // 2)  # noqa: S311
    return (head + noise).ljust(SIZE, b"\0")


def write(folder: Path, timeline: int, number: int, *, suffix: str = "", seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (name_of(timeline, number) + suffix)
    path.write_bytes(content(timeline, number, seed=seed))
    return path
