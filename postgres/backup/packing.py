"""Make a folder one archive, without room for both at once."""

from __future__ import annotations

import os
import shutil
import tarfile
import threading
from pathlib import Path
from typing import BinaryIO, Final, cast

from postgres.backup.facts import FileFact
from postgres.backup.hashing import CHUNK_BYTES, keep_stream
from postgres.backup.sealing import Readable

_TAR: Final = tarfile.GNU_FORMAT  # the older one ends at 8 GB a file


def pack_folder(folder: Path, archive: Path, recipient: str | None) -> FileFact:
    """Make a folder one archive, through a pipe; each file goes as soon as it is packed."""
    reading, writing = os.pipe()
    errors: list[BaseException] = []

    def write() -> None:
        try:
            with (
                os.fdopen(writing, "wb") as pipe,
                tarfile.open(fileobj=pipe, mode="w|", format=_TAR, bufsize=CHUNK_BYTES) as tar,
            ):
                for path in sorted(folder.iterdir()):
                    tar.add(path, arcname=path.name, recursive=False)
                    path.unlink()
        except BaseException as error:  # noqa: BLE001  (raised again below)
            errors.append(error)

    thread = threading.Thread(target=write, name=f"pack {archive.name}", daemon=True)
    thread.start()
    try:
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            fact = keep_stream(cast("Readable", cast("BinaryIO", pipe)), archive, recipient)
    finally:
        thread.join()
    if errors:
        raise errors[0]
    shutil.rmtree(folder)
    return fact
