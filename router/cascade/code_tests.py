"""Code that has to pass the client's tests: a smaller tier's answer is accepted if its code passes, and escalated if it fails.

A client sends its tests as the body's `stepdown.tests`. Running a model's code needs a sandbox, which is the operator's:
`escalation.tests` names a function, which is called in a thread. If it cannot tell, that is no evidence, neither good nor bad.
"""

from collections.abc import Callable

from router.entry_points import load_function
from router.errors import BadConfig

CodeCheck = Callable[[str, str], bool | None]
"""(the whole answer, the client's tests) -> whether its code passes; None: it cannot tell"""


def load_code_check(name: str | None) -> CodeCheck | None:
    """The function named `package.module:function`. Raises BadConfig."""
    return None if name is None else load_function(name, "escalation.tests", BadConfig)
