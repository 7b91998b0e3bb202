"""Finds, in the engine's source, every private name that is not the engine's own."""

import ast
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

ENGINE = Path(importlib.import_module("app.engine").__file__).parent
_PRIVATE = re.compile(r"_[A-Za-z]\w*")


def private_names(file: Path) -> set[str]:
    """Private names of others in one file: read, set, called, overridden, or spelled out for `getattr`."""
    tree = ast.parse(file.read_text())
    module = importlib.import_module(f"app.engine.{file.stem}")
    own = _own(tree)
    found = {name for name, of_self in _used(tree) if not of_self and name not in own}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            inherited = _inherited(module, node.name)
            mine = {name for name, of_self in _used(node) if of_self} | _methods(node)
            found |= {name for name in mine if re.search(rf"\b{name}\b", inherited)}
    return found


def _used(tree: ast.AST) -> set[tuple[str, bool]]:
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _PRIVATE.fullmatch(node.attr):
            of_self = isinstance(node.value, ast.Name) and node.value.id == "self"
            used.add((node.attr, of_self or _is_super(node.value)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _PRIVATE.fullmatch(node.value):
            used.add((node.value, False))
        elif isinstance(node, ast.ImportFrom):
            parts = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            used |= {(part, False) for part in parts if _PRIVATE.fullmatch(part)}
    return used


def _is_super(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"


def _methods(node: ast.ClassDef) -> set[str]:
    made = (child.name for child in node.body if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))
    return {name for name in made if _PRIVATE.fullmatch(name)}


def _own(tree: ast.AST) -> set[str]:
    """What this file gives a name to: methods, functions, slots, and attributes of `self`."""
    own = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                own.add(node.attr)
        elif isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "__slots__" for t in node.targets
        ):
            own |= {leaf.value for leaf in ast.walk(node.value) if isinstance(leaf, ast.Constant)}
    return own


def _inherited(module: ModuleType, name: str) -> str:
    """The source of the classes of others that a class inherits from."""
    cls = getattr(module, name, None)
    if not inspect.isclass(cls):
        return ""
    others = [base for base in cls.__mro__ if not base.__module__.startswith(("app.", "builtins"))]
    return "\n".join(_source(base) for base in others)


def _source(cls: type) -> str:
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):
        return ""
