"""The cost page in a real Chromium."""

import shutil
import time
from pathlib import Path

from sample_traffic import KEY

IMAGES = Path(__file__).parents[3] / "docs" / "images"
PROGRAMS = [shutil.which("chromium"), shutil.which("chromedriver")]


class Browser:
    """Chromium by selenium, with what the tests do again and again."""

    def __init__(self) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = PROGRAMS[0]
        for switch in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
            options.add_argument(f"--{switch}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(PROGRAMS[1]))
        self.driver.set_page_load_timeout(60)
        self.size(1280, 900)

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, scheme: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def run(self, script: str, *values):
        return self.driver.execute_script(f"return {script}", *values)

    def wait(self, script: str, seconds: float = 15.0):
        """Until the script gives something true."""
        until = time.monotonic() + seconds
        while not (found := self.run(script)):
            assert time.monotonic() < until, f"never true: {script}; the page says {self.run('document.body.innerText')[:400]!r}"
            time.sleep(0.05)
        return found

    def text(self, id: str) -> str:
        return self.run("document.getElementById(arguments[0]).innerText", id)

    def enter(self, key: str) -> None:
        self.wait("!document.getElementById('ask').hidden")
        self.driver.find_element("id", "key-field").send_keys(key)
        self.driver.find_element("css selector", "#ask button").click()

    def loaded(self) -> None:
        self.wait("!document.getElementById('figures').hidden && !/Loading/.test(document.getElementById('status').innerText)")
        self.wait("document.querySelector('#ladder table') && document.querySelector('#curve-chart canvas')")

    def choose(self, **values: str) -> None:
        """Set filters as a person would, and wait for the figures."""
        for id, value in values.items():
            script = "let f = document.getElementById(arguments[0]); f.value = arguments[1]; "
            self.driver.execute_script(script + "f.dispatchEvent(new Event('change', {bubbles: true}))", id, value)
            self.loaded()

    def open(self, address: str) -> None:
        self.driver.get(address)
        self.enter(KEY)
        self.loaded()

    def shot(self, name: str, most: int | None = None) -> None:
        """The whole page, or its first `most` pixels, into docs/images."""
        width, height = self.run("[innerWidth, document.documentElement.scrollHeight]")
        self.size(width, min(height, most or height))
        self.run("window.scrollTo(0, 0)")
        time.sleep(0.3)  # canvases are drawn again at the new size
        self.driver.save_screenshot(str(IMAGES / name))
