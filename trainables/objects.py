"""The user's functions that make networks and data sets: by ``module:function``, or given from Python as such.

One that is given, from a notebook, say, gets a name that is made of its source text and of what the text uses of the
user's own. So a cell of a notebook that is edited and run again has another name, and equal ones have the same in
every process.
"""

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from trainables import importing

PREFIX = "object:"
PROJECT = ("study", "trainables", "search_spaces", "analysis")
PLAIN = (int, float, str, bytes, bool, type(None))
MEMBERS = (FunctionType, staticmethod, classmethod, property, *PLAIN, list, tuple, dict)
"""Members of a class that its methods may use."""

Given = tuple[Callable[..., Any], str]
"""A function, and the SHA-256 of the source text behind it."""

_GIVEN: dict[str, Given] = {}


class ObjectError(ValueError):
    """A function that cannot be named; the message states why."""


def named(function: Callable[..., Any]) -> str:
    """Keep the function, and return the name under which :func:`find` finds it.

    Raises:
        ObjectError: its source text is not available.
    """
    if (importable := _importable(function)) is not None:
        return importable
    digest = _digest(function)
    name = f"{PREFIX}{getattr(function, '__name__', type(function).__name__)}-{digest[:12]}"
    _GIVEN[name] = function, digest
    return name


def find(name: str) -> Callable[..., Any]:
    """The function of a name: ``module:function``, or what :func:`named` returned.

    Raises:
        KeyError: there is none; the first argument states what to do.
    """
    if not name.startswith(PREFIX):
        return importing.imported(name)
    if name not in _GIVEN:
        raise KeyError(
            f"{name} was given from Python, and is not known here: give the function again, as in "
            'load_config(..., {"network": my_function}), or put it into a module and name it module:function'
        )
    function, _ = _GIVEN[name]
    return function


def source_digest(name: str) -> str:
    """SHA-256 of the source text behind a name."""
    if not name.startswith(PREFIX):
        return importing.source_digest(name)
    find(name)
    _, digest = _GIVEN[name]
    return digest


def among(names: Iterable[str]) -> dict[str, Given]:
    """The functions that another process needs in order to use these names."""
    given = [name.partition("?")[0] for name in names if name.startswith(PREFIX)]
    return {name: _GIVEN[name] for name in given}


def take(functions: dict[str, Given]) -> None:
    """Register functions that another process has named."""
    _GIVEN.update(functions)


def _importable(function: Callable[..., Any]) -> str | None:
    """The name of a function that any process can import."""
    module, name = getattr(function, "__module__", "__main__"), getattr(function, "__qualname__", "")
    there = module != "__main__" and getattr(sys.modules.get(module), name, None) is function
    return f"{module}:{name}" if there else None


def _digest(function: Callable[..., Any]) -> str:
    return hashlib.sha256("\0".join(_texts(function)).encode()).hexdigest()


def _texts(function: Callable[..., Any]) -> Iterator[str]:
    """Source texts of a function and of what it uses of the user's own, and the values that it uses."""
    pending: list[Any] = [function]
    # The objects are kept, or another one might get the number of one that is gone.
    seen: dict[int, Any] = {}
    while pending:
        used = pending.pop(0)
        if isinstance(used, PLAIN):
            yield repr(used)
        elif id(used) not in seen:
            seen[id(used)] = used
            yield from _text(used)
            pending += _uses(used)


def _text(used: object) -> Iterator[str]:
    if isinstance(used, FunctionType | type) and _is_own(used):
        yield _source(used)
    elif isinstance(used, ModuleType) and _is_own(used):
        yield importing.source_digest(used.__name__)
    elif isinstance(used, list | tuple | set | frozenset | dict):
        yield f"{type(used).__name__} of {len(used)}"


def _is_own(used: FunctionType | type | ModuleType) -> bool:
    module = used.__name__ if isinstance(used, ModuleType) else getattr(used, "__module__", None)
    if module == "__main__":
        return True
    # What the project itself computes is in every key by its version.
    if str(module).partition(".")[0] in PROJECT:
        return False
    try:
        return not importing.is_installed(Path(inspect.getfile(used)).resolve())
    except (OSError, TypeError):  # built in
        return False


def _source(used: FunctionType | type) -> str:
    try:
        return inspect.getsource(used)
    except OSError as error:
        raise ObjectError(
            f"the source text of {used.__qualname__} is not available, so equal results could not be recognised: "
            "define it in a file or in a notebook, or name it module:function"
        ) from error


def _uses(used: Any) -> list[Any]:
    """What an object of the user's own names or holds: globals, closures and defaults, a class's bases, elements."""
    if isinstance(used, partial):
        return [used.func, *used.args, dict(sorted(used.keywords.items()))]
    if isinstance(used, dict):
        return [part for item in used.items() for part in item]
    if isinstance(used, set | frozenset):
        return sorted(used, key=repr)
    if isinstance(used, list | tuple):
        return list(used)
    if isinstance(used, staticmethod | classmethod):
        return [used.__func__]
    if isinstance(used, property):
        return [used.fget, used.fset]
    if not isinstance(used, FunctionType | type) or not _is_own(used):
        return []
    if isinstance(used, type):
        # Not what Python prints of the class: its line in the file, say.
        told = {"__module__", "__qualname__", "__doc__", "__firstlineno__", "__static_attributes__"}
        members = [v for k, v in vars(used).items() if isinstance(v, MEMBERS) and k not in told]
        return [*used.__bases__, *(member for member in members if not _is_generated(member, used))]
    closure = [cell.cell_contents for cell in used.__closure__ or ()]
    names = dict.fromkeys(_names(used.__code__))
    named = [used.__globals__[name] for name in names if name in used.__globals__]
    return [*closure, *named, used.__defaults__, used.__kwdefaults__]


def _is_generated(member: object, of: type) -> bool:
    """Whether a dataclass's method was made from its fields, which the text of the class has."""
    return is_dataclass(of) and isinstance(member, FunctionType) and member.__code__.co_filename == "<string>"


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
