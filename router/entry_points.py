"""Loads an operator's own function, named in a setting or an option as `package.module:function`."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from router.errors import StepdownError


def load_function(name: str, setting: str, refused: type[StepdownError]) -> Callable[..., Any]:
    """setting: the setting or option that holds the name, for the message. Raises `refused` for anything its module raises."""
    module, _, path = name.partition(":")
    try:
        found: Any = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise refused(f"{setting}: {name!r} cannot be loaded ({error}); expected package.module:function on the path") from error
    if not callable(found):
        raise refused(f"{setting}: {name!r} is a {type(found).__name__}; expected a function")
    function: Callable[..., Any] = found
    return function
