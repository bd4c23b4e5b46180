"""Whether the files that hold secrets are closed to others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from approvals.counting import count_text
from bot.finding import Finding
from bot.inventory import Inventory
from bot.redact import holds_secret
from bot.references import files_in, is_open_to_others
from bot.settings import Settings, known_names


def examine_secrets(
    settings: Settings, inventory: Inventory, environ: Mapping[str, str]
) -> list[Finding]:
    """One finding for all files, or one for each that others may use."""
    files = [*_files(settings, inventory, environ)]
    open_ones = sorted({path for path in files if is_open_to_others(path)})
    if not open_ones:
        return [Finding(name="secret files", ok=True, says=_counted(files))]
    return [
        Finding(
            name="secret files",
            ok=False,
            says=f"{path} holds a secret, and others on this host may use it.",
            fix=f"chmod 600 {path}, owned by the user that runs Twokey.",
        )
        for path in open_ones
    ]


def _files(settings: Settings, inventory: Inventory, environ: Mapping[str, str]) -> Iterable[Path]:
    """Those that a setting or the inventory refers to, what we keep, and a telling inventory."""
    yield from files_in(environ.get(name, "") for name in known_names())
    yield from inventory.secret_files
    kept = settings.home / "vote.key"
    if kept.exists():
        yield kept
    if holds_secret(inventory.path.read_text(encoding="utf-8")):
        yield inventory.path


def _counted(files: list[Path]) -> str:
    count = len(set(files))
    if not count:
        return "none: secrets come from the environment"
    return f"{count_text(count, 'file')}, closed to others"
