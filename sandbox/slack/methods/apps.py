"""auth.*, apps.*, api.*, bots.*, team.* and blocks.*: the app about itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sandbox.slack.blocks import check_blocks
from sandbox.slack.call import Call, Method
from sandbox.slack.errors import ApiError
from sandbox.slack.workspace import Json


def _test(call: Call) -> Json:
    workspace = call.workspace
    return {
        "url": "https://acme.slack.example/",
        "team": workspace.team_name,
        "user": call.platform.manifest.bot_name,
        "team_id": workspace.team_id,
        "user_id": workspace.app.user,
        "bot_id": workspace.app.bot,
        "is_enterprise_install": False,
    }


def _echo(call: Call) -> Json:
    if code := call.optional("error"):
        raise ApiError(code, args=dict(call.args))
    return {"args": dict(call.args)}


def _bot(call: Call) -> Json:
    app = call.workspace.app
    if call.optional("bot") not in {None, app.bot}:
        raise ApiError("bot_not_found")
    return {
        "bot": {
            "id": app.bot,
            "deleted": False,
            "name": app.name,
            "updated": 0,
            "app_id": app.id,
            "user_id": app.user,
        }
    }


def _team(call: Call) -> Json:
    workspace = call.workspace
    return {"team": {"id": workspace.team_id, "name": workspace.team_name, "domain": "acme"}}


def _validate(call: Call) -> Json:
    blocks = call.structure("blocks", code="invalid_blocks_format")
    if not isinstance(blocks, list):
        raise ApiError("invalid_blocks_format")
    if problems := check_blocks(blocks, surface="message"):
        raise ApiError("invalid_blocks", *problems)
    return {}


METHODS: Final[Mapping[str, Method]] = {
    "api.test": Method(run=_echo, caller="nobody", tier=4),
    "auth.test": Method(run=_test, tier=4),
    "bots.info": Method(run=_bot, scope="users:read", tier=3),
    "team.info": Method(run=_team, scope="team:read", tier=3),
    "blocks.validate": Method(run=_validate, tier=4),
}
