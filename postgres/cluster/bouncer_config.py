"""The line of a pgbouncer.ini that says where a database is. Pure."""

from __future__ import annotations

import re
from typing import Final

_SECTION: Final = re.compile(r"\s*\[(?P<name>[^\]]*)\]\s*")
_ENTRY: Final = re.compile(
    r'(?P<head>\s*(?:"(?P<quoted>[^"]*)"|(?P<plain>[^\s=]+))\s*=\s*)(?P<rest>.*)'
)
_WORD: Final = r"(?:^|(?<=\s)){name}\s*=\s*(?:'[^']*'|[^\s']+)"


def with_place(text: str, database: str, *, host: str, port: str) -> str:
    """The configuration with this database's host and port, and nothing else changed.

    Raises:
        ValueError: there is no such line, or more than one.
    """
    lines, section, found = text.splitlines(keepends=True), "", 0
    for number, line in enumerate(lines):
        if head := _SECTION.fullmatch(line.rstrip("\r\n")):
            section = head["name"].strip()
            continue
        entry = _ENTRY.fullmatch(line.rstrip("\r\n"))
        if section != "databases" or entry is None or line.lstrip().startswith((";", "#", "%")):
            continue
        if (entry["quoted"] if entry["quoted"] is not None else entry["plain"]) == database:
            found += 1
            end = line[len(line.rstrip("\r\n")) :]
            lines[number] = entry["head"] + _placed(entry["rest"], host, port) + end
    if found != 1:
        raise ValueError(f"it names {database} {found} times under [databases]")
    return "".join(lines)


def _placed(words: str, host: str, port: str) -> str:
    for name, value in (("host", host), ("port", port)):
        pattern = re.compile(_WORD.format(name=name))
        word = f"{name}={value}"
        if pattern.search(words):
            words = pattern.sub(lambda _, word=word: word, words, count=1)  # type: ignore[misc]
        else:
            words = f"{word} {words}".rstrip()
    return words
