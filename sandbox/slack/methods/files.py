"""files.*: announce a file, send its bytes, share it."""

from __future__ import annotations

import mimetypes
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sandbox.slack.call import Call, Method
from sandbox.slack.errors import ApiError
from sandbox.slack.methods.chat import thread, writable
from sandbox.slack.objects import file_object
from sandbox.slack.platform import Upload
from sandbox.slack.workspace import Channel, File, Json, Message

FILE_BYTES_MAX: Final = 10_000_000


def _announce(call: Call) -> Json:
    name = call.text("filename")
    try:
        length = int(call.text("length"))
    except ValueError:
        raise ApiError("invalid_arguments", "[ERROR] must be an integer: length") from None
    if not 0 < length <= FILE_BYTES_MAX:
        raise ApiError("invalid_arguments", "[ERROR] length is out of bounds")
    ticket = secrets.token_urlsafe(18)
    file_id = call.workspace.next_id("F")
    call.platform.uploads[ticket] = Upload(file_id=file_id, name=name, length=length)
    return {"upload_url": f"{call.platform.url}/upload/v1/{ticket}", "file_id": file_id}


def _complete(call: Call) -> Json:
    wanted = call.objects("files", code="invalid_arguments")
    if not wanted:
        raise ApiError("invalid_arguments", "[ERROR] missing required field: files")
    channels = [writable(call, _find(call, channel_id)) for channel_id in _channel_ids(call)]
    shared = tuple(channel.id for channel in channels)
    files = [_stored(call, entry, shared) for entry in wanted]
    for channel in channels:
        _share(call, channel, files)
    return {"files": [file_object(call.workspace, file) for file in files]}


def _channel_ids(call: Call) -> list[str]:
    several = (call.optional("channels") or "").split(",")
    return [one for one in [call.optional("channel_id"), *several] if one]


def _find(call: Call, channel_id: str) -> Channel | None:
    if channel_id in call.workspace.people:
        raise ApiError("channel_not_found")  # unlike chat.postMessage, this wants the DM's id
    return call.workspace.channels.get(channel_id)


def _stored(call: Call, entry: Json, shared: tuple[str, ...]) -> File:
    uploads = call.platform.uploads
    found = ((k, u) for k, u in uploads.items() if u.file_id == entry.get("id") and u.data)
    ticket, upload = next(found, ("", None))
    if upload is None or upload.data is None:
        raise ApiError("file_not_found")
    del uploads[ticket]
    file = File(
        id=upload.file_id,
        name=upload.name,
        title=entry.get("title") or upload.name,
        mimetype=mimetypes.guess_type(upload.name)[0] or "application/octet-stream",
        data=upload.data,
        user=call.workspace.app.user,
        created=int(call.platform.now()),
        shared=shared,
    )
    call.workspace.files[file.id] = file
    return file


def _share(call: Call, channel: Channel, files: list[File]) -> None:
    call.workspace.put(
        Message(
            channel=channel.id,
            ts=call.platform.next_ts(),
            user=call.workspace.app.user,
            text=call.optional("initial_comment") or "",
            thread_ts=thread(call, channel),
            files=tuple(file.id for file in files),
        )
    )


def _known(call: Call) -> File:
    file = call.workspace.files.get(call.text("file", missing="file_not_found"))
    if file is None:
        raise ApiError("file_not_found")
    return file


def _info(call: Call) -> Json:
    return {"file": file_object(call.workspace, _known(call))}


def _delete(call: Call) -> Json:
    file = _known(call)
    del call.workspace.files[file.id]
    for channel_id in file.shared:
        for message in call.workspace.messages(channel_id):
            if file.id in message.files:
                kept = tuple(one for one in message.files if one != file.id)
                call.workspace.put(replace(message, files=kept))
    return {}


METHODS: Final[Mapping[str, Method]] = {
    "files.getUploadURLExternal": Method(run=_announce, scope="files:write", tier=4),
    "files.completeUploadExternal": Method(run=_complete, scope="files:write", tier=4),
    "files.info": Method(run=_info, scope="files:read", tier=4),
    "files.delete": Method(run=_delete, scope="files:write", tier=3),
}
