"""The cost page in a real Chromium, and the pictures of it for docs/costs.md."""

import json
import time
import urllib.request
from pathlib import Path

import pytest
from chromium import IMAGES, Browser
from kept_answers import keep, kept
from sample_traffic import KEY, add_keys, database, ladder, one, serving, traffic

from deployments.learning.kept.feedback import Said, give
from deployments.ledger.database import writing
from deployments.ledger.rows import from_trace

pytestmark = pytest.mark.slow
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
NOON = time.time() // 86400 * 86400 - 43200  # yesterday's: never within the hour that is being filled


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The root of a server over three days of traffic of three keys, one with a hostile name and one hostile request."""
    import dataclasses
    import random

    odd, _ = one("f" * 32, NOON + 7000, random.Random(0), "docs", prompt=HOSTILE)
    odd = dataclasses.replace(odd, wanted=HOSTILE, reason=HOSTILE[:64], status=200, tier="small", error="", answer=HOSTILE)
    engine = database(tmp_path_factory.mktemp("page"), traffic(3000, NOON - 5.5 * 86400, NOON), from_trace(odd))
    add_keys(engine, {"app": "Web app", "batch": "Nightly batch", "docs": HOSTILE}, NOON)
    keep(engine, kept(0, "docs", id=f"chatcmpl-{'f' * 32}", trace_id="f" * 32, licence=HOSTILE[:64]))
    with writing(engine) as connection:
        give(connection, Said("f" * 32, "docs", NOON, 0.25, HOSTILE, HOSTILE))
    router = Path(__file__).parents[3] / "deployments" / "pocket" / "router"
    with serving(engine, ladder(routing={"artefact": str(router)}, escalation={"mode": "buffer"})) as root:
        yield root
    engine.dispose()


def asked(site: str, query: str) -> dict:
    request = urllib.request.Request(f"{site}/costs.json?{query}", headers={"authorization": f"Bearer {KEY}"})
    return json.load(urllib.request.urlopen(request, timeout=20))


def figures(browser: Browser) -> list[str]:
    """The exact figures behind the tiles."""
    return [browser.run("document.getElementById(arguments[0]).title", id) for id in ("cost", "requests", "tokens")]


def expected(found: dict) -> list[str]:
    of = found["totals"]
    return [repr(of["cost_usd"]), f"{of['requests']:,}", f"{of['tokens']:,}"]


def test_asks_for_a_key_and_says_what_is_wrong_with_one(site, browser):
    browser.driver.get(f"{site}/costs")
    browser.enter("sk-wrong")
    browser.wait("document.getElementById('ask-error').innerText.includes('API key')")
    browser.enter("sk-may-not")
    browser.wait("document.getElementById('ask-error').innerText.includes('right')")
    browser.enter(KEY)
    browser.loaded()
    assert KEY not in browser.driver.current_url and browser.run("localStorage.length") == 0
    browser.driver.refresh()
    browser.loaded()  # the tab remembers it


def test_shows_the_figures_of_the_json_and_filters_them(site, browser):
    browser.open(f"{site}/costs")
    whole = asked(site, "since=7d")
    assert figures(browser) == expected(whole)
    assert browser.text("note") == whole["note"]
    error = whole["covers"]["error"]
    assert f"measured on {error['requests']:,}" in browser.text("tiles") and error["requests"] > 50
    assert browser.run("document.getElementById('counterfactual').title") == error["means"]
    assert browser.run("document.querySelectorAll('#by-tier tbody tr').length") == len(whole["by"]["tier"])
    browser.choose(key="batch")
    chosen = asked(site, "since=7d&key=batch")
    assert figures(browser) == expected(chosen) != expected(whole)
    assert {row.split("\t")[-1] for row in browser.text("decisions").splitlines() if "\t" in row} <= {"Key", "Nightly batch"}
    day = time.strftime("%Y-%m-%d", time.gmtime(NOON - 2 * 86400))
    browser.choose(range="days", since=day, until=day)
    assert figures(browser) == expected(asked(site, f"since={day}&until={day}&key=batch"))
    assert browser.run("document.querySelectorAll('#by-day tbody tr').length") > 12  # by the hour
    browser.choose(key="", tier="large")
    assert figures(browser) == expected(asked(site, f"since={day}&until={day}&tier=large"))
    browser.driver.refresh()
    browser.loaded()
    assert figures(browser) == expected(asked(site, f"since={day}&until={day}&tier=large"))


def test_every_measure_is_drawn_and_its_table_is_there(site, browser):
    browser.open(f"{site}/costs")
    seen = set()
    for measure in ("cost", "gpu", "tokens", "requests"):
        browser.driver.find_element("css selector", f"#measure input[value={measure}] + span").click()
        seen.add(browser.run("document.querySelector('#time-chart canvas').toDataURL()"))
        assert "small" in browser.text("time-legend")
    assert len(seen) == 4
    assert "idle" not in browser.text("time-legend")
    assert all(word in browser.text("ladder") for word in ("Replicas", "Queue", "valid", "stale", "accelerator-hour"))
    assert "balanced" in browser.text("curve") and "Budgets now" in browser.run("document.getElementById('budgets').textContent")


def test_a_decision_leads_to_its_trace(site, browser):
    browser.open(f"{site}/costs")
    rows = browser.run("document.querySelectorAll('#decisions tbody tr').length")
    browser.driver.find_element("id", "older").click()
    browser.wait(f"document.querySelectorAll('#decisions tbody tr').length > {rows}")
    id = browser.run("decodeURIComponent(document.querySelector('#decisions tbody a').pathname.split('/').pop())")
    browser.driver.find_element("css selector", "#decisions tbody a").click()
    browser.wait("document.getElementById('trace') && !document.getElementById('trace').hidden")
    assert id in browser.text("what") and browser.run("document.querySelectorAll('#calls tbody tr').length") >= 1
    browser.driver.get(f"{site}/costs/traces/unknown")
    browser.wait("document.getElementById('status').innerText.includes('no such trace')")
    browser.driver.get_log("browser")  # the 404 that was asked for


def test_hostile_names_are_text(site, browser):
    browser.open(f"{site}/costs")
    for id in ("decisions", "reasons", "by-key"):
        assert HOSTILE[:60] in browser.run("document.getElementById(arguments[0]).textContent", id), id
    browser.driver.get(f"{site}/costs/traces/{'f' * 32}")
    browser.wait("!document.getElementById('trace').hidden")
    assert browser.text("prompt").count(HOSTILE) == 2
    assert browser.run("document.getElementById('feedback').textContent").count(HOSTILE) == 2
    assert (
        "0.25" in browser.text("feedback") and HOSTILE[:64] in browser.text("kept") and "small (answer)" in browser.text("kept")
    )
    assert not browser.run("document.title.includes('owned')")
    assert browser.run("document.querySelectorAll('main img, main script').length") == 0


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_width_scrolls_sideways_and_every_field_has_a_name(site, browser, width):
    browser.size(width, 800)
    browser.open(f"{site}/costs")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.run("[...document.querySelectorAll('select, input')].filter(f => !f.labels.length).length") == 0
    unnamed = "[...document.querySelectorAll('table')].filter(t => !t.caption || !t.querySelector('th[scope=col]')).length"
    assert browser.run(unnamed) == 0


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_themes_and_the_button_overrules(site, browser, scheme):
    browser.prefer(scheme)
    browser.open(f"{site}/costs")
    style = "getComputedStyle(document.querySelector(arguments[0])).getPropertyValue(arguments[1])"
    card = luminance(browser.run(style, ".card", "background-color"))
    assert (card < 0.1) == (scheme == "dark")
    for selector in (".tile dt", ".tile .figure", ".status", "#decisions td", "#decisions a", ".empty, .fine"):
        bright, dim = sorted([luminance(browser.run(style, selector, "color")), card], reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, selector
    for _ in range(1 if scheme == "dark" else 2):  # system, light, dark
        browser.driver.find_element("id", "theme").click()
    assert (luminance(browser.run(style, ".card", "background-color")) < 0.1) == (scheme == "light")


def test_pictures_for_the_docs(site, browser):
    """Not of hostile names: of the two other keys' traffic."""
    browser.open(f"{site}/costs")
    rows = "#by-key tbody tr, #decisions tbody tr, #reasons tbody tr"
    browser.driver.execute_script(f"document.querySelectorAll('{rows}').forEach(r => /script/.test(r.textContent) && r.remove())")
    browser.shot("costs_page.png", 2150)
    browser.prefer("dark")
    browser.size(1280, 900)
    browser.shot("costs_dark.png", 1080)
    browser.prefer("light")
    browser.size(390, 844)
    browser.choose(range="7d")
    browser.shot("costs_phone.png", 1500)
    browser.size(1280, 900)
    browser.choose(key="app")
    browser.driver.find_element("css selector", "#decisions tbody a").click()
    browser.wait("document.getElementById('trace') && !document.getElementById('trace').hidden")
    browser.shot("costs_trace.png")
    assert all((IMAGES / f"costs_{name}.png").stat().st_size > 20_000 for name in ("page", "dark", "phone", "trace"))
