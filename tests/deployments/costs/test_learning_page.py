"""The section Learning of the cost page in a real Chromium, and its picture for docs/costs.md."""

from functools import partial

import pytest
from chromium import IMAGES, Browser
from sample_learning import HOSTILE, LEARNED, hostile, learned, training
from sample_traffic import KEY, NOW, database, ladder, off, serving, traffic

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    made = database(tmp_path_factory.mktemp("learning"), traffic(60, NOW - 86_400, NOW))
    yield made
    made.dispose()


@pytest.fixture(params=[learned])
def site(engine, request):
    """The root of a server whose learning is in the state that the test gives."""
    with serving(engine, ladder(), request.param) as root:
        yield root


in_state = partial(pytest.mark.parametrize, "site", indirect=True)


def opened(browser: Browser, site: str) -> None:
    browser.driver.get(f"{site}/costs")
    browser.enter(KEY)
    browser.wait("document.getElementById('learning').children.length > 0")


def rows(browser: Browser, caption: str) -> int:
    tables = "[...document.querySelectorAll('#learning table')]"
    return browser.run(f"{tables}.filter(t => t.caption.textContent === arguments[0])[0]?.tBodies[0].rows.length || 0", caption)


@in_state([off])
def test_where_nothing_is_collected_it_says_how_to_turn_it_on(site, browser):
    opened(browser, site)
    told = browser.text("learning")
    assert "learning: {collect: consented, start: auto}" in told and "keys create" in told
    assert browser.run("document.querySelectorAll('#learning table').length") == 0


def test_it_shows_how_far_it_is_and_what_the_run_has_found(site, browser):
    opened(browser, site)
    told = browser.run("document.getElementById('learning').textContent")
    assert browser.text("learning-line") == LEARNED["progress"]["line"]
    assert "would save 58%" in told and "nobody gets its answers yet" in told and "20.42K" in told
    assert browser.run("document.querySelector('#learning .stages .here').innerText") == "shadow"
    assert (rows(browser, "Gates"), rows(browser, "Runs"), rows(browser, "Savings since each promotion")) == (3, 3, 1)
    assert rows(browser, "Grades by source") == 6
    assert "6.20" in told and "20.0" in told and "2 of 3" in told and "54.7 %" in told
    width = browser.run("document.querySelector('#learning .meter.long > span').style.width")
    assert width == "53.5%"
    assert "the learned artefact a1b2c3d4e5f6" in told


def test_it_shows_the_generations_of_a_tier(site, browser):
    opened(browser, site)
    told = browser.run("document.getElementById('learning').textContent")
    assert rows(browser, "Generations") == 3
    for part in ("ffffffffffff", "promoted", "rolled back", "6,208 requests, 3,104 of them failures; after eeeeeeeeeeee"):
        assert part in told, part
    assert "0.616 → 0.783" in told and "app=mail 0.412 → 0.731 (604)" in told and "62 s" in told
    first = "[...document.querySelectorAll('#learning table')].find(t => t.caption.textContent === 'Generations').tBodies[0].rows"
    assert browser.run(f"[...{first}].map(r => r.querySelector('.pill').innerText)") == ["shadow", "promoted", "rolled back"]


@in_state([training])
def test_a_training_shows_its_steps(site, browser):
    opened(browser, site)
    assert browser.text("learning-steps") == "✓ data: 6,208 train, 804 dev, 1,604 test\ntraining: 1.2 of 2.4 M tokens, loss 0.31"


@in_state([hostile])
def test_whatever_it_is_told_is_text_and_what_is_wrong_comes_first(site, browser):
    opened(browser, site)
    told = browser.run("document.getElementById('learning').textContent")
    assert told.count(HOSTILE) >= 10
    assert browser.run("document.querySelectorAll('#learning img, #learning script').length") == 0
    assert browser.run("document.querySelectorAll('#learning > .banner').length") == 4
    assert browser.run("document.getElementById('learning').firstElementChild.className") == "banner"
    assert "48.0 %" not in told and "480" in told and "canary bbbbbbbbbbbb" in told


@pytest.mark.parametrize("width", [360, 1280])
def test_no_width_scrolls_sideways(site, browser, width):
    browser.size(width, 800)
    opened(browser, site)
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    unnamed = (
        "[...document.querySelectorAll('#learning table')].filter(t => !t.caption || !t.querySelector('th[scope=col]')).length"
    )
    assert browser.run(unnamed) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_its_picture_for_the_docs(site, browser, scheme):
    browser.prefer(scheme)
    opened(browser, site)
    name = "costs_learning.png" if scheme == "light" else "costs_learning_dark.png"
    browser.size(1280, 1400)
    browser.run("document.querySelector('#learning-title').closest('section').scrollIntoView()")
    section = browser.driver.find_element("css selector", "section[aria-labelledby=learning-title]")
    section.screenshot(str(IMAGES / name))
    assert (IMAGES / name).stat().st_size > 20_000
