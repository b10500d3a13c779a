"""The page of a proof: one file, every text escaped, and the same figures as `proof.json`."""

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from echo_ladder import NAMES, live_row

from deployments.prove.about import recorded
from deployments.prove.charts import ticks
from deployments.prove.figures import figures
from deployments.prove.page import page

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)> {{ 7 * 7 }} \u2028 ]]> \" '"
CERTIFICATE = {"kind": "certificate", "rule": "balanced", "alpha": 0.02, "delta": 0.1, "n": 150, "k": 0, "coverage": 0.7}


def about(**more):
    return {
        "date": "2026-11-30 12:00 UTC",
        "tiers": list(NAMES),
        "at_once": 2,
        "price_note": "by token prices",
        "notes": [],
        "commands": ["stepdown prove --config a --prompts b -o c"],
        "settings": "routing: {}",
        "facts": {"machine": "a processor"},
        "certificates": {"balanced": CERTIFICATE},
        "took": {"label": 12.0},
        "paid": {"labels": 0.5},
    } | more


def made(rows, texts=True, **more):
    return page(figures(rows, list(NAMES), 0.02, 0), about(**more), texts)


class Tags(HTMLParser):
    """The tags of a page, and every attribute that could load something."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.loads, self.handlers = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data", "xlink:href")]
        self.handlers += [name for name, _ in attributes if name.startswith("on")]


def test_the_page_loads_nothing_and_runs_nothing():
    found = Tags(made([live_row(i, auto=float(i % 3 > 0)) for i in range(40)]))
    assert found.loads == ["data:,"] and not found.handlers
    assert not {"script", "iframe", "object", "embed", "form", "base"} & set(found.tags)
    assert "url(" not in made([live_row(i) for i in range(40)])


def test_hostile_texts_are_shown_as_texts():
    rows = [
        live_row(i, auto=0.0, prompt=HOSTILE + str(i), kind=HOSTILE, answer=HOSTILE, metadata={HOSTILE: HOSTILE})
        for i in range(40)
    ]
    for row in rows[:20]:
        row["kind"] = "plain"
        row["ways"]["auto"] |= {"answer": HOSTILE, "tier": HOSTILE}
        row["ways"]["large"]["answer"] = HOSTILE
    text = made(
        rows,
        notes=[HOSTILE],
        commands=[HOSTILE],
        settings=HOSTILE,
        certificates={"x": {"kind": "none", "reason": HOSTILE, "rule": "x"}},
    )
    found = Tags(text)
    assert "script" not in found.tags and "img" not in found.tags and not found.handlers
    assert "&lt;script&gt;" in text and "{{ 7 * 7 }}" in text


def test_every_chart_has_a_title_a_description_and_a_table_behind_it():
    text = made([live_row(i) for i in range(40)])
    charts = re.findall(r"<svg.*?</svg>", text, re.S)
    assert len(charts) == 4 and all("<title" in chart and "<desc" in chart and 'role="img"' in chart for chart in charts)
    assert text.count("<caption>") >= 4 and "nan" not in text.lower().replace("tenant", "")


def test_what_a_chart_draws_lies_within_it():
    rows = [live_row(i, auto=float(i % 9 > 0), tier=("small", "large")[i % 5 == 0]) for i in range(90)]
    for chart in re.findall(r"<svg.*?</svg>", made(rows), re.S):
        root = ElementTree.fromstring(chart)
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        for drawn in root.iter():
            for name, most in (
                ("x", width),
                ("x1", width),
                ("x2", width),
                ("cx", width),
                ("y1", height),
                ("y2", height),
                ("cy", height),
            ):
                if name in drawn.attrib:
                    assert -height <= float(drawn.attrib[name]) <= most, ElementTree.tostring(drawn)


def test_the_verdict_the_certificate_and_the_commands_are_said():
    text = made([live_row(i) for i in range(40)])
    assert "auto cost 75% [75%, 75%] less than large alone" in text
    assert "at most 2.0% of all requests" in text and "stepdown prove --config a --prompts b -o c" in text
    worse = made([live_row(i, usd=(0.04, 0.04)) for i in range(40)])
    assert "No saving could be shown" in worse


def test_a_page_without_texts_holds_none():
    rows = [live_row(i, auto=float(i % 3 > 0)) for i in range(40)]
    text, found = made(rows, texts=False), figures(rows, list(NAMES), 0.02, 0)
    assert "what is 3 plus" not in text and "--no-texts" in text
    assert "what is 3 plus" not in json.dumps(recorded(found, about(), False))
    assert "what is 3 plus" in json.dumps(recorded(found, about(), True))


def test_a_page_of_nothing_says_so():
    assert "Nothing could be compared" in made([])


@pytest.mark.parametrize("low, high", [(0, 1), (0.83, 1), (0, 0.004), (0, 37.2), (0, 1.06), (0.5, 0.5)])
def test_an_axis_has_a_few_round_numbers(low, high):
    found = ticks(low, high)
    assert len(found) <= 12 and all(low - 1e-6 <= value <= high + 1e-6 for value in found)
    assert low == high or len(found) >= 3
