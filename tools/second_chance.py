"""Run the few tests again that failed beside others: `python -m tools.second_chance FILE`.

A machine that stalls for seconds breaks a wait now and then among thousands. What passes alone is
named, so that it gets mended, and does not hold up a change; what fails alone, or many, does.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

MOST: Final = 3  # more is no accident
SECONDS_MAX: Final = 900


def main(path: Path) -> int:
    """0 when everything that failed passes alone; else 1. A missing file: the run itself broke."""
    if not path.exists():
        return 1
    failed = path.read_text(encoding="utf-8").splitlines()
    if not 0 < len(failed) <= MOST:
        print(f"twokey: {len(failed)} tests failed: no second chance for so many.")
        return 1
    print(f"twokey: a second chance for {len(failed)} of the tests, each alone:", flush=True)
    broken = [each for each in failed if not _passes(each)]
    for each in failed:
        print(f"  {'FAILS AGAIN' if each in broken else 'UNSTEADY, passes alone'}: {each}")
    print(f"{len(failed) - len(broken)} passed, {len(broken)} failed")
    return 1 if broken else 0


def _passes(test: str) -> bool:
    command = [sys.executable, "-m", "pytest", "-n", "0", test]
    return subprocess.run(command, check=False, timeout=SECONDS_MAX).returncode == 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
