"""Functions of the user's own, named in a preset as ``module:function``."""

import difflib
import importlib
from collections.abc import Callable
from typing import Any


def imported(name: str) -> Callable[..., Any]:
    """The function that ``package.module:function`` names.

    Raises:
        KeyError: it cannot be imported; the first argument says why, for people.
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
        near = difflib.get_close_matches(function_name, callables)
        hint = f": did you mean {' or '.join(near)}?" if near else ""
        raise KeyError(f"{name!r}: {module_name} has no function {function_name}{hint}")
    return function
