"""An operation is found by its file, and an incomplete one stops the start."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jobs.registry import load_operations

GOOD = """
from pydantic import BaseModel
from jobs.operation import Answer, Kind, Operation, Risk
class Params(BaseModel): pass
async def answer(context, params): return Answer(title="hello")
OPERATION = Operation(name="{name}", summary="s", kind=Kind.{kind}, risk=Risk.NONE,
                      params=Params, example="/db x", answer=answer)
"""


def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> str:
    name = f"operations_{tmp_path.name}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    for file, text in files.items():
        (folder / f"{file}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_every_operation_of_the_product_is_complete() -> None:
    found = load_operations("commands")
    assert {"backup", "backups", "verify"} <= set(found)
    assert list(found) == sorted(found)


def test_a_file_with_an_operation_is_found_and_a_helper_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = GOOD.format(name="hello", kind="QUERY")
    name = package(tmp_path, monkeypatch, hello=good, _helper="X = 1")
    assert list(load_operations(name)) == ["hello"]


@pytest.mark.parametrize(
    ("files", "flaw"),
    [
        ({"a": GOOD.format(name="x", kind="CHANGE")}, "a change needs plan= and run="),
        (
            {"a": GOOD.format(name="x", kind="QUERY"), "b": GOOD.format(name="x", kind="QUERY")},
            "there is an operation 'x' already",
        ),
        ({"a": "OPERATION = 1"}, "OPERATION is a int"),
    ],
)
def test_an_incomplete_operation_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], flaw: str
) -> None:
    with pytest.raises(TypeError, match=flaw):
        load_operations(package(tmp_path, monkeypatch, **files))
