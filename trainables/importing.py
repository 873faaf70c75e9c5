"""Functions of the user's own, named in a preset as ``module:function``, and the source text that they come from."""

import ast
import hashlib
import importlib
import sysconfig
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from trainables.suggestions import did_you_mean

THIS_PROJECT = ("trainables", "study", "search_spaces", "analysis")


def imported(name: str) -> Callable[..., Any]:
    """The function that ``package.module:function`` names.

    Raises:
        KeyError: it cannot be imported; the first argument states why.
    """
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise KeyError(f"{name!r} names no function: give module:function, such as my_package.nets:my_net")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the module is the user's own: importing it may raise anything
        raise KeyError(f"{name!r}: {module_name} could not be imported ({type(error).__name__}: {error})") from error
    function: Callable[..., Any] | None = getattr(module, function_name, None)
    if not callable(function):
        callables = [key for key, value in vars(module).items() if callable(value)]
        question = did_you_mean(function_name, callables, 3, before=": ")
        raise KeyError(f"{name!r}: {module_name} has no function {function_name}{question}")
    return function


@cache
def source_digest(name: str) -> str:
    """SHA-256 of the source text behind ``package.module:function``: that of its module and of what it imports.

    Modules count as the user's own if they belong to the function's top-level package, or lie neither in the standard
    library nor where packages are installed. They are found in the text, without importing any, so that imports inside
    of functions count too. The digest is taken once per process, as modules are loaded once.
    """
    start = name.partition(":")[0]
    texts: dict[str, str] = {}
    pending = [start]
    while pending:
        module = pending.pop()
        if module not in texts and (path := _own_file(module, start.partition(".")[0])) is not None:
            texts[module] = path.read_text(encoding="utf-8")
            pending += _imports(module, texts[module], is_package=path.name == "__init__.py")
    digest = hashlib.sha256()
    for module, text in sorted(texts.items()):
        digest.update(f"{module}\0{len(text)}\0{text}".encode())
    return digest.hexdigest()


def _own_file(module: str, top: str) -> Path | None:
    """The source file of a module of the user's own; None for all others."""
    if module.partition(".")[0] in THIS_PROJECT:
        return None
    try:
        spec = find_spec(module)
    except (ImportError, AttributeError, ValueError):
        # It is only imported under a condition that does not hold here, or is no module but a name within one.
        return None
    if spec is None or not spec.has_location or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    path = Path(spec.origin).resolve()
    return path if module.partition(".")[0] == top or not is_installed(path) else None


def is_installed(path: Path) -> bool:
    """Whether a file is Python's own or of an installed package, of whatever environment this one builds upon."""
    return any(path.is_relative_to(folder) for folder in _STANDARD) or not _INSTALLED.isdisjoint(path.parts)


_STANDARD = [Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib")]
_INSTALLED = {"site-packages", "dist-packages"}


def _imports(module: str, text: str, *, is_package: bool) -> Iterator[str]:
    """Names of the modules that a text may import, with the packages that they are in."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            origin = resolve_name(origin, package) if node.level else origin
            # What is imported from a package may be a module of it.
            names = [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:depth]) for depth in range(1, len(parts) + 1))
