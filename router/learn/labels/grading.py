"""Graders by name: each scores an answer against the reference, (answer, reference, row) -> [0, 1].

What a grader needs of a row is checked before any answer is paid for: `reference_fault`. What it makes of an answer is checked
too: `graded`. Built-in graders run under a limit of time, because a regular expression can take years.
"""

import json
import math
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from router.entry_points import load_function
from router.errors import BadInput
from router.learn.chats import is_whole
from router.request.schemas import judge, validator

Grader = Callable[[str, Any, Mapping[str, Any]], float]
LIMIT_S = 1.0  # processor time for one answer by a built-in grader

_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_CHOICE = re.compile(r"\b(?:answer|option|choice)\b[^A-Za-z0-9]*(?:is|:)?[^A-Za-z0-9]*\(?([A-Z])\b|^\W*\(?([A-Z])\W*$", re.M)


def exact(answer: str, reference: Any, row: Mapping[str, Any]) -> float:
    """1 for the same text, ignoring white space at both ends."""
    return float(answer.strip() == str(reference).strip())


def last_number(text: str) -> float | None:
    """The last number in the text, since models reason first and conclude last."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "").rstrip(".")) if found else None


def numeric(answer: str, reference: Any, row: Mapping[str, Any]) -> float:
    """1 if the last numbers of answer and reference are equal to one part in a million."""
    given, wanted = last_number(answer), last_number(str(reference))
    if given is None or wanted is None:
        return 0.0
    return float(given == wanted or abs(given - wanted) <= 1e-6 * max(1.0, abs(wanted)))


def regex(answer: str, reference: Any, row: Mapping[str, Any]) -> float:
    """1 if the reference, a regular expression, matches in the answer."""
    return float(re.search(str(reference), answer) is not None)


def choice(answer: str, reference: Any, row: Mapping[str, Any]) -> float:
    """1 if the chosen letter is right: one after "answer", or alone on a line; the last counts."""
    found = [a or b for a, b in _CHOICE.findall(answer)]
    return float(bool(found) and found[-1] == _letter(reference))


def _letter(reference: Any) -> str:
    return str(reference).strip().strip("().").upper()


def _json_in(text: str) -> Any:
    """The JSON of an answer, with or without a code fence around it; None where there is none."""
    body = re.sub(r"^\s*```(?:json)?\s*|\s*```\s*$", "", text)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def json_schema(answer: str, reference: Any, row: Mapping[str, Any]) -> float:
    """1 if the answer is JSON that fits the row's `schema` and, where the row has a reference, equals it. Raises ValueError."""
    value = _json_in(answer)
    fits = None if value is None else judge(value, row.get("schema") or {})
    if value is not None and fits is None:
        raise ValueError("to check the answer against the row's schema takes too long; give a simpler schema")
    if not fits:
        return 0.0
    wanted = _json_in(reference) if isinstance(reference, str) else reference
    return float(reference is None or value == wanted)


GRADERS: dict[str, Grader] = {"exact": exact, "numeric": numeric, "regex": regex, "choice": choice, "json_schema": json_schema}


def find_grader(name: str) -> Grader | None:
    """A grader of GRADERS, or a function named as `package.module:function`. None for `judge`."""
    if name == "judge":
        return None
    if name in GRADERS:
        return GRADERS[name]
    if ":" not in name:
        raise BadInput(f"--grader {name!r}: expected {', '.join(GRADERS)}, judge, or package.module:function")
    return load_function(name, "--grader", BadInput)


# -- before anything is paid for -----------------------------------------------------------------------------------------------


def reference_fault(grader: Grader | None, row: Mapping[str, Any]) -> str:
    """Why the grader cannot grade answers to this row; empty: it can. The judge and the user's own graders may do without."""
    if grader not in GRADERS.values():
        return ""
    reference = row.get("answer")
    if grader is json_schema:
        return _schema_fault(reference, row.get("schema"))
    if reference is None:
        return "no reference: `answer` is missing"
    if not isinstance(reference, str | int | float) or not is_whole(reference):
        return f"the reference is {reference!r:.60}, expected a text or a number"
    if grader is numeric and _number_of(str(reference)) is None:
        return f"the reference is {str(reference)!r:.60}, expected a number"
    if grader is choice and not re.fullmatch("[A-Z]", _letter(reference)):
        return f"the reference is {str(reference)!r:.60}, expected a letter"
    return _pattern_fault(str(reference)) if grader is regex else ""


def _number_of(text: str) -> float | None:
    """A number of finite size."""
    found = last_number(text)
    return found if found is not None and math.isfinite(found) else None


def _pattern_fault(pattern: str) -> str:
    """Compiles the pattern and tries it, under the limit of time."""
    try:
        with time_limit():
            re.compile(pattern).search("")
    except TimeoutError:
        return f"the regular expression {pattern!r:.60} takes too long"
    except (re.error, RecursionError, OverflowError) as error:
        return f"the reference {pattern!r:.60} is no regular expression ({error})"
    return ""


def _schema_fault(reference: Any, schema: Any) -> str:
    if schema is None and reference is None:
        return "no reference: `schema` and `answer` are missing"
    if schema is not None and (not isinstance(schema, dict) or validator(json.dumps(schema, sort_keys=True)) is None):
        return f"`schema` is {schema!r:.60}, expected a JSON schema without patternProperties"
    if isinstance(reference, str) and _json_in(reference) is None and reference.strip() != "null":
        return f"the reference is {reference!r:.60}, expected JSON"
    return ""


# -- after an answer ----------------------------------------------------------------------------------------------------------


def graded(grader: Grader, answer: str, row: Mapping[str, Any]) -> tuple[float | None, str]:
    """The score, or None and why there is none: the grader failed, took too long, or gave no number from 0 to 1."""
    name = getattr(grader, "__name__", "the grader")
    try:
        if grader in GRADERS.values():
            with time_limit():
                found = grader(answer, row.get("answer"), row)
        else:
            found = grader(answer, row.get("answer"), row)
        score = float(found)
    except TimeoutError:
        return None, f"{name} took longer than {LIMIT_S:g} s of processor time"
    except Exception as error:  # noqa: BLE001 the user's own function may raise anything, and costs one row only
        return None, f"{name} failed ({type(error).__name__}: {error})"[:300]
    if not 0 <= score <= 1:
        return None, f"{name} gave {found!r:.40}, expected a number from 0 to 1"
    return score, ""


@contextmanager
def time_limit() -> Iterator[None]:
    """Raises TimeoutError in what takes more processor time than LIMIT_S. In the main thread only: others go on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
