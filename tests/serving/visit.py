"""A headless browser that visits the page of a server, and holds it to its promises."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
NO_BROWSER = "no chromium, chromium-browser or google-chrome on the path: `apt-get install chromium`"
in_browser = pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
REFUSED = "Failed to load resource: the server responded with a status of 4"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, with a camera that shows a test picture and a microphone that beeps."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield chromium
        chromium.close()


class Visit:
    """The page of a server, opened; all requests and complaints are written down."""

    def __init__(self, browser: Any, port: int, **how: Any) -> None:
        self.origin, self.requests, self.complaints = f"http://127.0.0.1:{port}", [], []  # type: ignore[var-annotated]
        self.context = browser.new_context(**how)
        self.page = self.context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(self.origin)

    def __enter__(self) -> Any:
        self.page.locator("#offer:visible, #key:visible").wait_for()
        return self.page

    def __exit__(self, *_: object) -> None:
        self.context.close()
        assert all(url.startswith((self.origin, "data:", "blob:")) for url in self.requests)
        assert [line for line in self.complaints if not line.startswith(REFUSED)] == []
