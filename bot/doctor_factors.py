"""The doctor's look at second factors: that those which rules demand are there, and open."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from approvals.compiling import PolicyError
from approvals.counting import count_text
from approvals.in_force import DistrustedPolicyError, Policies
from approvals.sealing import SecretBox
from bot.finding import Finding
from store.connect import Store

NAME: Final = "second factors"

SET_UP: Final = sa.text("SELECT secret FROM second_factors WHERE secret <> ''")


async def second_factors(policies: Policies, box: SecretBox, store: Store) -> Finding:
    """Whether the codes that the policy in force demands can be given."""
    async with store.begin() as conn:
        secrets = list((await conn.execute(SET_UP)).scalars())
    strange = sum(not box.knows(secret) for secret in secrets)
    if strange:
        return Finding(
            name=NAME,
            ok=False,
            says=f"{strange} of {len(secrets)} encrypted with a vote key that is not set here.",
            fix="Set TWOKEY_VOTE_KEY_PREVIOUS to that key, or take theirs away with twokey mfa "
            "reset and have them set up anew.",
        )
    asking = await _asking(policies)
    demand = f"{count_text(asking, 'rule')} demand{'s' if asking == 1 else ''} a code"
    if asking and not secrets:
        return Finding(
            name=NAME,
            ok=False,
            says=f"{demand}, and nobody has set up a second factor.",
            fix="Have those who approve set theirs up: /db mfa enroll",
        )
    return Finding(name=NAME, ok=True, says=f"{len(secrets)} set up; {demand}")


async def _asking(policies: Policies) -> int:
    """How many rules demand a code, of the policy in force or else of the file."""
    try:
        found = await policies.in_force()
        policy = found.policy if found else policies.proposed()
    except (DistrustedPolicyError, PolicyError):
        return 0  # which another finding says
    return sum(rule.step_up for rule in policy.values.rules)
