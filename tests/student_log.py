"""A ledger with requests that the larger tier has answered and the smaller was asked too, for tests of what a student learns."""

import json

from kept_answers import TRACE, keep, kept, with_metadata
from sqlalchemy import insert

from deployments.ledger.database import writing
from deployments.ledger.schema import fills, grades

SIGNALS = json.dumps({"mean_logprob": -0.01, "logprob_tokens": 3})


def fill_log(engine, numbers, wrong=4, app="mail", drawn=True, student=True, model=None, every_s=60.0, **more):
    """Requests of these numbers, one a minute; of one in `wrong` the small tier's answer is wrong, as its grade says.

    model: of both tiers' answers; by default not known.
    """
    rows, drawn_rows, graded = [], [], []
    for n in numbers:
        trace, at_s = TRACE.format(n), 1_000.0 + every_s * n
        right = n % wrong != 0
        common = {"created_s": at_s, "model": model or "", "signals": SIGNALS, **more}
        rows.append(with_metadata(n, f"k{n % 7}", {"app": app}, tier="large", answer=said(f"It is {n + 1}."), **common))
        if student:
            text = f"It is {n + 1}." if right else "It is none."
            rows.append(kept(n, f"k{n % 7}", "fill", "small", answer=said(text), **common))
            graded.append({"trace_id": trace, "tier": "small", "score": float(right), "source": "agreement"})
            graded.append({"trace_id": trace, "tier": "large", "score": 1.0, "source": "top"})
        if drawn:
            drawn_rows.append({"trace_id": trace, "drawn_s": at_s, "chance": 0.5, "state": "done", "why": "", "changed_s": at_s})
    keep(engine, *rows)
    with writing(engine) as connection:
        for table, some in ((fills, drawn_rows), (grades, [{**row, "detail": "", "at_s": 1.0} for row in graded])):
            if some:
                connection.execute(insert(table), some)


def said(text):
    return json.dumps({"role": "assistant", "content": text})
