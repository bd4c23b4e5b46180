"""What a pgBackRest configuration leaves open that should be closed. Pure.

Only what decides about safety is looked at. Values are never repeated: there are keys among
them.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from typing import Final

from postgres.backup.engine import Finding

# A folder is as safe as the machine; these are in somebody else's hands.
_REMOTE: Final = ("s3", "azure", "gcs", "sftp")
_SECRETS: Final = (
    "repo1-cipher-pass",
    "repo1-s3-key-secret",
    "repo1-s3-token",
    "repo1-azure-key",
    "repo1-sftp-private-key-passphrase",
)
_NO: Final = ("n", "no", "false", "0")


def read_options(text: str, stanza: str) -> Mapping[str, str]:
    """The options that hold for a stanza; its own section wins over the common one."""
    sections: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            current = sections.setdefault(line[1:-1].strip(), {})
            continue
        name, _, value = line.partition("=")
        current[name.strip()] = value.strip()
    return {**sections.get("global", {}), **sections.get(stanza, {})}


def weaknesses(options: Mapping[str, str], mode: int) -> tuple[Finding, ...]:
    """What is not safe about the repository. `mode`: the permissions of the file."""
    found = []
    kind = options.get("repo1-type", "posix")
    if kind in _REMOTE and options.get("repo1-cipher-type", "none") == "none":
        found.append(
            Finding(
                problem=f"Backups go to {kind} storage, and pgBackRest does not encrypt them.",
                next_step="Set repo1-cipher-type=aes-256-cbc and repo1-cipher-pass, and make the "
                "stanza anew: a repository cannot be encrypted later.",
            )
        )
    if options.get("repo1-storage-verify-tls", "y").lower() in _NO:
        found.append(
            Finding(
                problem="pgBackRest does not check the certificate of its storage: anybody on the "
                "way can read and change what it sends.",
                next_step="Set repo1-storage-verify-tls=y, and name a private authority in "
                "repo1-storage-ca-file.",
            )
        )
    if mode & (stat.S_IROTH | stat.S_IWOTH) and any(name in options for name in _SECRETS):
        found.append(
            Finding(
                problem="Everybody on this machine can read the keys in pgBackRest's "
                "configuration.",
                next_step="Take the permission away: chmod o-rwx on that file.",
            )
        )
    return tuple(found)
