"""Functions of the user's own that make networks and data sets: by ``module:function``, or given from Python as such.

One that is given, from a notebook, say, gets a name that is made of its source text and of what the text uses of the
user's own. So a cell of a notebook that is edited and run again gives another name, and equal ones give the same in
every process.
"""

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from trainables import importing

PREFIX = "object:"

Given = tuple[Callable[..., Any], str]
"""A function, and the SHA-256 of the source text behind it."""

_GIVEN: dict[str, Given] = {}


class ObjectError(ValueError):
    """A function that cannot be named; the message says why, for people."""


def named(function: Callable[..., Any]) -> str:
    """Keep the function, and give the name under which :func:`find` finds it.

    Raises:
        ObjectError: its source text is not to be had.
    """
    if (importable := _importable(function)) is not None:
        return importable
    digest = _digest(function)
    name = f"{PREFIX}{getattr(function, '__name__', type(function).__name__)}-{digest[:12]}"
    _GIVEN[name] = function, digest
    return name


def find(name: str) -> Callable[..., Any]:
    """The function of a name: ``module:function``, or what :func:`named` gave.

    Raises:
        KeyError: there is none; the first argument says what to do, for people.
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
    """Those functions that a process needs which is to use the names."""
    given = [name.partition("?")[0] for name in names if name.startswith(PREFIX)]
    return {name: _GIVEN[name] for name in given}


def take(functions: dict[str, Given]) -> None:
    """Know functions that another process has named."""
    _GIVEN.update(functions)


def _importable(function: Callable[..., Any]) -> str | None:
    """The name of a function that any process can import."""
    module, name = getattr(function, "__module__", "__main__"), getattr(function, "__qualname__", "")
    there = module != "__main__" and getattr(sys.modules.get(module), name, None) is function
    return f"{module}:{name}" if there else None


def _digest(function: Callable[..., Any]) -> str:
    return hashlib.sha256("\0".join(_texts(function)).encode()).hexdigest()


def _texts(function: Callable[..., Any]) -> Iterator[str]:
    """Source texts of a function and of the user's own functions and classes that it uses, and plain values in them."""
    pending: list[Any] = [function]
    seen: set[int] = set()
    while pending:
        used = pending.pop(0)
        if id(used) in seen:
            continue
        seen.add(id(used))
        if isinstance(used, partial):
            pending += [used.func, *used.args, *used.keywords.values()]
            yield f"{sorted(used.keywords)}"
        elif isinstance(used, FunctionType | type):
            if _is_own(used):
                yield _source(used)
                pending += _uses(used)
        elif isinstance(used, int | float | str | bool | tuple | None):
            yield repr(used)


def _is_own(used: FunctionType | type) -> bool:
    if used.__module__ == "__main__":
        return True
    try:
        return not importing.is_installed(Path(inspect.getfile(used)).resolve())
    except (OSError, TypeError):  # built in
        return False


def _source(used: FunctionType | type) -> str:
    try:
        return inspect.getsource(used)
    except OSError as error:
        raise ObjectError(
            f"the source text of {used.__qualname__} is not to be had, so equal results could not be told: define it "
            "in a file or in a notebook, or name it module:function"
        ) from error


def _uses(used: FunctionType | type) -> list[Any]:
    """What the functions of a text name: values of their globals and closures, and a class's bases."""
    if isinstance(used, type):
        methods = [member for member in vars(used).values() if isinstance(member, FunctionType)]
        return [*used.__bases__, *(value for method in methods for value in _uses(method))]
    closure = [cell.cell_contents for cell in used.__closure__ or ()]
    names = dict.fromkeys(_names(used.__code__))
    return closure + [used.__globals__[name] for name in names if name in used.__globals__]


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
