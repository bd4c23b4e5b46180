"""The command line as people and scripts meet it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from approvals import audit
from approvals.words import BadInputError
from bot.cli.main import app
from store.connect import Store

ROOT = Path(__file__).parents[3]
TWOKEY = Path(sys.executable).with_name("twokey")


def twokey(*arguments: str, home: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it with nothing of this shell's settings."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("TWOKEY_", "SLACK_"))}
    if "TWOKEY_PG_BIN" in os.environ:
        kept["TWOKEY_PG_BIN"] = os.environ["TWOKEY_PG_BIN"]
    return subprocess.run(
        [TWOKEY, *arguments], cwd=home, capture_output=True, text=True, timeout=150, check=False,
        env={**kept, "TWOKEY_HOME": str(home / "home"), **environ},
    )  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        "", "serve", "bot", "worker", "doctor", "demo", "policy check", "policy test",
        "policy explain", "audit verify", "audit export", "store upgrade", "sandbox slack",
    ],
)  # fmt: skip
def test_every_command_has_help(words: str) -> None:
    shown = CliRunner().invoke(app, [*words.split(), "--help"])
    assert shown.exit_code == 0
    assert "Usage" in shown.output


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
    policy.write_text(
        "groups: {dba: S0DBA}\n"
        "rules: [{when: {operation: backup}, gates: [{id: dba, groups: [dba]}]}"
        ", {fallback: true, refuse: true}]"
    )
    runner = CliRunner()
    checked = runner.invoke(app, ["policy", "check", str(policy), "--json"])
    assert json.loads(checked.output)["ok"] is True
    for attribute, status in (("operation=backup", 0), ("operation=drop", 1)):
        done = runner.invoke(app, ["policy", "explain", attribute, "--policy", str(policy)])
        assert done.exit_code == status
    policy.write_text("rules: [{gates: [{id: dba, groups: [dba], approve: 0}]}]")
    assert isinstance(runner.invoke(app, ["policy", "check", str(policy)]).exception, BadInputError)


@pytest.mark.parametrize(
    ("edit", "status"),
    [("", 0), ("UPDATE", 1), ("DELETE", 1)],
)
async def test_an_exported_audit_is_checked_offline(
    store: Store, tmp_path: Path, edit: str, status: int
) -> None:
    async with store.begin() as conn:
        for number in range(3):
            await audit.append(
                conn, chain="orders", at=datetime.now(UTC), actor="ana", action=f"act {number}",
                detail={},
            )  # fmt: skip
        lines = [line async for line in audit.export(conn)]
        ends = [json.dumps(asdict(head)) for head in await audit.heads(conn)]
    match edit:
        case "UPDATE":
            lines[1] = lines[1].replace("act 1", "act 9")
        case "DELETE":
            del lines[2]
        case _:
            pass
    (tmp_path / "audit.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "heads.jsonl").write_text("\n".join(ends) + "\n")
    done = CliRunner().invoke(
        app,
        ["audit", "verify", str(tmp_path / "audit.jsonl"), "--heads",
         str(tmp_path / "heads.jsonl"), "--json"],
    )  # fmt: skip
    assert done.exit_code == status
    assert json.loads(done.output)["ok"] is (status == 0)


def test_the_doctor_says_what_to_mend_and_ends_with_1(tmp_path: Path) -> None:
    done = twokey("doctor", "--json", home=tmp_path)
    assert done.returncode == 1
    [finding] = json.loads(done.stdout)
    assert not finding["ok"]
    assert finding["fix"]


def test_the_embedded_store_is_made_used_again_and_left_stopped(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):  # as root: else it is put elsewhere
        if folder.stat().st_uid == os.getuid():
            folder.chmod(folder.stat().st_mode | 0o055)
    for _ in range(2):
        done = twokey("store", "upgrade", "--json", home=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["ok"] is True
    done = twokey("audit", "verify", "--json", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).items() >= {"ok": True, "entries": 0, "findings": []}.items()
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
    started.communicate(timeout=60)
    assert started.returncode == 0
    assert time.monotonic() - began < 50
