"""Finds the operations: every module of a package that has an `OPERATION`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType

from jobs.operation import Kind, Operation


def load_operations(package: str) -> Mapping[str, Operation]:
    """The operations of `package` by name, in the order of their names.

    Raises:
        TypeError: an operation lacks what its kind needs, or two have one name. That is a
            mistake in our code, found at the start and by every test run.
    """
    found: dict[str, Operation] = {}
    folder = importlib.import_module(package)
    for module in pkgutil.iter_modules(folder.__path__, prefix=f"{package}."):
        operation = getattr(importlib.import_module(module.name), "OPERATION", None)
        if operation is None:
            continue
        if flaw := _flaw(operation, found):
            raise TypeError(f"{module.name}: {flaw}")
        found[operation.name] = operation
    return MappingProxyType(dict(sorted(found.items())))


def _flaw(operation: object, found: Mapping[str, Operation]) -> str | None:
    """Why this cannot be offered, or None."""
    if not isinstance(operation, Operation):
        return f"OPERATION is a {type(operation).__name__}, not an Operation"
    if operation.name in found:
        return f"there is an operation {operation.name!r} already"
    if operation.kind is Kind.QUERY and operation.answer is None:
        return "a query needs answer="
    if operation.kind is Kind.CHANGE and (operation.plan is None or operation.run is None):
        return "a change needs plan= and run="
    if operation.reads is not None and (operation.kind is Kind.QUERY or operation.answer is None):
        return "reads= is for a change that has answer= as well"
    return None
