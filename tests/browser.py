"""A headless Chromium for tests of pages: what a page shows, and what its console says."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --force-device-scale-factor=1"
).split()

needs_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver on the PATH"
)


@contextmanager
def browser(width: int = 1280, dark: bool = False, height: int = 900, offline: bool = True) -> Iterator[Any]:
    """A selenium driver whose pages are `width` CSS pixels wide, phones included, in a light or dark scheme.

    Skips the test, with the reason, where selenium, chromium or chromedriver is missing. `offline` refuses every
    http address; `requested` lists what a page asked for.
    """
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver on the PATH")
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={max(width, 600)},{height}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        driver.folder = profile
        try:
            # Windows have a least width; the size of the page is therefore set on the device, as for phones
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
            if offline:
                driver.execute_cdp_cmd("Network.enable", {})
                driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["http://*", "https://*"]})
            yield driver
        finally:
            driver.quit()


def open_page(driver: Any, page: str | Path) -> None:
    """Open a file; the text of a page is written to one first, in the browser's own folder."""
    if isinstance(page, str):
        text, page = page, Path(driver.folder) / "page.html"
        page.write_text(text, encoding="utf-8")
    driver.get(page.resolve().as_uri())


def console_errors(driver: Any) -> list[str]:
    """What the console has said since the last call, but for information and debugging; empty for a sound page."""
    return [e["message"] for e in driver.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]


def requested(driver: Any) -> list[str]:
    """Addresses of everything the page asked for besides itself; empty for a page that stands alone."""
    names = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    return [name for name in driver.execute_script(names) if not name.startswith("data:")]


def overflow(driver: Any) -> int:
    """Pixels by which the page is wider than the window; 0 where nothing makes it scroll sideways."""
    return driver.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


def screenshot(driver: Any, path: str | Path, whole: bool = True) -> Path:
    """A PNG of the window, or of the `whole` page."""
    import base64

    shot = driver.execute_cdp_cmd(
        "Page.captureScreenshot", {"captureBeyondViewport": whole, **_clip(driver, whole)}
    )
    Path(path).write_bytes(base64.b64decode(shot["data"]))
    return Path(path)


def _clip(driver: Any, whole: bool) -> dict[str, Any]:
    if not whole:
        return {}
    size = driver.execute_script(
        "const e = document.documentElement; return [e.clientWidth, Math.min(e.scrollHeight, 16000)]"
    )
    return {"clip": {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}}
