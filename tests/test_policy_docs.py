"""What docs/write-a-policy.md shows can be used, and it leaves out no word of the language."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from approvals.policy_file import parse_policy, read_document
from approvals.policy_models import (
    BoundModel,
    BreakGlassModel,
    DelegationModel,
    GateModel,
    PolicyModel,
    RuleModel,
)

PAGE = (Path(__file__).parents[1] / "docs" / "write-a-policy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
MODELS = (BoundModel, BreakGlassModel, DelegationModel, GateModel, PolicyModel, RuleModel)


def test_the_page_has_examples() -> None:
    assert len(BLOCKS) >= 9


@pytest.mark.parametrize("text", BLOCKS, ids=lambda text: text.splitlines()[0])
def test_every_example_is_a_policy(text: str) -> None:
    policy = parse_policy(read_document(text, name="the page"))
    assert policy.values.rules


def test_every_word_of_the_language_is_in_an_example() -> None:
    words = {field.alias or name for model in MODELS for name, field in model.model_fields.items()}
    shown = set(re.findall(r"[a-z_]+(?=:)", "\n".join(BLOCKS)))
    assert words - shown == {"gte", "lt"}
    assert "`gte`" in PAGE
    assert "`lt`" in PAGE
