"""`twokey request`, `show`, `approve` and the like: the API from a terminal.

They need no store, no vote key and no Slack: only where Twokey is, and a personal token.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import uuid4

import typer

from approvals.plans import CALL
from approvals.words import BadInputError
from bot.cli.output import JsonOption, complain, say
from bot.cli.plain import document, line, lines, request_lines, request_row
from bot.cli.quoting import joined
from bot.cli.remote_http import Remote, Said, is_overheard, token_of
from bot.settings import load_settings

REFUSED: Final = 1
BAD_INPUT: Final = 2

TokenFile = Annotated[
    Path | None, typer.Option("--token-file", help="File with your token, mode 600.")
]
Number = Annotated[int, typer.Argument(min=1, help="Number of the request.")]
Reason = Annotated[str, typer.Option("--reason", help="Why.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask; needs --plan-hash.")]
PlanHash = Annotated[str, typer.Option("--plan-hash", help="Hash of the plan that was read.")]
PolicyHash = Annotated[
    str, typer.Option("--policy-hash", help="Policy that it was read under; now's when left out.")
]
Step = Annotated[
    int, typer.Option("--step", help="Step that was shown; the current one when left out.")
]
Code = Annotated[str, typer.Option("--code", help="Code of your second factor.")]
Typed = Annotated[str, typer.Option("--typed", help="The database's name, for the riskiest.")]
Key = Annotated[
    str, typer.Option("--key", help="The same key makes the same call one call, for scripts.")
]
Words = Annotated[list[str], typer.Argument(help="As after /db: backup orders kind=full")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a script says was seen; what it leaves out is what is shown now."""

    yes: bool
    plan_hash: str
    policy_hash: str = ""
    step: int = -1


def request(
    words: Words,
    reason: Reason = "",
    key: Key = "",
    token_file: TokenFile = None,
    as_json: JsonOption = False,
) -> None:
    """Ask for a change; prints its number and who must agree."""
    body = {"command": joined(words), "reason": reason}
    _tell(_remote(token_file).post("/api/requests", body, key=_key(key)), as_json=as_json)


def query(words: Words, token_file: TokenFile = None, as_json: JsonOption = False) -> None:
    """Ask something that only reads."""
    said = _remote(token_file).post("/api/queries", {"command": joined(words)}, key=_key(""))
    if not said.ok or as_json:
        _tell(said, as_json=as_json)
        return
    for each in lines(said.body["text"], ""):
        say(each)


def requests(
    waiting: Annotated[str, typer.Option(help="me, review, mine or open; all when left out.")] = "",
    database: Annotated[str, typer.Option(help="Only of this database.")] = "",
    token_file: TokenFile = None,
    as_json: JsonOption = False,
) -> None:
    """List requests: what waits for you with what expires first, else the newest first."""
    said = _remote(token_file).get("/api/requests", waiting=waiting, database=database)
    if not said.ok or as_json:
        _tell(said, as_json=as_json)
        return
    for each in said.body["requests"]:
        say(request_row(each))
    if not said.body["requests"]:
        say("There are none.")


def show(number: Number, token_file: TokenFile = None, as_json: JsonOption = False) -> None:
    """A request with its plan in full."""
    said = _remote(token_file).get(f"/api/requests/{number}")
    if not said.ok or as_json:
        _tell(said, as_json=as_json)
        return
    _print(_proven(said.body))


def approve(
    number: Number,
    *,
    reason: Reason = "",
    yes: Yes = False,
    plan_hash: PlanHash = "",
    policy_hash: PolicyHash = "",
    step: Step = -1,
    code: Code = "",
    typed: Typed = "",
    key: Key = "",
    token_file: TokenFile = None,
    as_json: JsonOption = False,
) -> None:
    """Agree to a request, after its plan was printed whole and read."""
    seen = Seen(yes=yes, plan_hash=plan_hash, policy_hash=policy_hash, step=step)
    extra = {"reason": reason, "code": code, "typed": typed}
    _decide("approve", number, seen, extra, key=key, file=token_file, as_json=as_json)


def deny(
    number: Number,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why not.")],
    yes: Yes = False,
    plan_hash: PlanHash = "",
    policy_hash: PolicyHash = "",
    step: Step = -1,
    key: Key = "",
    token_file: TokenFile = None,
    as_json: JsonOption = False,
) -> None:
    """Deny a request."""
    seen = Seen(yes=yes, plan_hash=plan_hash, policy_hash=policy_hash, step=step)
    _decide("deny", number, seen, {"reason": reason}, key=key, file=token_file, as_json=as_json)


def break_glass(
    number: Number,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why it cannot wait.")],
    yes: Yes = False,
    plan_hash: PlanHash = "",
    code: Code = "",
    typed: Typed = "",
    key: Key = "",
    token_file: TokenFile = None,
    as_json: JsonOption = False,
) -> None:
    """Run a request without its votes, loudly; somebody else reviews it."""
    seen = Seen(yes=yes, plan_hash=plan_hash)
    extra = {"reason": reason, "code": code, "typed": typed}
    _decide("break-glass", number, seen, extra, key=key, file=token_file, as_json=as_json)


def review(
    number: Number,
    reason: Annotated[str, typer.Option("--reason", help="What was found.")],
    key: Key = "",
    token_file: TokenFile = None,
    as_json: JsonOption = False,
) -> None:
    """Close what ran without its votes."""
    _plainly("review", number, {"reason": reason}, key, token_file, as_json=as_json)


def cancel(
    number: Number, key: Key = "", token_file: TokenFile = None, as_json: JsonOption = False
) -> None:
    """Cancel a request of one's own, or stop its run."""
    _plainly("cancel", number, {}, key, token_file, as_json=as_json)


def pause(
    number: Number, key: Key = "", token_file: TokenFile = None, as_json: JsonOption = False
) -> None:
    """Have a run wait, such as a backfill."""
    _plainly("pause", number, {}, key, token_file, as_json=as_json)


def resume(
    number: Number, key: Key = "", token_file: TokenFile = None, as_json: JsonOption = False
) -> None:
    """Have a run go on that waits."""
    _plainly("resume", number, {}, key, token_file, as_json=as_json)


def withdraw(
    number: Number, key: Key = "", token_file: TokenFile = None, as_json: JsonOption = False
) -> None:
    """Take one's own vote back."""
    _plainly("withdraw", number, {}, key, token_file, as_json=as_json)


# What stands after the operation is the operation's, also when it begins with --.
_FREE: Final = {"ignore_unknown_options": True}
remote_app = typer.Typer()
remote_app.command("request", context_settings=_FREE)(request)
remote_app.command("query", context_settings=_FREE)(query)
for _command in (requests, show, approve, deny, cancel, pause, resume, withdraw, review):
    remote_app.command(_command.__name__)(_command)
remote_app.command("break-glass")(break_glass)


def _plainly(
    action: str, number: int, body: Mapping[str, Any], key: str, file: Path | None, *, as_json: bool
) -> None:
    said = _remote(file).post(f"/api/requests/{number}/{action}", body, key=_key(key))
    _tell(said, as_json=as_json)


def _decide(
    action: str,
    number: int,
    seen: Seen,
    extra: dict[str, str],
    *,
    key: str,
    file: Path | None,
    as_json: bool,
) -> None:
    if seen.yes != bool(seen.plan_hash) or (as_json and not seen.yes):
        raise BadInputError(
            "It is not said which plan was read.",
            next_step="For scripts: --yes --plan-hash HASH, as `twokey show` prints it.",
        )
    remote = _remote(file)
    said = remote.get(f"/api/requests/{number}")
    if not said.ok:
        _tell(said, as_json=as_json)
        return
    shown = _proven(said.body)
    if not as_json:
        _print(shown)
    if not seen.yes:
        extra = _asked(action, shown, extra)
    body = {
        "plan_hash": seen.plan_hash or shown["plan_hash"],
        "policy_hash": seen.policy_hash or shown["policy_hash"],
        "step": shown["step"] if seen.step < 0 else seen.step,
        **{name: value for name, value in extra.items() if value},
    }
    _tell(remote.post(f"/api/requests/{number}/{action}", body, key=_key(key)), as_json=as_json)


def _asked(action: str, shown: Mapping[str, Any], extra: dict[str, str]) -> dict[str, str]:
    """What the person answers; leaves without sending anything when they do not agree."""
    given = dict(extra)
    careful = shown["care"] if action in ("approve", "break-glass") else []
    if "named" in careful and not given.get("typed"):
        given["typed"] = _prompt(f"To {action}, type the database's name")
        agreed = given["typed"] == shown["database"]
    else:
        agreed = _prompt(f"{action} request {int(shown['id'])}? Type y").strip().lower() == "y"
    if not agreed:
        complain("Nothing was sent.", "")
        raise typer.Exit(REFUSED)
    if "step_up" in careful and not given.get("code"):
        given["code"] = _prompt("Code of your second factor").strip()
    return given


def _prompt(question: str) -> str:
    sys.stdout.write(f"{question}: ")
    sys.stdout.flush()
    return sys.stdin.readline().rstrip("\n")


def _remote(file: Path | None) -> Remote:
    settings = load_settings()
    if is_overheard(settings.url):
        complain(
            f"Your token travels to {line(settings.url)} in the clear.",
            "Set TWOKEY_URL to an https:// address.",
        )
    return Remote(url=settings.url, token=token_of(settings.token, file))


def _proven(shown: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is shown, if its hash is that of the very plan that is printed."""
    text = str(shown.get("plan_text", ""))
    call = {name: shown.get(name) for name in ("database", "operation", "params")}
    says = {**shown.get("plan", {}), CALL: call}
    fits = hashlib.sha256(text.encode()).hexdigest() == shown.get("plan_hash")
    if not fits or json.loads(text) != says:
        raise BadInputError(
            "What Twokey sent does not fit its own hash, so it cannot be what would run.",
            next_step="Do not agree to it. Tell the people who run Twokey.",
        )
    return shown


def _print(shown: Mapping[str, Any]) -> None:
    for each in request_lines(shown):
        say(each)


def _tell(said: Said, *, as_json: bool) -> None:
    """What became of it: for people as sentences, for scripts whole."""
    body = said.body
    if as_json:
        say(document(body))
    elif said.ok:
        number = (body.get("request") or {}).get("id")
        told = " ".join(filter(None, (body.get("problem"), body.get("next_step"))))
        say(line(told or (f"Request {number}." if number else "Done.")))
        missing = (body.get("request") or {}).get("missing")
        if missing:
            say(f"Missing: {line(missing)}")
    else:
        complain(line(body.get("problem", "It was refused.")), line(body.get("next_step", "")))
    if not said.ok:
        raise typer.Exit(REFUSED if said.is_refusal else BAD_INPUT)


def _key(given: str) -> str:
    return given or str(uuid4())
