"""Chromium, driven through WebDriver as a person uses a page: by what it says."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from modes import PATIENCE
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

T = TypeVar("T")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MISSING = None if CHROMIUM and DRIVER else "there is no Chromium, or no chromedriver, here"
SWITCHES = (
    "--headless=new",
    "--no-sandbox",  # the superuser cannot have one
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--ignore-certificate-errors",  # for a proxy whose certificate nobody else trusts
    "--lang=en-US",
)
# Selenium's own question whether an element is displayed takes a hundred times as long.
_FIND = """const [xpath, usable] = arguments;
    const found = document.evaluate(xpath, document, null, 7, null);
    const dialog = usable && [...document.querySelectorAll("dialog[open]")].pop();
    for (let i = found.snapshotLength - 1; i >= 0; i--) {
      const element = found.snapshotItem(i);
      if (element.checkVisibility() && (!dialog || dialog.contains(element))) return element;
    }"""
WIDE, NARROW = (1200, 800), (390, 844)


class Browser:
    """One browser; *folder* is where it saves downloads."""

    def __init__(self, driver: Chrome, folder: Path) -> None:
        self.driver = driver
        self.folder = folder

    def open(self, url: str) -> None:
        """Load *url*, also if only what follows # differs from the page that is shown."""
        if self.driver.current_url.split("/")[:3] != url.split("/")[:3]:
            self.driver.get(url)
            return
        # A new load in the same process takes a third of the time.
        self.driver.execute_script("history.replaceState(null, '', arguments[0])", url)
        self.driver.refresh()

    def wait(self, condition: Callable[[], T], what: str = "") -> T:
        """Return what *condition* returns once that is true."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                if found := condition():
                    return found
            except StaleElementReferenceException:
                pass  # the page has replaced it meanwhile
            assert time.monotonic() < end, f"{what} did not happen; the page says:\n{self.text}"
            time.sleep(0.03)

    def find(self, xpath: str, *, usable: bool = False) -> WebElement:
        """Wait for an element that is seen, and return it; the last one if there are several.

        If it has to be *usable*, one outside an open dialog does not count.
        """
        found = self.wait(lambda: self.driver.execute_script(_FIND, xpath, usable), xpath)
        assert isinstance(found, WebElement)
        return found

    def heading(self, text: str) -> None:
        """Wait for the view with this heading."""
        self.find(f"//h1[.={quoted(text)}]")

    def see(self, text: str) -> WebElement:
        """Wait for an element with *text* in it, and return it."""
        return self.find(f"//*[text()[contains(., {quoted(text)})]]")

    def gone(self, text: str) -> None:
        """Wait until nothing says *text*."""
        self.wait(lambda: text not in self.text, f"the end of {text!r}")

    def press(self, name: str) -> None:
        """Press the button or follow the link that is called *name*."""
        this = f"normalize-space()={quoted(name)} or @aria-label={quoted(name)}"
        control = f"//*[self::button or self::a or self::summary][{this}]"
        self.find(control, usable=True).click()

    def fill(self, label: str, text: str) -> None:
        """Write *text* into the field that is called *label*."""
        self.field(label).send_keys(Keys.CONTROL + "a" + Keys.NULL + (text or Keys.DELETE))

    def field(self, label: str) -> WebElement:
        """Return the field that is called *label*."""
        name = quoted(label)
        return self.find(
            f"//*[self::input or self::textarea][@id=//label[.={name}]/@for or @aria-label={name}]",
            usable=True,
        )

    def choose(self, *paths: Path, folder: bool = False) -> None:
        """Choose files, or a *folder*, as the dialog of the browser would."""
        kind = "[webkitdirectory]" if folder else ":not([webkitdirectory])"
        script = "return document.querySelector(`input[type=file]${arguments[0]}`)"
        field = self.wait(lambda: self.driver.execute_script(script, kind), "a field for files")
        field.send_keys("\n".join(map(str, paths)))

    def keys(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def tab_to(self, name: str) -> None:
        """Go to the control that is called *name* with the tab key alone."""
        script = """const it = document.activeElement;
            return it.ariaLabel || it.labels?.[0]?.textContent || it.textContent"""
        for _ in range(60):
            if self.driver.execute_script(script) == name:
                return
            self.keys(Keys.TAB)
        raise AssertionError(f"no tab leads to {name!r}")

    @property
    def text(self) -> str:
        """What can be read on the page."""
        return str(self.driver.execute_script("return document.body.innerText"))

    def size(self, width: int, height: int) -> None:
        """Set the size of the page; a small one is that of a phone."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def scheme(self, name: str) -> None:
        """Choose the "light" or the "dark" colours."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def upload_rate(self, rate: int) -> None:
        """Let the browser send no faster than *rate* bytes a second; -1 ends that."""
        self.driver.execute_cdp_cmd("Network.enable", {})
        conditions = {"offline": False, "latency": 0, "downloadThroughput": -1}
        self.driver.execute_cdp_cmd(
            "Network.emulateNetworkConditions", conditions | {"uploadThroughput": rate}
        )
        if rate < 0:
            self.driver.execute_cdp_cmd("Network.disable", {})

    def quiet(self) -> None:
        """Wait until the page says nothing in passing."""
        script = "return !document.getElementById('status').textContent"
        self.wait(lambda: self.driver.execute_script(script), "the end of a message")

    def log(self) -> list[dict[str, Any]]:
        """Return what was written to the console since the last call."""
        return list(self.driver.get_log("browser"))  # type: ignore[no-untyped-call]

    def downloaded(self, name: str) -> bytes:
        """Wait for a download and return its bytes."""
        path = self.folder / name
        self.wait(path.exists, f"the download of {name}")
        return path.read_bytes()


def quoted(text: str) -> str:
    """Return *text* as a literal of XPath."""
    return f'"{text}"' if '"' not in text else f"'{text}'"


@contextmanager
def browsing(folder: Path, switches: Sequence[str] = ()) -> Iterator[Browser]:
    """Run a browser that saves downloads in *folder*."""
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for switch in (*SWITCHES, *switches):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Else Selenium looks for a driver in the network.
    service = ChromeService(DRIVER, env={**os.environ, "NO_PROXY": "*"})
    driver = Chrome(options, service)
    try:
        allowed = {"behavior": "allow", "downloadPath": str(folder)}
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", allowed)
        browser = Browser(driver, folder)
        browser.size(*WIDE)
        yield browser
    finally:
        try:
            driver.quit()
        except WebDriverException:
            service.stop()
