"""Write the generated parts of the docs: `make docs`. A test fails when they are out of date."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import typer
from typer.core import TyperCommand, TyperGroup

from approvals.machine import diagram
from bot.cli.main import app
from bot.metrics import Metrics
from bot.settings import Settings
from jobs.alert_machine import Severity
from jobs.alert_rule import Rule
from jobs.alert_table import RULES
from jobs.metric_text import unit_text
from jobs.operation import Operation
from jobs.registry import load_operations
from jobs.text import span_text
from postgres.health.metrics import METRICS, Unit

ROOT: Final = Path(__file__).parents[1]
BEGIN: Final = "<!-- states:begin -->\n"
END: Final = "<!-- states:end -->"
MEASURED_BEGIN: Final = "<!-- metrics:begin -->\n"
MEASURED_END: Final = "<!-- metrics:end -->"
RULES_BEGIN: Final = "<!-- rules:begin -->\n"
RULES_END: Final = "<!-- rules:end -->"
HEAD: Final = """# Reference

Written by `make docs` from the code; a test fails when it is out of date. Every command prints its
help with `--help`, takes `--json` where it prints data, and ends with 0 (fine), 1 (a check failed)
or 2 (bad input).
"""


def pages() -> Mapping[Path, str]:
    """Each generated page with what it should say."""
    how = ROOT / "docs" / "how-it-works.md"
    health = ROOT / "docs" / "health.md"
    return {
        ROOT / "docs" / "reference.md": reference(),
        how: with_states(how.read_text("utf-8")),
        health: with_measured(with_rules(health.read_text("utf-8"))),
    }


def reference() -> str:
    """Commands, operations, settings and metrics."""
    parts = [HEAD, "## Commands", *_commands(), "## Operations", *_operations()]
    parts += ["## Settings", _settings(), "## Metrics", _metrics()]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def with_states(text: str) -> str:
    """A page with the diagram of request states between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}```mermaid\n{diagram()}```\n{END}{after}"


def with_rules(text: str) -> str:
    """A page with the table of alerts between its two marks."""
    before, _, rest = text.partition(RULES_BEGIN)
    _, _, after = rest.partition(RULES_END)
    return f"{before}{RULES_BEGIN}{_rules()}\n{RULES_END}{after}"


def _rules() -> str:
    lines = [
        "| alert | metric | fires | for | over | hold | again | escalates |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_rule(rule) for rule in RULES.values())])


def _rule(rule: Rule) -> str:
    beyond, well = (">", "≤") if rule.above else ("<", "≥")
    unit = METRICS[rule.metric].unit if rule.metric in METRICS else Unit.COUNT
    beside = f" and `{rule.beside.metric}` > {rule.beside.fire:g}" if rule.beside else ""
    is_critical = rule.severity is Severity.CRITICAL
    cells = (
        f"**{rule.name}** (critical)" if is_critical else rule.name,
        f"`{rule.metric}`",
        f"{beyond} {unit_text(unit, rule.fire)}{beside}",
        span_text(rule.lasting) if rule.lasting else "at once",
        f"{well} {unit_text(unit, rule.clear)}",
        span_text(rule.hold),
        span_text(rule.repeat),
        span_text(rule.escalate) if rule.escalate else "",
    )
    return f"| {' | '.join(cells)} |"


def with_measured(text: str) -> str:
    """A page with the table of what is measured of a database between its two marks."""
    before, _, rest = text.partition(MEASURED_BEGIN)
    _, _, after = rest.partition(MEASURED_END)
    lines = ["| metric | unit | | of |", "|---|---|---|---|"]
    lines += [
        f"| `{m.name}` | {m.unit} | {m.says} | {'each node' if m.is_of_node else 'the primary'} |"
        for m in METRICS.values()
    ]
    return "\n".join([f"{before}{MEASURED_BEGIN}", *lines, f"\n{MEASURED_END}{after}"])


def _commands() -> Iterator[str]:
    for path, command in _walk(typer.main.get_group(app), "twokey"):
        context = typer.Context(command, info_name=path)
        usage = command.collect_usage_pieces(context)
        lines = [f"### `{' '.join([path, *usage])}`", "", command.help or ""]
        options = [record for p in command.params if (record := p.get_help_record(context))]
        if options:
            lines += ["", "| option | |", "|---|---|"]
            lines += [f"| `{name}` | {text} |" for name, text in options if name != "--help"]
        yield "\n".join(lines).rstrip("|- \n") if not options else "\n".join(lines)


def _walk(command: object, path: str) -> Iterator[tuple[str, TyperCommand]]:
    if isinstance(command, TyperCommand):
        yield path, command
    if not isinstance(command, TyperGroup):
        return
    context = typer.Context(command, info_name=path)
    for name in sorted(command.list_commands(context)):
        yield from _walk(command.get_command(context, name), f"{path} {name}")


def _operations() -> Iterator[str]:
    for operation in load_operations("commands").values():
        yield _operation(operation)


def _operation(operation: Operation) -> str:
    traits = f"A {operation.kind}; risk: {operation.risk}. Example: `{operation.example}`"
    lines = [
        f"### `/db {operation.name}`",
        "",
        f"{operation.summary}. {traits}",
        "",
        "| parameter | | when left out |",
        "|---|---|---|",
    ]
    for name, field in operation.params.model_fields.items():
        default = "required" if field.is_required() else f"`{field.default}`"
        if field.default == "":
            default = ""
        lines.append(f"| `{name}` | {field.description or ''} | {default} |")
    return "\n".join(lines)


def _settings() -> str:
    lines = ["| variable | | default |", "|---|---|---|"]
    for field in Settings.model_fields.values():
        default = "" if field.default is None else f"`{field.default}`"
        lines.append(f"| `{field.validation_alias}` | {field.description} | {default} |")
    return "\n".join(lines)


def _metrics() -> str:
    lines = ["| metric | type | |", "|---|---|---|"]
    families = sorted(Metrics().registry.collect(), key=lambda family: family.name)
    lines += [f"| `{f.name}` | {f.type} | {f.documentation} |" for f in families]
    return "\n".join(lines)


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{page.relative_to(ROOT)}\n")
