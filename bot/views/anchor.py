"""An anchor of the audit as a message: readable, and with the line that an auditor copies. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from approvals.anchors import Anchor, from_line
from approvals.counting import count_text
from bot.blocks import Message, code_blocks, context, header, section, table


def anchor_message(payload: Mapping[str, Any]) -> Message:
    """One page of an anchor. All heads of the page stand in it, and the line as it is."""
    line = str(payload["line"])
    anchor = from_line(line)
    chains = count_text(int(payload["chains"]), "chain")
    when = f"{anchor.at:%Y-%m-%d %H:%M} UTC"
    part = f", part {anchor.page} of {anchor.pages}" if anchor.pages > 1 else ""
    spoken = f"Audit anchor of {when}{part}: {chains}, combined hash {anchor.root}"
    return Message(
        text=spoken,
        blocks=(
            header(f"Audit anchor of {when}{part}"),
            section(f"*{chains}*, combined hash `{anchor.root}`"),
            *code_blocks(_ends(anchor)),
            section(f"```\n{line}\n```"),
            context(
                "Keep this message. Copy the last code block into a file, and "
                "`twokey audit verify EXPORT --anchors FILE` tells whether the audit was cut or "
                "made anew since."
            ),
        ),
    )


def _ends(anchor: Anchor) -> str:
    rows = [(head.chain or "(general)", str(head.seq), head.hash[:16]) for head in anchor.heads]
    return table(("Chain", "Entries", "Ends with"), rows) if rows else "There are no entries yet."
