"""The file of anchors: it only grows, and nothing is put on top of what is not in order."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from approvals import anchor_file
from approvals.anchor_file import AnchorFileError, Attribute, append_anchor, attribute_of, read_file
from approvals.chain import Head

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HEADS = [Head(chain="orders", seq=3, hash="a" * 64)]


def a_file(folder: Path, days: int = 3) -> Path:
    path = folder / "anchors"
    for day in range(days):
        assert append_anchor(path, HEADS, at=NOON + timedelta(days=day)) is not None
    return path


def test_each_anchor_is_a_line_that_follows_the_one_before(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    kept = read_file(path)
    assert kept is not None
    assert (kept.count, kept.problems) == (3, [])
    assert path.read_text().count("\n") == 3
    assert stat.S_IMODE(path.stat().st_mode) & 0o026 == 0


def test_what_is_there_is_never_rewritten(tmp_path: Path) -> None:
    path = a_file(tmp_path, 1)
    before, inode = path.read_text(), path.stat().st_ino
    append_anchor(path, HEADS, at=NOON + timedelta(days=9))
    assert path.read_text().startswith(before)
    assert path.stat().st_ino == inode


def test_one_moment_is_anchored_once(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    assert append_anchor(path, HEADS, at=NOON + timedelta(days=2)) is None
    assert append_anchor(path, HEADS, at=NOON) is None


def test_processes_of_one_host_that_append_at_once_keep_it_in_order(tmp_path: Path) -> None:
    path = tmp_path / "anchors"
    moments = [NOON + timedelta(days=number // 4) for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda at: append_anchor(path, HEADS, at=at), moments))
    kept = read_file(path)
    assert kept is not None
    assert kept.problems == []
    assert kept.newest_at == moments[-1]
    assert kept.count <= 10


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"seq":3', '"seq":2', 1),
        lambda text: "".join(text.splitlines(keepends=True)[1:]),
        lambda text: "".join(text.splitlines(keepends=True)[::2]),
        lambda text: text[:-30],
        lambda text: text[:-1],
        lambda text: text + "a note\n",
        lambda text: "nonsense\n",
    ],
)
def test_nothing_is_appended_to_a_file_that_is_not_in_order(tmp_path: Path, damage: object) -> None:
    path = a_file(tmp_path)
    path.write_text(damage(path.read_text()))  # type: ignore[operator]
    before = path.read_bytes()
    with pytest.raises(AnchorFileError) as refused:
        append_anchor(path, HEADS, at=NOON + timedelta(days=9))
    assert "move it aside" in refused.value.next_step
    assert path.read_bytes() == before


def test_a_link_or_a_missing_folder_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "link", tmp_path / "none" / "anchors", tmp_path):
        with pytest.raises(AnchorFileError, match="cannot be appended to"):
            append_anchor(path, HEADS, at=NOON)
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_another_process_holds_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_file(tmp_path)
    monkeypatch.setattr(anchor_file, "LOCK_SECONDS_MAX", 0.1)
    holder = os.open(path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(AnchorFileError, match="Another process holds"):
        append_anchor(path, HEADS, at=NOON + timedelta(days=9))
    os.close(holder)


def test_a_disk_that_is_full_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = a_file(tmp_path)
    monkeypatch.setattr(os, "write", lambda descriptor, line: len(line) - 5)
    with pytest.raises(AnchorFileError, match="Only a part"):
        append_anchor(path, HEADS, at=NOON + timedelta(days=9))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AnchorFileError, match="No space left"):
        append_anchor(path, HEADS, at=NOON + timedelta(days=10))


def test_the_attribute_is_what_lsattr_shows(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    assert attribute_of(path) in {Attribute.PLAIN, Attribute.UNKNOWN}
    assert attribute_of(tmp_path / "none") is Attribute.UNKNOWN
    done = subprocess.run(  # noqa: S602 - where it is allowed and there is such a thing
        f"chattr +a {path}", shell=True, capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("chattr +a is not possible here")
    try:
        assert attribute_of(path) is Attribute.APPEND_ONLY
        assert append_anchor(path, HEADS, at=NOON + timedelta(days=9)) is not None
        with pytest.raises(PermissionError):
            path.write_text("")
    finally:
        subprocess.run(["chattr", "-a", str(path)], check=True)  # noqa: S607
