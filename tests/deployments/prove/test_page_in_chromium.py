"""The page of a proof in a real Chromium: no complaints, no requests, readable in light, dark and print."""

import json
import shutil

import pytest
from echo_ladder import live_row
from test_page import HOSTILE, made

pytestmark = pytest.mark.slow
PROGRAMS = [shutil.which("chromium"), shutil.which("chromedriver")]
LUMINANCE = """
const linear = c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = text => {
  const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(v => linear(v / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = e => { for (; e; e = e.parentElement) {
  const c = getComputedStyle(e).backgroundColor; if (!/, 0\\)$/.test(c)) return c; } return 'rgb(255, 255, 255)'; };
return [...document.querySelectorAll('h1, h2, h3, p, th, td, dt, dd, summary, figcaption, caption, pre, code')]
  .filter(e => e.offsetParent && e.textContent.trim()).map(e => {
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  });
"""


@pytest.fixture
def driver():
    if None in PROGRAMS:
        pytest.skip("Chromium and its driver are not installed; apt install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = PROGRAMS[0]
    for switch in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(PROGRAMS[1]))
    found.set_page_load_timeout(60)
    yield found
    complaints = [entry for entry in found.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    found.quit()
    assert complaints == []


@pytest.fixture
def page(tmp_path):
    rows = [live_row(i, auto=float(i % 9 > 0), kind=f"kind {i % 3}", tier=("small", "large")[i % 5 == 0]) for i in range(90)]
    rows[0] |= {"prompt": HOSTILE, "answer": HOSTILE}
    rows[9]["ways"]["auto"]["answer"] = HOSTILE
    file = tmp_path / "proof.html"
    file.write_text(made(rows, notes=[HOSTILE]), "utf-8")
    return file.as_uri()


def prefer(driver, scheme, media=""):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def requested(driver):
    """What the page asked the network for."""
    sent = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    return [one["params"]["request"]["url"] for one in sent if one["method"] == "Network.requestWillBeSent"]


def test_it_loads_without_network_and_its_texts_do_nothing(driver, page):
    driver.get(page)
    assert driver.title == "Stepdown: proof of 2026-11-30 12:00 UTC"
    assert [url for url in requested(driver) if not url.startswith(("file:", "data:"))] == []
    assert driver.execute_script("return document.querySelectorAll('svg').length") == 4
    assert "<script>" in driver.find_element("css selector", ".example").text
    assert driver.find_element("id", "verdict").text.startswith("No saving worth having")


@pytest.mark.parametrize("scheme, media", [("light", ""), ("dark", ""), ("dark", "print")])
def test_every_text_is_readable(driver, page, scheme, media):
    prefer(driver, scheme, media)
    driver.get(page)
    contrasts = driver.execute_script(LUMINANCE)
    assert len(contrasts) > 60 and min(contrasts) >= 4.5


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_a_phone_and_a_desk(driver, page, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.get(page)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width


def test_it_prints_on_a_few_pages(driver, page):
    import base64

    driver.get(page)
    made_pdf = base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert made_pdf.startswith(b"%PDF") and 1 <= made_pdf.count(b"/Type /Page\n") + made_pdf.count(b"/Type /Page ") <= 12
