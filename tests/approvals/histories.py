"""Random histories in the words of the scenario format: policies, people, and what happens.

Weighted so that deep states are reached: most of what happens is what people really do.
"""

from __future__ import annotations

from random import Random
from typing import Any

Dict = dict[str, Any]

PEOPLE = ("ana", "bo", "cy", "di", "eli", "flo", "gus", "hal")
GROUPS = ("dba", "sec", "oncall", "boss")
REQUESTS = ("r1", "r2", "r3")
PLANS = ("h1", "h2", "h3")


def history(seed: int, *, length: int = 25) -> tuple[Dict, list[Dict]]:
    """A policy with its people, and what happens under it; the same for the same seed."""
    random = Random(seed)  # noqa: S311 - no secret
    hectic = seed % 2 == 1
    policy = a_policy(random)
    policy["people"] = {name: _person(random) for name in PEOPLE}
    clock, events = 0, []
    asked: list[str] = []
    for number in range(length):
        # What begins and ends at a round moment is met at it, too.
        clock += random.choice((0, 30, 30, 60) if hectic else (0, 1, 1, 5, 30, 120))
        event = _event(random, asked, policy, hectic=hectic)
        if event["do"] == "request":
            asked.append(event["req"])
        events.append({"t": clock, **event})
        if number % 9 == 8 and not hectic:
            clock += random.choice((0, 300, 900))
    return policy, events


def a_policy(random: Random) -> Dict:
    """Some rules, or one; gates of one or two groups, and what may go with them."""
    policy: Dict = {}
    if random.random() < 0.5:
        policy["rules"] = [
            {"when": {"env": "prod"}, **_rule(random)},
            {"when": {"size": {"gt": 5}}, **_rule(random)},
            {"when": {"env": "lab"}, "gates": []},
        ]
        if random.random() < 0.5:
            policy["rules"].append({"fallback": True, **_rule(random)})
    else:
        policy |= _rule(random)
    if random.random() < 0.4:
        policy["delegations"] = [_delegation(random) for _ in range(random.choice((1, 2, 3)))]
    if random.random() < 0.2:
        policy["policy_four_eyes"] = True
    return policy


def _delegation(random: Random) -> Dict:
    absent, stand_in = random.sample(PEOPLE, 2)
    start = random.choice((0, 0, 60))
    end = start + random.choice((60, 120, 240, 400))
    return {"from": absent, "to": stand_in, "from_t": start, "to_t": end}


def _rule(random: Random) -> Dict:
    count = random.choice((1, 1, 2, 2, 3))
    gates = [_gate(random, f"g{number}") for number in range(count)]
    rule: Dict = {"gates": gates}
    names = [gate["id"] for gate in gates]
    if random.random() < 0.3:
        rule["ordered"] = True
    elif count > 1 and random.random() < 0.4:
        rule["require"] = random.choice(
            (
                {"any": names},
                {"all": names},
                {"any": [names[0], {"all": names[1:]}]},
            )
        )
    chances: tuple[tuple[float, Dict], ...] = (
        (0.25, {"distinct": False}),
        (0.2, {"self_approve": True}),
        (0.2, {"self_deny": False}),
        (0.2, {"may_always_deny": ["sec"]}),
        (0.3, {"change_vote": True}),
        (0.2, {"reason_to_deny": True}),
        (0.5, {"expires_after": random.choice((60, 600, 1800))}),
        (0.3, {"approval_valid_for": random.choice((30, 200, 900))}),
        (0.15, {"not_before": 100}),
        (0.15, {"windows": [[50, 400], [600, 2000]]}),
        (0.15, {"freeze": [[100, 200]]}),
        (0.3, {"break_glass": {"groups": ["oncall"], "reviewers": ["boss"],
                               "review_within": 300}}),
    )  # fmt: skip
    for chance, more in chances:
        if random.random() < chance:
            rule |= more
    return rule


def _gate(random: Random, name: str) -> Dict:
    gate: Dict = {"id": name, "groups": random.sample(GROUPS, random.choice((1, 1, 2)))}
    if random.random() < 0.15:
        gate["users"] = [random.choice(PEOPLE)]
    gate["approve"] = random.choice((1, 1, 1, 2, 2, 3))
    if random.random() < 0.3:
        gate["deny"] = random.choice((0, 2))
    if random.random() < 0.2:
        gate |= {"escalate_after": random.choice((30, 300)), "escalate_groups": ["boss"]}
    return gate


def _person(random: Random) -> Dict:
    person: Dict = {"groups": random.sample(GROUPS, random.choice((0, 1, 1, 2, 3)))}
    if random.random() < 0.12:
        person["flags"] = [random.choice(("guest", "external", "deactivated", "bot"))]
    return person


def _event(random: Random, asked: list[str], policy: Dict, *, hectic: bool) -> Dict:
    """What happens next. A name that nobody has yet is asked for first.

    In hectic histories few people vote, run and break, and many of them leave.
    """
    left = [name for name in REQUESTS if name not in asked]
    if not asked or (left and random.random() < 0.1):
        return _request(random, left[0])
    req = random.choice(asked)
    by = random.choice(PEOPLE[:5] if hectic else PEOPLE)
    kind = random.choices(
        ("approve", "deny", "withdraw_vote", "cancel", "plan_change", "attrs_change",
         "policy_change", "people_change", "directory", "restart", "tick", "execute", "finish",
         "break_glass", "review"),
        (40, 2, 1, 1, 1, 1, 1, 12, 1, 1, 1, 20, 20, 14, 14)
        if hectic
        else (40, 7, 4, 2, 3, 1, 1, 5, 2, 1, 2, 14, 10, 3, 5),
    )[0]  # fmt: skip
    return {"do": kind, **_details(random, kind, req, by, policy)}


def _details(random: Random, kind: str, req: str, by: str, policy: Dict) -> Dict:  # noqa: C901, PLR0911
    match kind:
        case "approve" | "deny":
            return {"req": req, "by": by, **_shown(random)}
        case "withdraw_vote" | "cancel" | "review":
            return {"req": req, "by": random.choice((by, "ana"))}
        case "plan_change":
            return {"req": req, "by": by, "plan": random.choice(PLANS)}
        case "attrs_change":
            return {"req": req, "attrs": {"env": random.choice(("prod", "lab", "test"))}}
        case "policy_change":
            others = random.sample(PEOPLE, random.choice((0, 1, 2)))
            return {"by": by, "set": _changed(random, policy), "approved_by": others}
        case "people_change":
            return {
                "who": by,
                **_person(random),
                **({} if random.random() < 0.3 else {"flags": []}),
            }
        case "directory":
            return {"up": random.random() < 0.7}
        case "execute":
            return {"req": req, **({"artifact": "h9"} if random.random() < 0.1 else {})}
        case "finish":
            return {"req": req, "ok": random.random() < 0.8}
        case "break_glass":
            return {"req": req, "by": by, "reason": random.choice(("", "outage", "outage"))}
        case _:
            return {}


def _request(random: Random, req: str) -> Dict:
    env = random.choice(("prod", "prod", "prod", "lab", "test"))
    event: Dict = {
        "do": "request", "req": req, "by": random.choice(("ana", "ana", "bo", "gus")),
        "target": random.choice(("db1", "db1", "db2")),
        "attrs": {"env": env, "size": random.choice((1, 9))},
    }  # fmt: skip
    if random.random() < 0.15:
        event["ttl"] = random.choice((50, 500, 100_000))
    if random.random() < 0.15:
        event["for"] = random.choice(PEOPLE)
    return event


def _shown(random: Random) -> Dict:
    """What the card showed, who the payload names, and what was said with it."""
    shown: Dict = {}
    if random.random() < 0.1:
        shown["seen"] = random.choice(PLANS)
    if random.random() < 0.05:
        shown["seen_step"] = random.choice((0, 1))
    if random.random() < 0.03:
        shown["signature"] = random.choice(("missing", "bad"))
    if random.random() < 0.03:
        shown["as_user"] = random.choice(PEOPLE)
    if random.random() < 0.5:
        shown["reason"] = "looked at it"
    return shown


def _changed(random: Random, policy: Dict) -> Dict:
    """Other rules instead of those there are."""
    if "rules" in policy:
        return {"rules": [{"when": {"env": "prod"}, **_rule(random)}, {"gates": []}]}
    return {"gates": _rule(random)["gates"], "require": None, "ordered": None}
