"""Code that passes given tests: a smaller tier's answer that does is accepted, one that does not goes up.

A client sends its tests as the body's `stepdown.tests`. Running a model's code wants a sandbox, which is the operator's:
`escalation.tests` names a function, which is called in a thread. What it cannot tell is no evidence, neither good nor bad.
"""

from collections.abc import Callable
from importlib import import_module

from router.errors import BadConfig

Check = Callable[[str, str], bool | None]
"""(the whole answer, the client's tests) -> whether it passes; None: it cannot be told"""


def find_check(name: str | None) -> Check | None:
    """The function behind `package.module:function`. Raises BadConfig."""
    if name is None:
        return None
    module, _, function = name.partition(":")
    if not function:
        raise BadConfig(f"escalation.tests: {name!r}, expected package.module:function")
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise BadConfig(f"escalation.tests: {name!r}: {error}") from None
    if not callable(found):
        raise BadConfig(f"escalation.tests: {name!r} is no function")
    check: Check = found
    return check
