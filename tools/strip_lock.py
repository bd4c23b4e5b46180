"""Take the addresses out of uv.lock: names, versions and hashes stay.

uv writes into the lock where each file came from. Ours is installed from whatever
index the machine is set up for, so that it works behind a company's mirror, and
the hashes decide whether a file is the right one. Run by `make lock`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def strip(lock: str) -> str:
    """The lock with file names in place of URLs; hashes, sizes and markers untouched."""
    lock = re.sub(r'url = "[^"]*/([^/"]+)"', r'filename = "\1"', lock)
    return re.sub(r'registry = "[^"]*"', 'registry = "https://index.invalid/simple"', lock)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(strip(path.read_text(encoding="utf-8")), encoding="utf-8")
