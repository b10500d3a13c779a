"""Code that passes given tests: a smaller tier's answer that does is accepted, one that does not goes up.

A client sends its tests as the body's `stepdown.tests`. Running a model's code wants a sandbox, which is the operator's:
`escalation.tests` names a function, which is called in a thread. What it cannot tell is no evidence, neither good nor bad.
"""

from collections.abc import Callable

from router.entry_points import load_function
from router.errors import BadConfig

Check = Callable[[str, str], bool | None]
"""(the whole answer, the client's tests) -> whether it passes; None: it cannot be told"""


def find_check(name: str | None) -> Check | None:
    """The function behind `package.module:function`. Raises BadConfig."""
    return None if name is None else load_function(name, "escalation.tests", BadConfig)
