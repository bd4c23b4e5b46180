"""The command line as people and scripts meet it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TWOKEY = Path(sys.executable).with_name("twokey")


def twokey(*arguments: str, home: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it with nothing of this shell's settings."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("TWOKEY_", "SLACK_"))}
    if "TWOKEY_PG_BIN" in os.environ:
        kept["TWOKEY_PG_BIN"] = os.environ["TWOKEY_PG_BIN"]
    return subprocess.run(
        [TWOKEY, *arguments], cwd=home, capture_output=True, text=True, timeout=50, check=False,
        env={**kept, "TWOKEY_HOME": str(home / "home"), **environ},
    )  # fmt: skip


def test_every_command_has_help(tmp_path: Path) -> None:
    for words in (
        [], ["serve"], ["bot"], ["worker"], ["doctor"], ["demo"], ["policy", "check"],
        ["policy", "test"], ["policy", "explain"], ["audit", "verify"], ["audit", "export"],
        ["store", "upgrade"], ["sandbox", "slack"],
    ):  # fmt: skip
        assert twokey(*words, "--help", home=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["policy", "check", "none.yml"], 2, "none.yml"),
        (["policy", "explain", "nonsense"], 2, "twokey.yml"),
        (["serve"], 2, "twokey.example.yml"),
        (["policy", "test"], 2, ""),
        (["nonsense"], 2, ""),
        (["audit", "verify", "none.jsonl"], 2, "none.jsonl"),
        (["sandbox", "slack", "--manifest", "none.yml"], 2, "none.yml"),
    ],
)
def test_bad_input_ends_with_2_and_says_what_to_do(
    tmp_path: Path, arguments: list[str], status: int, says: str
) -> None:
    done = twokey(*arguments, home=tmp_path)
    assert done.returncode == status
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_misspelt_setting_stops_the_start(tmp_path: Path) -> None:
    done = twokey("serve", home=tmp_path, TWOKEY_STOER="x")
    assert done.returncode == 2
    assert "TWOKEY_STORE" in done.stderr


def test_policies_are_checked_and_explained(tmp_path: Path) -> None:
    policy = tmp_path / "p.yml"
    policy.write_text("rules: [{when: {operation: backup}, gates: [{id: dba, groups: [dba]}]}]")
    checked = twokey("policy", "check", "p.yml", "--json", home=tmp_path)
    assert json.loads(checked.stdout)["ok"] is True
    for attributes, status in ((["operation=backup"], 0), (["operation=drop"], 1)):
        done = twokey("policy", "explain", *attributes, "--policy", "p.yml", home=tmp_path)
        assert done.returncode == status
    policy.write_text("rules: [{gates: [{id: dba, groups: [dba], approve: 0}]}]")
    assert twokey("policy", "check", "p.yml", home=tmp_path).returncode == 2


def test_the_doctor_says_what_to_mend_and_ends_with_1(tmp_path: Path) -> None:
    done = twokey("doctor", "--json", home=tmp_path)
    assert done.returncode == 1
    [finding] = json.loads(done.stdout)
    assert not finding["ok"]
    assert finding["fix"]


def test_the_embedded_store_is_made_used_again_and_left_stopped(tmp_path: Path) -> None:
    for _ in range(2):
        done = twokey("store", "upgrade", "--json", home=tmp_path)
        assert (done.returncode, json.loads(done.stdout)["ok"]) == (0, True), done.stderr
    done = twokey("audit", "verify", "--json", home=tmp_path)
    assert json.loads(done.stdout) == {"ok": True, "entries": 0, "findings": []}
    assert not list((tmp_path / "home").rglob("postmaster.pid"))


def test_the_stand_in_runs_alone_and_ends_at_a_signal(tmp_path: Path) -> None:
    started = subprocess.Popen(
        [TWOKEY, "sandbox", "slack", "--manifest", str(ROOT / "manifest.yml")],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert started.stdout is not None
    assert "http://127.0.0.1:" in started.stdout.readline()
    started.send_signal(signal.SIGTERM)
    began = time.monotonic()
    started.communicate(timeout=20)
    assert started.returncode == 0
    assert time.monotonic() - began < 15
