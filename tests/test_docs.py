"""What is written down is true of the code."""

from __future__ import annotations

import re
import shlex
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from bot.cli.main import app
from tools.generate_docs import pages
from tools.strip_lock import strip

ROOT = Path(__file__).parents[1]
OURS = {"approvals", "bot", "commands", "jobs", "postgres", "sandbox", "store"}
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.name)
def test_a_generated_page_is_up_to_date(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == pages()[page], "run `make docs`"


def test_every_link_between_our_pages_leads_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {goal}"
        for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        for goal in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
        if not (page.parent / goal).exists()
    ]
    assert broken == []


def test_every_command_in_the_readme_exists() -> None:
    targets = set(
        re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    )
    for target in re.findall(r"^make ([a-z]+)", README, flags=re.MULTILINE):
        assert target in targets
    for line in re.findall(r"^\.venv/bin/twokey (.+)$", README, flags=re.MULTILINE):
        command: object = typer.main.get_group(app)
        for word in shlex.split(line, comments=True):
            if not isinstance(command, TyperGroup):
                break
            command = command.get_command(typer.Context(command), word)
            assert command is not None, line


def test_the_readme_says_how_to_try_and_how_to_test() -> None:
    assert "make demo\n" in README
    assert "make test\n" in README
    assert "make demo ARGS=--tour\n" in README


def test_no_other_distribution_ships_a_package_of_our_name() -> None:
    clashes = {
        (dist.name, str(file))
        for dist in distributions()
        if dist.name != "twokey"
        for file in dist.files or ()
        if file.parts[0] in OURS
    }
    assert clashes == set()


def test_the_lock_names_no_address_and_keeps_its_hashes() -> None:
    text = (ROOT / "uv.lock").read_text(encoding="utf-8")
    assert strip(text) == text
    assert set(re.findall(r"https?://([^/\"]+)", text)) == {"index.invalid"}
    packages = tomllib.loads(text)["package"]
    files = [wheel for package in packages for wheel in package.get("wheels", ())]
    assert files
    assert all(wheel["hash"].startswith("sha256:") for wheel in files)


def test_the_project_is_never_uploaded() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "Private :: Do Not Upload" in project["classifiers"]
