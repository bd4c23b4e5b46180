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
        self.lapse_all()
        try:
            return str(getattr(self, "do_" + event["do"])(event) or "ok")
        except No as no:
            return f"no:{no}"
        finally:
            self.lapse_all()

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

    def do_policy_change(self, event: Dict) -> str | None:
        """The rules change. Votes stay, and count as the rules of today say."""
        self.check_person(event["by"])
        others = set(event.get("approved_by", ())) - {event["by"]}
        if self.policy.get("policy_four_eyes") and not any(map(self.may_approve, others)):
            raise No("four_eyes")
        both = {**self.policy, **event["set"]}
        new = {key: value for key, value in both.items() if value is not None}
        if new == self.policy:
            return "noop"
        self.policy = new
        for request in self.requests.values():
            if request["state"] in OPEN:
                self.under(request)
        return None

    def do_request(self, event: Dict) -> None:
        """Somebody asks. What is refused stays as refused."""
        request: Dict = {
            "state": "refused",
            "by": event["by"],
            "authors": {event["by"], event.get("for", event["by"])},
            "requesters": {event["by"], event.get("for", event["by"])},
            "plan": event.get("plan", "h1"),
            "target": event.get("target", "db1"),
            "attrs": dict(event.get("attrs", {})),
            "at": self.now,
            "votes": [],
            "ends": None,
            "granted_ends": None,
            "glass": None,
        }
        self.requests[event.get("req", "r1")] = request
        # A bot may ask for a person, and no more.
        self.check_person(event["by"], spared={"bot"} if "for" in event else set())
        if "for" in event:
            self.check_person(event["for"])
        rule = self.rule(request)
        if rule is None:
            raise No("policy")
        lasts = self.said(rule, "expires_after", 7 * 86400)
        if not 0 < event.get("ttl", lasts) <= self.said(rule, "max_ttl", lasts):
            raise No("ttl")
        request["ends"] = self.now + event.get("ttl", lasts)
        request["state"] = "pending"
        self.settle(request)

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
        self.check_person(by)
        if event.get("as_user", by) != by:
            raise No("impersonation")
        veto = verdict == "deny" and self.may_veto(request, by)
        self.check_state(request, {"pending", "approved"} if veto else {"pending"})
        if event.get("seen", request["plan"]) != request["plan"]:
            raise No("stale_plan")
        if event.get("seen_step", self.step(request)) != self.step(request):
            raise No("stale_step")
        seat = self.seat(request, by, verdict)
        mine = [v for v in request["votes"] if v["by"] == by]
        if any(v["verdict"] == verdict for v in mine):
            return "noop"
        rule = self.rule(request)
        if (
            verdict == "deny"
            and self.said(rule, "reason_to_deny", False)
            and not event.get("reason")
        ):
            raise No("reason")
        shared = [v for v in request["votes"] if v["seat"] == seat and v["by"] != by]
        if (mine and not self.said(rule, "change_vote", False)) or (shared and not mine):
            raise No("duplicate")
        request["votes"] = [v for v in request["votes"] if v["by"] != by]
        request["votes"].append({"by": by, "seat": seat, "verdict": verdict, "at": self.now})
        self.settle(request)
        return None

    def do_withdraw_vote(self, event: Dict) -> str | None:
        """Somebody takes their vote back, while it is still being decided."""
        request = self.asked(event)
        self.check_person(event["by"])
        self.check_state(request, {"pending"})
        if event["by"] not in {v["by"] for v in request["votes"]}:
            return "noop"
        request["votes"] = [v for v in request["votes"] if v["by"] != event["by"]]
        self.settle(request)
        return None

    def do_cancel(self, event: Dict) -> None:
        """Whoever asked does not want it any more."""
        request = self.asked(event)
        self.check_person(event["by"])
        self.check_state(request, OPEN)
        if event["by"] not in request["requesters"]:
            raise No("not_requester")
        request["state"] = "cancelled"

    def do_plan_change(self, event: Dict) -> str | None:
        """Another plan: nobody has agreed to it, and whoever wrote it is an author."""
        request = self.asked(event)
        self.check_person(event["by"])
        self.check_state(request, OPEN)
        if event["plan"] == request["plan"]:
            return "noop"
        request |= {"plan": event["plan"], "votes": [], "state": "pending"}
        request["authors"] = request["authors"] | {event["by"]}
        self.under(request)
        return None

    def do_attrs_change(self, event: Dict) -> str | None:
        """What we know about the change is different: another rule may apply."""
        request = self.asked(event)
        self.check_state(request, OPEN)
        attrs = {**request["attrs"], **event["attrs"]}
        if attrs == request["attrs"]:
            return "noop"
        request["attrs"] = attrs
        self.under(request)
        return None

    def do_execute(self, event: Dict) -> None:
        """A worker wants to begin."""
        request = self.asked(event)
        behind_glass = request["glass"] is not None and request["state"] == "executing"
        if not behind_glass:
            self.check_state(request, {"approved"}, otherwise="not_approved")
        for key in ("plan", "artifact"):
            if event.get(key, request["plan"]) != request["plan"]:
                raise No("stale_plan")
        if behind_glass:
            self.start_behind_glass(request)
            return
        rule = self.rule(request)
        if self.gates(request) and not self.directory_up:
            raise No("directory")
        self.settle(request)
        if request["state"] != "approved":
            raise No("not_approved")
        # A bot may have asked for a person; nobody's work runs who has left meanwhile.
        if any(self.people[name]["flags"] & UNFIT - {"bot"} for name in request["requesters"]):
            raise No("identity")
        if self.now < self.said(rule, "not_before", 0):
            raise No("not_yet")
        inside = [a <= self.now < b for a, b in self.said(rule, "windows", [])]
        frozen = any(a <= self.now < b for a, b in self.said(rule, "freeze", []))
        if frozen or (inside and not any(inside)):
            raise No("frozen")
        self.start(request)
        request["begun"] = True

    def start_behind_glass(self, request: Dict) -> None:
        """A worker begins what somebody on call ran: once."""
        if request.get("begun"):
            raise No("not_approved")
        if self.busy(request):
            raise No("locked")
        request["begun"] = True
        self.executions += 1  # worlds count the breaking and the start

    def do_finish(self, event: Dict) -> None:
        """A run ends."""
        request = self.asked(event)
        self.check_state(request, {"executing"})
        ended = "done" if event.get("ok", True) else "failed"
        request["state"] = "needs_review" if request["glass"] else ended
        if request["glass"]:
            request["glass"]["due"] = self.now + request["glass"]["within"]

    def do_break_glass(self, event: Dict) -> None:
        """It runs at once, and somebody else must look at it afterwards."""
        request = self.asked(event)
        self.check_person(event["by"])
        self.check_state(request, OPEN)
        glass = self.said(self.rule(request), "break_glass", None)
        if not glass or not self.groups(event["by"]) & set(glass["groups"]):
            raise No("not_eligible")
        if not event.get("reason"):
            raise No("reason")
        if any(
            r["state"] == "needs_review"
            and r["glass"]["by"] == event["by"]
            and r["glass"]["due"] <= self.now
            for r in self.requests.values()
        ):
            raise No("policy")
        self.start(request)
        request["glass"] = {"by": event["by"], "within": glass["review_within"]}

    def do_review(self, event: Dict) -> None:
        """Somebody else looked at what was done in an emergency."""
        request = self.asked(event)
        self.check_person(event["by"])
        if request["glass"] and request["state"] == "executing":
            raise No("not_yet")
        self.check_state(request, {"needs_review"})
        if event["by"] in request["authors"] | {request["glass"]["by"]}:
            raise No("self")
        glass = self.said(self.rule(request), "break_glass", None)
        if not glass or not self.groups(event["by"]) & set(glass["reviewers"]):
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

    def under(self, request: Dict) -> None:
        """The same votes under the rule that fits now; none: it is refused."""
        if self.rule(request) is None:
            request["state"] = "refused"
        else:
            self.settle(request)

    # ---- people -------------------------------------------------------------------

    def check_state(self, request: Dict, states: set[str], *, otherwise: str = "closed") -> None:
        """Whether this can happen to the request as it stands."""
        if request["state"] not in states:
            raise No("expired" if request["state"] == "expired" else otherwise)

    def check_person(self, name: str, *, spared: set[str] | None = None) -> None:
        """Only known, active people of our own, and only while we can know it."""
        if not self.directory_up:
            raise No("directory")
        if name not in self.people or self.people[name]["flags"] & UNFIT - (spared or set()):
            raise No("identity")

    def groups(self, name: str) -> set[str]:
        """The groups of somebody who counts today."""
        person = self.people.get(name)
        return set() if person is None or person["flags"] & UNFIT else set(person["groups"])

    def fit(self, name: str) -> bool:
        """Whether this is one of our own people today."""
        return name in self.people and not self.people[name]["flags"] & UNFIT

    def stands_for(self, name: str) -> list[str]:
        """Whom somebody stands in for now, who must be one of us too."""
        absent = {
            d["from"]
            for d in self.policy.get("delegations", [])
            if d["to"] == name and d["from_t"] <= self.now < d["to_t"]
        }
        return [who for who in self.people if who in absent and who != name and self.fit(who)]

    def gates(self, request: Dict) -> list[Dict]:
        """The gates of the request's rule, in their order."""
        return list(self.said(self.rule(request), "gates", []))

    def in_gate(self, request: Dict, gate: Dict, name: str, at: int) -> bool:
        """Whether somebody belongs to a gate today, which has waited since it was asked."""
        groups = set(gate.get("groups", ()))
        after = gate.get("escalate_after")
        if after is not None and at >= request["at"] + after:
            groups |= set(gate.get("escalate_groups", ()))
        return name in gate.get("users", ()) or bool(self.people[name]["groups"] & groups)

    def may_approve(self, name: str) -> bool:
        """Whether somebody could approve anything under the rules there are."""
        rules = self.policy.get("rules", [self.policy])
        gates = [gate for rule in rules for gate in self.said(rule, "gates", [])]
        mine = [
            g for g in gates if set(g["groups"]) & self.groups(name) or name in g.get("users", ())
        ]
        return self.fit(name) and (not gates or bool(mine))

    def may_veto(self, request: Dict, name: str) -> bool:
        """Whether somebody may always say no."""
        always = set(self.said(self.rule(request), "may_always_deny", []))
        return bool(self.groups(name) & always)

    def seat(self, request: Dict, by: str, verdict: str) -> str:
        """Whose seat somebody sits in: their own, or of one whom they stand in for."""
        rule = self.rule(request)
        key, usual = ("self_approve", False) if verdict == "approve" else ("self_deny", True)
        may_as_author = self.said(rule, key, usual)
        if by in request["authors"] and not may_as_author:
            raise No("self")
        gates = self.gates(request)
        if self.said(rule, "ordered", False):
            gates = gates[self.step(request) :][:1]

        def sits(name: str) -> bool:
            return any(self.in_gate(request, gate, name, self.now) for gate in gates)

        if sits(by) or (verdict == "deny" and self.may_veto(request, by)):
            return by
        owners = [who for who in self.stands_for(by) if sits(who)]
        free = [who for who in owners if may_as_author or who not in request["authors"]]
        if free:
            return free[0]
        raise No("self" if owners else "not_eligible")

    # ---- counting -----------------------------------------------------------------

    def settle(self, request: Dict) -> None:
        """Denied, approved or pending, from the votes."""
        if self.denied(request):
            request["state"] = "denied"
        elif self.met(request):
            if request["state"] != "approved":
                valid_for = self.said(self.rule(request), "approval_valid_for", None)
                request["granted_ends"] = None if valid_for is None else self.now + valid_for
            request["state"] = "approved"
        else:
            request["state"] = "pending"

    def counting(self, request: Dict, verdict: str) -> list[Dict]:
        """The votes of those who may still vote: they, and whose seat it is."""
        own = verdict == "approve" and not self.said(self.rule(request), "self_approve", False)
        return [
            v
            for v in request["votes"]
            if v["verdict"] == verdict
            and self.fit(v["by"])
            and self.fit(v["seat"])
            and not (own and {v["by"], v["seat"]} & request["authors"])
        ]

    def denied(self, request: Dict) -> bool:
        """Whether somebody whose no is enough said it, or enough of one gate did."""
        noes = self.counting(request, "deny")
        if any(self.may_veto(request, v["by"]) for v in noes):
            return True
        return any(
            gate.get("deny", 1)
            and sum(self.in_gate(request, gate, v["seat"], v["at"]) for v in noes)
            >= gate.get("deny", 1)
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
        may = [
            [g["id"] for g in gates if self.in_gate(request, g, v["seat"], v["at"])]
            for v in self.counting(request, "approve")
        ]
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

    def lapse_all(self) -> None:
        """Time has passed for everybody."""
        for request in self.requests.values():
            self.lapse(request)

    def lapse(self, request: Dict) -> None:
        """What is too old ends, whether or not anybody looks. A grant has its own end."""
        ends = request["ends"]
        if request["state"] == "approved" and request["granted_ends"] is not None:
            ends = request["granted_ends"]
        if request["state"] in OPEN and self.now >= ends:
            request["state"] = "expired"

    def busy(self, request: Dict) -> bool:
        """Whether something else is at work on the same database."""
        return any(
            r["state"] == "executing" and r["target"] == request["target"]
            for r in self.requests.values()
            if r is not request
        )

    def start(self, request: Dict) -> None:
        """Begin, if nothing else is at work on the same database."""
        if self.busy(request):
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
