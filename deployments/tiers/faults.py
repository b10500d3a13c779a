"""Decides whose fault an error of a tier is: the one place through which all error answers of all engines pass.

| who | known by | error |
| --- | --- | --- |
| the request, for this window | 413, a code or a reason that names the context length | WindowExceeded: a wider tier may answer |
| the operator | 401, 402, 403, 404, 3xx ...; codes and reasons of keys, accounts, quotas and models | TierMisconfigured |
| nobody: the tier is full | 429, 529; 503 with `retry-after` | TierBusy: it is left alone as long as it asks |
| the request | 400, 409, 415, 422; 403 and 404 that name one of its fields | TierFailed with 400 or 422 and the reason |
| the tier | all else | TierFailed with 502, NoReplica |

A reason may repeat what the client wrote. So a reason shows the operator's fault only by how it begins, where no client's text
stands; otherwise a client could shut a tier's circuit by its choice of words.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any

from deployments.replicas.request_faults import status_of
from router.errors import REQUESTS_OWN, NoReplica, RequestFailed, TierBusy, TierFailed, TierMisconfigured, WindowExceeded

MOST_BYTES = 65_536  # of an error body that are read
MOST_CHARS = 500  # of a reason
MOST_DEPTH = 5  # levels of an error body that are looked at
MOST_BACK_OFF_S = 300.0  # an upstream that names a longer time is asked again after this
UNTOLD_BACK_OFF_S = 1.0  # after a 429 that names no time
OVERLOADED = 529  # Anthropic's status for it

KEY = "its upstream refuses this server's key; check the variable that tiers.{tier}.api_key_env names, and the key's rights"
QUOTA = "the account at its upstream has no quota or credit left; raise its limit, or pay"
MODEL = "its upstream does not know the model or the path; check tiers.{tier}.model and tiers.{tier}.url"
ADDRESS = "its upstream does not take requests at this address; check tiers.{tier}.url"
TIMEOUT = "its upstream gave up waiting; check the network and the proxies between, and their time limits"

MENDS = {401: KEY, 403: KEY, 407: KEY, 402: QUOTA, 404: MODEL, 410: MODEL, 405: ADDRESS, 421: ADDRESS, 426: ADDRESS, 408: TIMEOUT}
"""by the status"""
CODES = {
    KEY: "invalid_api_key api_key_invalid authentication_error autherror unauthenticated unauthorized permission_error"
    " permission_denied account_deactivated deactivated_workspace access_denied",
    QUOTA: "insufficient_quota billing_hard_limit_reached billing_not_active insufficient_balance insufficient_credits"
    " billing_error quota_exceeded exceeded_current_quota_error payment_required",
    MODEL: "model_not_found model_not_exist model_not_available model_decommissioned invalid_model deploymentnotfound"
    " notfounderror unknown_model",
}
"""by OpenAI's `code` or `type`, and what others write there"""
REASONS = {
    KEY: r"(?:incorrect|invalid|missing|expired|wrong|no) (?:api|access|auth\w*)[ _-]?(?:key|token)"
    r"|(?:the |your )?api[ _-]?key\b"
    r"|(?:your |this |the )(?:account|organi[sz]ation|key)\b.{0,80}\b(?:deactivat|disabl|suspend|expired)",
    QUOTA: r"(?:your )?credit balance is too low|insufficient (?:balance|credit|quota|funds)|(?:you )?exceeded your current quota"
    r"|you have (?:run out of|no) credit",
    MODEL: r"(?:the |this )?(?:requested )?(?:model|deployment)\W{0,3}(?:[\w./:@-]{1,100}\W{1,3})?"
    r"(?:(?:does|do|is|was|has been|could|be) )*(?:not exist|not found|decommissioned|deprecated|not a valid model)"
    r"|[\w./:@-]{1,100} is not a valid model\b|(?:invalid|unknown|no such) model\b",
    ADDRESS: r"(?:400 )?the plain http request was sent to https port",
}
"""by how the reason begins"""
TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size|contextwindowexceeded|string_above_max_length"
    r"|(?:maximum|max|model'?s|available|exceed\w*)\b.{0,40}"
    r"\b(?:context|model|prompt|input|sequence) ?(?:length|size|window|limit)"
    r"|(?:context|prompt|input) ?(?:length|size|window)?\b.{0,40}"
    r"\b(?:is too (?:long|large)|too many tokens|exceed\w*|longer than)\b"
    r"|\binputs?`? tokens \+ `?max_new_tokens|\binputs?`? must have less than|too many (?:input |prompt )?tokens"
    r"|reduce the length of (?:the|your) (?:messages|prompt|input)|greater than the context length|prompt too long",
    re.IGNORECASE,
)
MODERATED = re.compile(r"\bflagged\b|moderation|content[_ ](?:policy|filter)|no such file", re.IGNORECASE)
SECRET = re.compile(r"\b(?:sk|gsk|pk|hf|xai|nvapi|pplx|r8|key)[-_][\w*.-]{6,}|\bAIza[\w-]{10,}|\bBearer\s+\S+", re.IGNORECASE)
TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
MARKUP = re.compile(r"\s*<(?:!doctype|html|head|body|\?xml|title)", re.IGNORECASE)
IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")

BY_CODE = {name: mend for mend, names in CODES.items() for name in names.split()}
BY_REASON = {mend: re.compile(begins, re.IGNORECASE) for mend, begins in REASONS.items()}
NAMED_STATUS = {
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "bad_request": 400,
    "invalid_argument": 400,
    "validation": 400,
    "content_filter": 400,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "resource_exhausted": 429,
    "overloaded_error": OVERLOADED,
    "unavailable": 503,
}
"""of an error in a stream that has no number"""


@dataclass(frozen=True, slots=True)
class Said:
    """What an error body says, in whatever dialect."""

    reason: str = ""
    """one line, at most MOST_CHARS, without control characters and secrets"""
    codes: tuple[str, ...] = ()
    """its codes and types, in lower case"""
    code: str = ""
    """OpenAI's `code`, in lower case"""
    param: str = ""
    """the field of the request that it names"""


def failure(tier: str, status: int, raw: bytes, headers: Mapping[str, str] | None = None) -> RequestFailed:
    """The error for a tier's answer with a status other than 200. headers: with names in lower case, or of any case."""
    return decide(tier, status, read(raw), retry_after_s(headers or {}))


def of_error_event(tier: str, error: Any) -> RequestFailed:
    """The error for an error object in place of an answer: in a stream, or in a document with status 200."""
    said = said_in(error)
    status = status_of(error) or next((NAMED_STATUS[code] for code in said.codes if code in NAMED_STATUS), 500)
    return decide(tier, status, said)


def decide(tier: str, status: int, said: Said, told_s: float = 0.0) -> RequestFailed:
    """told_s: seconds for which the tier asks to be left alone; 0: it names none."""
    if status == 413 or (status in (400, 422, 500) and too_long(said)):
        return WindowExceeded(tier)
    if status in (403, 404) and of_request(said):
        return refused(tier, 400, said)
    mend = operators(status, said, told_s)
    if mend:
        return TierMisconfigured(tier, f"tier {tier} answers with status {status}: {mend.format(tier=tier)}")
    if status in (429, OVERLOADED) or (status == 503 and told_s):
        return TierBusy(tier, f"it is full (status {status})", told_s or UNTOLD_BACK_OFF_S)
    if status == 503:
        return NoReplica(tier, "status 503")
    if status in REQUESTS_OWN:
        return refused(tier, status, said)
    return TierFailed(tier, said.reason or f"status {status}")


def too_long(said: Said) -> bool:
    return any(TOO_LONG.search(text) for text in (said.reason, *said.codes))


def of_request(said: Said) -> bool:
    """Whether an answer that usually blames the set-up is about the request: one of its fields, files or its content."""
    return bool(said.param and said.param != "model") or any(MODERATED.search(text) for text in (said.reason, *said.codes))


def operators(status: int, said: Said, told_s: float) -> str:
    """What the operator has to mend; empty: it is not the operator's fault."""
    if 300 <= status < 400:
        return ADDRESS
    by_code = next((BY_CODE[code] for code in said.codes if code in BY_CODE), "")
    if status == 429:  # a limit that passes soon is often called a quota too
        by_reason = "" if told_s else next((mend for mend, begins in BY_REASON.items() if begins.match(said.reason)), "")
        return by_code or by_reason
    if status in MENDS:
        return by_code or MENDS[status]
    if status not in (400, 422):
        return ""
    if said.param == "model":  # which is ours: the client's `model` is never sent on
        return MODEL
    return by_code or next((mend for mend, begins in BY_REASON.items() if begins.match(said.reason)), "")


def refused(tier: str, status: int, said: Said) -> TierFailed:
    """The request is wrong: the client gets the tier's reason in OpenAI's form."""
    if not said.reason:
        return TierFailed(tier, f"status {status}", status)
    field, code = said.param or None, said.code or "invalid_request"
    error = {"message": said.reason, "type": "invalid_request_error", "param": field, "code": code}
    return TierFailed(tier, said.reason, status, {"error": error})


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds for which the tier asks to be left alone, at most MOST_BACK_OFF_S; 0: it names none."""
    if told := number(headers.get("retry-after-ms", "")):
        return min(told / 1e3, MOST_BACK_OFF_S)
    value = headers.get("retry-after", "").strip()
    told = number(value)
    if not told and value and not value[0].isdigit():
        try:
            until = parsedate_to_datetime(value)
        except ValueError:
            return 0.0
        told = ((until if until.tzinfo else until.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    return max(0.0, min(told, MOST_BACK_OFF_S))


def number(text: str) -> float:
    """The positive number that it is; 0: it is none."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if isfinite(value) and value > 0 else 0.0


# -- what an error body says -----------------------------------------------------------------------------------------------


def read(raw: bytes) -> Said:
    text = raw[:MOST_BYTES].decode("utf-8", "replace")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        title = TITLE.search(text)
        marked = MARKUP.match(text) or title
        return Said(clean(re.sub("<[^>]*>", " ", title[1]) if title else ("" if marked else text)))
    return said_in(body)


def said_in(body: Any) -> Said:
    """Of a body or an error object that was parsed."""
    found = list(objects(body))
    names = [part[key] for key in ("code", "type", "status", "error_type", "reason") for part in found if key in part]
    codes = tuple(dict.fromkeys(name.lower() for name in names if isinstance(name, str) and IDENTIFIER.fullmatch(name)))
    own = next((part["code"].lower() for part in found if str(part.get("code")).lower() in codes), "")
    param = next((part["param"] for part in found if isinstance(part.get("param"), str)), "")
    return Said(clean(text_of(body)), codes, own, clean(param)[:64])


def objects(value: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """The objects in which servers write codes, inner ones first: they are the more exact. Not those that repeat the request."""
    if depth > MOST_DEPTH:
        return
    if isinstance(value, list):
        for part in value[:10]:
            yield from objects(part, depth + 1)
    if isinstance(value, dict):
        for key in ("error", "errors", "detail", "details"):
            yield from objects(value.get(key), depth + 1)
        yield value


MESSAGES = (
    "message",
    "msg",
    "detail",
    "error",
    "errors",
    "error_message",
    "error_msg",
    "details",
    "title",
    "faultstring",
    "fault",
)
"""keys under which servers say the reason, the best one first"""


def text_of(value: Any, depth: int = 0) -> str:
    """The reason that an error body gives; empty: none."""
    if isinstance(value, str):
        return value
    if depth > MOST_DEPTH or not isinstance(value, dict | list):
        return ""
    if isinstance(value, list):
        return "; ".join(text for part in value[:3] if (text := text_of(part, depth + 1)))
    lower = {str(key).lower(): part for key, part in list(value.items())[:20]}
    inner = [lower[key] for key in ("error", "errors") if isinstance(lower.get(key), dict | list)]
    texts = (text_of(part, depth + 1) for part in (*inner, *(lower[key] for key in MESSAGES if key in lower)))
    text = next((text for text in texts if text.strip()), "")
    if not text and depth:  # messages by field
        text = "; ".join(f"{key}: {said}" for key, part in list(lower.items())[:3] if (said := text_of(part, depth + 1)))
    where = ".".join(str(part) for part in lower["loc"][:6]) if isinstance(lower.get("loc"), list) else ""
    return f"{where}: {text}" if where and text else text


def clean(text: str) -> str:
    """One line of it, without what could be a key."""
    shown = "".join(char if char.isprintable() else " " for char in text[: 20 * MOST_CHARS])
    return SECRET.sub("[removed]", " ".join(shown.split()))[:MOST_CHARS]
