"""What a history of events should come to, in plain dicts: slow, and easy to check by eye.

Written from the scenario format's description alone, so that it can disagree with the
engine. It knows the words of a scenario: events go in, `ok`, `noop` or `no:<why>` come out.
"""

from __future__ import annotations

from itertools import product
from typing import Any

Dict = dict[str, Any]

FINAL = {"done", "failed", "denied", "cancelled", "expired", "refused", "closed"}
OPEN = {"pending", "approved"}
UNFIT = {"guest", "external", "deactivated", "bot"}


class No(Exception):  # noqa: N818 (a word of the scenario format)
    """Why an event is refused."""


class SimpleModel:
    """One policy, some people, and the requests so far."""

    def __init__(self, policy: Dict) -> None:
        self.policy: Dict = {k: v for k, v in policy.items() if k != "people"}
        self.people: Dict = {
            name: {"groups": set(entry.get("groups", ())), "flags": set(entry.get("flags", ()))}
            for name, entry in policy["people"].items()
        }
        self.requests: dict[str, Dict] = {}
        self.directory_up = True
        self.now = 0
        self.executions = 0

    # ---- events -------------------------------------------------------------------

    def play(self, event: Dict) -> str:
        """What the event comes to. A refusal changes nothing but what time has changed."""
        self.now = event["t"]
        for request in self.requests.values():
            self.lapse(request)
        try:
            return str(getattr(self, "do_" + event["do"])(event) or "ok")
        except No as no:
            return f"no:{no}"

    def states(self) -> dict[str, str]:
        """The state of each request."""
        return {name: request["state"] for name, request in self.requests.items()}

    def votes(self, name: str) -> list[tuple[str, str]]:
        """Who voted what on the current plan."""
        return sorted((v["by"], v["verdict"]) for v in self.requests[name]["votes"])

    def do_tick(self, event: Dict) -> None:
        """Time passes."""

    def do_restart(self, event: Dict) -> None:
        """Nothing is kept in memory, so nothing is forgotten."""

    def do_directory(self, event: Dict) -> None:
        """The directory goes away or comes back."""
        self.directory_up = event["up"]

    def do_people_change(self, event: Dict) -> None:
        """Somebody's groups or flags change."""
        for key in ("groups", "flags"):
            if key in event:
                self.people[event["who"]][key] = set(event[key])

    def do_policy_change(self, event: Dict) -> None:
        """The rules change: what people agreed to under others no longer holds."""
        if self.policy.get("policy_four_eyes") and not set(event.get("approved_by", ())) - {
            event["by"]
        }:
            raise No("four_eyes")
        self.policy = {**self.policy, **event["set"]}
        for request in self.requests.values():
            if request["state"] in OPEN:
                self.take_rule(request)

    def do_request(self, event: Dict) -> None:
        """Somebody asks."""
        self.check_person(event["by"])
        if "for" in event:
            self.check_person(event["for"])
        ttl = event.get("ttl")
        if ttl is not None and ttl > self.policy.get("max_ttl", ttl):
            raise No("ttl")
        if len(event.get("reason", "")) > self.policy.get("max_reason", 10**6):
            raise No("reason")
        request: Dict = {
            "name": event.get("req", "r1"),
            "state": "pending",
            "by": event["by"],
            "authors": {event["by"], event.get("for", event["by"])},
            "plan": event.get("plan", "h1"),
            "target": event.get("target", "db1"),
            "attrs": dict(event.get("attrs", {})),
            "at": self.now,
            "ttl": ttl,
            "votes": [],
            "granted_at": None,
            "glass": None,
        }
        self.requests[request["name"]] = request
        self.take_rule(request)
        if request["state"] == "refused":
            raise No("policy")

    def do_approve(self, event: Dict) -> str | None:
        """Somebody agrees."""
        return self.do_vote({**event, "verdict": "approve"})

    def do_deny(self, event: Dict) -> str | None:
        """Somebody says no."""
        return self.do_vote({**event, "verdict": "deny"})

    def do_vote(self, event: Dict) -> str | None:
        """A decision on what was shown."""
        request = self.asked(event)
        by, verdict = event["by"], event["verdict"]
        if event.get("signature", "valid") != "valid":
            raise No("signature")
        if event.get("as_user", by) != by:
            raise No("impersonation")
        self.check_person(by)
        if request["state"] == "expired":
            raise No("expired")
        if event.get("seen", request["plan"]) != request["plan"]:
            raise No("stale_plan")
        earlier = [v for v in request["votes"] if v["by"] == by]
        if request["state"] != "pending":
            raise No("closed")
        if event.get("seen_step", self.step(request)) != self.step(request):
            raise No("stale_step")
        self.check_may_vote(request, by, verdict)
        if earlier and earlier[0]["verdict"] == verdict:
            return "noop"
        if earlier and not self.policy.get("change_vote"):
            raise No("duplicate")
        if self.seat_taken(request, by):
            raise No("duplicate")
        if verdict == "deny" and self.policy.get("reason_to_deny") and not event.get("reason"):
            raise No("reason")
        request["votes"] = [v for v in request["votes"] if v["by"] != by]
        request["votes"].append({"by": by, "verdict": verdict, "step": self.step(request)})
        self.settle(request)
        return None

    def do_withdraw_vote(self, event: Dict) -> str | None:
        """Somebody takes their vote back, and with it perhaps the grant."""
        request = self.asked(event)
        self.check_person(event["by"])
        if request["state"] == "expired":
            raise No("expired")
        if request["state"] not in OPEN:
            raise No("closed")
        if event["by"] not in {v["by"] for v in request["votes"]}:
            return "noop"
        request["votes"] = [v for v in request["votes"] if v["by"] != event["by"]]
        self.settle(request)
        return None

    def do_cancel(self, event: Dict) -> None:
        """Whoever asked does not want it any more."""
        request = self.asked(event)
        self.check_person(event["by"])
        if request["state"] == "expired":
            raise No("expired")
        if request["state"] not in OPEN:
            raise No("closed")
        if event["by"] not in request["authors"]:
            raise No("not_requester")
        request["state"] = "cancelled"

    def do_plan_change(self, event: Dict) -> str | None:
        """Another plan: nobody has agreed to it, and whoever wrote it is an author."""
        request = self.asked(event)
        self.check_person(event["by"])
        if request["state"] == "expired":
            raise No("expired")
        if request["state"] not in OPEN:
            raise No("closed")
        if event["plan"] == request["plan"]:
            return "noop"
        request["plan"] = event["plan"]
        request["authors"] |= {event["by"]}
        request["votes"] = []
        request["granted_at"] = None
        request["state"] = "pending"
        self.settle(request)
        return None

    def do_attrs_change(self, event: Dict) -> None:
        """What we know about the change is different: another rule may apply."""
        request = self.asked(event)
        if request["state"] == "expired":
            raise No("expired")
        if request["state"] not in OPEN:
            raise No("closed")
        request["attrs"] = {**request["attrs"], **event["attrs"]}
        self.take_rule(request)

    def do_execute(self, event: Dict) -> None:
        """A worker wants to begin."""
        request = self.asked(event)
        if request["state"] == "expired":
            raise No("expired")
        if request["state"] != "approved":
            raise No("not_approved")
        for key in ("plan", "artifact"):
            if event.get(key, request["plan"]) != request["plan"]:
                raise No("stale_plan")
        if not self.directory_up:
            raise No("directory")
        if not self.met(request):
            request["state"] = "pending"
            request["granted_at"] = None
            raise No("not_approved")
        rule = self.rule(request)
        if self.now < self.said(rule, "not_before", 0):
            raise No("not_yet")
        inside = [a <= self.now < b for a, b in self.said(rule, "windows", [])]
        if (inside and not any(inside)) or any(
            a <= self.now < b for a, b in self.said(rule, "freeze", [])
        ):
            raise No("frozen")
        self.start(request)

    def do_finish(self, event: Dict) -> None:
        """A run ends."""
        request = self.asked(event)
        if request["state"] != "executing":
            raise No("not_approved")
        request["state"] = "needs_review" if request["glass"] else "done"

    def do_break_glass(self, event: Dict) -> None:
        """It runs at once, and somebody else must look at it afterwards."""
        request = self.asked(event)
        self.check_person(event["by"])
        if request["state"] == "expired":
            raise No("expired")
        if request["state"] not in OPEN:
            raise No("closed")
        glass = self.said(self.rule(request), "break_glass", None)
        if not glass or not self.groups(event["by"]) & set(glass["groups"]):
            raise No("not_eligible")
        if not event.get("reason"):
            raise No("reason")
        self.start(request)
        request["glass"] = {"by": event["by"], "reviewers": glass["reviewers"]}

    def do_review(self, event: Dict) -> None:
        """Somebody else looked at what was done in an emergency."""
        request = self.asked(event)
        self.check_person(event["by"])
        if request["state"] != "needs_review":
            raise No("closed")
        if event["by"] in request["authors"] | {request["glass"]["by"]}:
            raise No("self")
        if not self.groups(event["by"]) & set(request["glass"]["reviewers"]):
            raise No("not_eligible")
        request["state"] = "closed"

    # ---- rules --------------------------------------------------------------------

    def rule(self, request: Dict) -> Dict | None:
        """The first rule that fits, fallback rules last; None when none fits."""
        rules = self.policy.get("rules")
        if rules is None:
            return self.policy
        ordered = [r for r in rules if not r.get("fallback")]
        ordered += [r for r in rules if r.get("fallback")]
        for rule in ordered:
            if all(
                self.compares(request["attrs"].get(key), wanted)
                for key, wanted in rule.get("when", {}).items()
            ):
                return dict(rule)
        return None

    def compares(self, value: Any, wanted: Any) -> bool:
        """An attribute against what a rule says of it."""
        if isinstance(wanted, dict):
            return isinstance(value, int) and value > wanted["gt"]
        return bool(value == wanted)

    def said(self, rule: Dict | None, key: str, otherwise: Any) -> Any:
        """What the rule says, or else the policy, or else neither."""
        for source in (rule or {}, self.policy):
            if key in source:
                return source[key]
        return otherwise

    def take_rule(self, request: Dict) -> None:
        """Begin anew under the rule that fits now."""
        request["votes"] = []
        request["granted_at"] = None
        request["state"] = "pending"
        if self.rule(request) is None:
            request["state"] = "refused"
            return
        self.settle(request)

    # ---- people -------------------------------------------------------------------

    def check_person(self, name: str) -> None:
        """Only known, active people of our own, and only while we can know it."""
        if not self.directory_up:
            raise No("directory")
        if name not in self.people or self.people[name]["flags"] & UNFIT:
            raise No("identity")

    def groups(self, name: str) -> set[str]:
        """The groups of somebody who counts today."""
        person = self.people.get(name)
        return set() if person is None or person["flags"] & UNFIT else set(person["groups"])

    def stands_for(self, name: str) -> set[str]:
        """Somebody and whom they stand in for now."""
        return {name} | {
            d["from"]
            for d in self.policy.get("delegations", [])
            if d["to"] == name and d["from_t"] <= self.now < d["to_t"]
        }

    def gates(self, request: Dict) -> list[Dict]:
        """The gates of the request's rule, in their order."""
        return list(self.said(self.rule(request), "gates", []))

    def in_gate(self, request: Dict, gate: Dict, name: str) -> bool:
        """Whether somebody, or whom they stand in for, belongs to a gate now."""
        groups = set(gate.get("groups", ()))
        after = gate.get("escalate_after")
        if after is not None and self.now >= request["at"] + after:
            groups |= set(gate.get("escalate_groups", ()))
        return any(
            who in gate.get("users", ()) or self.groups(who) & groups
            for who in self.stands_for(name)
            if not (self.people.get(name, {"flags": UNFIT})["flags"] & UNFIT)
        )

    def check_may_vote(self, request: Dict, by: str, verdict: str) -> None:
        """Whether this person may say this about this request at this step."""
        if by in request["authors"]:
            allowed = (
                self.said(self.rule(request), "self_approve", False)
                if verdict == "approve"
                else self.said(self.rule(request), "self_deny", True)
            )
            if not allowed:
                raise No("self")
            if verdict == "deny":
                return
        always = set(self.said(self.rule(request), "may_always_deny", []))
        if verdict == "deny" and self.groups(by) & always:
            return
        gates = self.gates(request)
        if self.said(self.rule(request), "ordered", False):
            gates = gates[self.step(request) :][:1]
        if verdict == "deny":
            gates = [gate for gate in gates if gate.get("deny", 1)]
        if not any(self.in_gate(request, gate, by) for gate in gates):
            raise No("not_eligible")

    def seat_taken(self, request: Dict, by: str) -> bool:
        """Whether the stand-in or the absent one has voted already: they share a seat."""
        mine = self.stands_for(by)
        return any(
            v["by"] != by and (v["by"] in mine or by in self.stands_for(v["by"]))
            for v in request["votes"]
        )

    # ---- counting -----------------------------------------------------------------

    def settle(self, request: Dict) -> None:
        """Denied, approved or pending, from the votes."""
        if self.denied(request):
            request["state"] = "denied"
        elif self.met(request):
            if request["state"] != "approved":
                request["granted_at"] = self.now
            request["state"] = "approved"
        else:
            request["state"] = "pending"
            request["granted_at"] = None

    def denied(self, request: Dict) -> bool:
        """Whether somebody whose no is enough said it, or enough of one gate did."""
        noes = [v["by"] for v in request["votes"] if v["verdict"] == "deny"]
        always = set(self.said(self.rule(request), "may_always_deny", []))
        if any(by in request["authors"] or self.groups(by) & always for by in noes):
            return True
        return any(
            gate.get("deny", 1)
            and sum(self.in_gate(request, gate, by) for by in noes) >= gate.get("deny", 1)
            for gate in self.gates(request)
        )

    def met(self, request: Dict) -> bool:
        """Whether some way of seating those who agreed fills what is required."""
        gates = self.gates(request)
        if not gates:
            return True
        need = self.said(self.rule(request), "require", None)
        if need is None:
            need = {"all": [gate["id"] for gate in gates]}
        return any(holds(need, filled) for filled in self.fillings(request, gates))

    def fillings(self, request: Dict, gates: list[Dict]) -> list[set[str]]:
        """Which gates are full, for each way of seating those who agreed."""
        yes = [v["by"] for v in request["votes"] if v["verdict"] == "approve"]
        if not self.said(self.rule(request), "self_approve", False):
            yes = [by for by in yes if by not in request["authors"]]
        may = [[g["id"] for g in gates if self.in_gate(request, g, by)] for by in yes]
        if self.said(self.rule(request), "distinct", True):
            seatings = [[[seat] for seat in way] for way in product(*[m for m in may if m])]
        else:
            seatings = [may]
        return [
            {
                g["id"]
                for g in gates
                if sum(g["id"] in seats for seats in seating) >= g.get("approve", 1)
            }
            for seating in seatings
        ]

    def step(self, request: Dict) -> int:
        """How many of the ordered gates are full, one after the other."""
        gates = self.gates(request)
        if not self.said(self.rule(request), "ordered", False):
            return 0
        best = 0
        for filled in self.fillings(request, gates):
            count = 0
            while count < len(gates) and gates[count]["id"] in filled:
                count += 1
            best = max(best, count)
        return min(best, len(gates) - 1) if gates else 0

    # ---- time ---------------------------------------------------------------------

    def lapse(self, request: Dict) -> None:
        """What is too old ends, whether or not anybody looks."""
        if request["state"] not in OPEN:
            return
        rule = self.rule(request)
        after = request["ttl"]
        if after is None:
            after = self.said(rule, "expires_after", None)
        valid_for = self.said(rule, "approval_valid_for", None)
        if after is not None and self.now >= request["at"] + after:
            request["state"] = "expired"
        elif (
            request["state"] == "approved"
            and valid_for is not None
            and self.now >= request["granted_at"] + valid_for
        ):
            request["state"] = "expired"

    def start(self, request: Dict) -> None:
        """Begin, if nothing else is at work on the same database."""
        if any(
            r["state"] == "executing" and r["target"] == request["target"]
            for r in self.requests.values()
        ):
            raise No("locked")
        request["state"] = "executing"
        self.executions += 1

    def asked(self, event: Dict) -> Dict:
        """The request that an event is about."""
        return self.requests[event.get("req", "r1")]


def holds(need: Any, filled: set[str]) -> bool:
    """Whether a requirement of gates, all and any is met."""
    if isinstance(need, str):
        return need in filled
    if "all" in need:
        return all(holds(part, filled) for part in need["all"])
    return any(holds(part, filled) for part in need["any"])
