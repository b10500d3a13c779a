"""Pages of kept answers: what is chosen, in which order, and that an index alone is read for it."""

import pytest
from kept_answers import TRACE, database, keep, kept, with_metadata
from sqlalchemy import event

from deployments.learning.kept import completions
from deployments.learning.kept.completions import Chosen, page, pages, trace_of


@pytest.fixture
def engine(tmp_path):
    made = database(tmp_path)
    keep(
        made,
        *(with_metadata(n, "app" if n % 2 else "web", {"app": "mail", "user": f"u{n}"}) for n in range(6)),
        with_metadata(6, "app", {"app": "mail"}, tier="large", wanted="auto:quality"),
        with_metadata(7, "app", {"app": "chat"}, tier="large"),
        kept(7, "app", role="fill"),
    )
    yield made
    made.dispose()


def numbers(engine, chosen: Chosen, **more) -> list[int]:
    with engine.connect() as connection:
        return [int(trace_of(id), 16) for _, id in page(connection, chosen, 100, **more)]


CHOICES = {
    "everything": (Chosen(), [0, 1, 2, 3, 4, 5, 6, 7]),
    "a key": (Chosen("web"), [0, 2, 4]),
    "a tier": (Chosen(tier="large"), [6, 7]),
    "a model that was asked for": (Chosen(model="auto:quality"), [6]),
    "a model that answered": (Chosen("app", model="large"), [6, 7]),
    "times": (Chosen(since_s=1002.0, until_s=1005.0), [2, 3, 4]),
    "metadata": (Chosen(metadata={"app": "mail"}), [0, 1, 2, 3, 4, 5, 6]),
    "metadata of a key": (Chosen("app", metadata={"app": "mail"}), [1, 3, 5, 6]),
    "two pairs": (Chosen(metadata={"app": "mail", "user": "u3"}), [3]),
    "pairs that never meet": (Chosen("web", metadata={"app": "mail", "user": "u3"}), []),
    "metadata and a tier": (Chosen(metadata={"app": "mail"}, tier="large"), [6]),
    "metadata and times": (Chosen(metadata={"app": "mail"}, since_s=1004.0), [4, 5, 6]),
    "ids": (Chosen(ids=(TRACE.format(3), f"chatcmpl-{TRACE.format(7)}", "none")), [3, 7]),
    "ids and more": (Chosen("web", ids=(TRACE.format(3), TRACE.format(4))), [4]),
}


@pytest.mark.parametrize("chosen, found", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("counted", [0, 10_000], ids=["by time", "by metadata"])
def test_what_is_chosen_comes_in_its_order(engine, monkeypatch, chosen, found, counted):
    monkeypatch.setattr(completions, "COUNTED", counted)
    assert numbers(engine, chosen) == found
    assert numbers(engine, chosen, newest_first=True) == found[::-1]
    with engine.connect() as connection:
        parts = [[int(trace_of(id), 16) for _, id in part] for part in pages(connection, chosen, 2)]
    assert [n for part in parts for n in part] == found and all(parts)


@pytest.mark.parametrize(
    "chosen",
    [
        Chosen(),
        Chosen("app"),
        Chosen("app", model="large"),
        Chosen(tier="large", since_s=5.0, until_s=1e10),
        Chosen("app", metadata={"app": "mail"}),
        Chosen(metadata={"app": "mail"}),
    ],
)
@pytest.mark.parametrize("newest_first", [False, True])
def test_a_list_reads_an_index_alone_and_sorts_nothing(engine, chosen, newest_first):
    said = []
    event.listen(engine, "before_cursor_execute", lambda _1, _2, text, values, *_3: said.append((text, values)))
    with engine.connect() as connection:
        page(connection, chosen, 3, (1003.0, "x"), newest_first)
        text, values = said[-1]
        plan = [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)]
    assert len(plan) == 1 and plan[0].startswith("SEARCH") and "COVERING INDEX" in plan[0] and "created_s" in plan[0]
