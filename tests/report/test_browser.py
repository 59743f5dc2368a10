"""The page as a browser shows it: nothing leaves, nothing overflows, and what can be clicked does what it
says.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_run import HOSTILE, full_run, predictions, rendered

from regraft.report import write_gallery

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
NO_BROWSER = (
    "no chromium, chromium-browser or google-chrome on the path: "
    "`apt-get install chromium`, or Chrome for your system"
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER)
CLASSES = ("daisy", "rose", HOSTILE, "tulip")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every part there can be."""
    folder = tmp_path_factory.mktemp("run")
    predictions(full_run(folder, CLASSES), CLASSES)
    write_gallery(folder)
    rendered(folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; the Debian package's will do."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield chromium
        chromium.close()


class Visit:
    """The report opened in a page of its own; every request and every complaint is written down."""

    def __init__(self, browser: Any, report: Path, **how: Any) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.context = browser.new_context(**how)
        self.page = self.context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(report.as_uri())

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, *_: object) -> None:
        self.context.close()
        assert all(url.startswith(("file:", "data:")) for url in self.requests)
        assert [url for url in self.requests if url.startswith("file:")] == self.requests[:1]
        assert self.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_overflows_and_nothing_leaves(browser: Any, report: Path, width: int, scheme: str) -> None:
    with Visit(browser, report, viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for details in page.query_selector_all("details"):
            details.evaluate("node => node.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        paper, ink = (
            page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color")
        )
        light, dark = (sum(int(part) for part in colour[4:-1].split(",")) for colour in (paper, ink))
        assert (light > dark) == (scheme == "light")
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_a_table_is_sorted_by_the_heading_that_is_pressed(browser: Any, report: Path) -> None:
    with Visit(browser, report) as page:
        table = page.locator("table.sortable", has_text="Precision")

        def recalls() -> list[float]:
            return [
                float(cell.get_attribute("value"))
                for cell in table.locator("tbody tr td:nth-child(2) > data").all()
            ]

        unsorted, button = recalls(), table.get_by_role("button", name="Recall")
        button.focus()
        page.keyboard.press("Enter")
        assert recalls() == sorted(unsorted, reverse=True)
        assert table.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
        button.click()
        assert recalls() == sorted(unsorted)
        assert table.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
        table.get_by_role("button", name="Class").click()
        assert table.locator("tbody th").all_inner_texts() == [HOSTILE, "daisy", "rose", "tulip"]
        assert table.locator("th[aria-sort]").count() == 1


def test_a_cell_of_the_confusion_matrix_shows_its_pictures(browser: Any, report: Path) -> None:
    with Visit(browser, report) as page:
        links = page.locator("table.confusion a").all()
        assert len(links) > 8
        assert page.locator("details.cell:visible").count() == 0
        for link in links[:3]:
            link.click()
            panel = page.locator("details.cell:visible")
            assert panel.count() == 1
            count = link.inner_text()
            assert f": {count}" in panel.locator("summary").inner_text()
            assert panel.locator("img:visible").count() == min(int(count), panel.locator(".tile").count())
            assert page.locator("[aria-current]").all_inner_texts()[0] == count
        pair = page.locator("p a[href^='#cell-']").first
        pair.click()
        assert page.locator("details.cell:visible summary").inner_text().startswith(pair.inner_text())


def test_the_galleries_can_be_narrowed_to_a_class(browser: Any, report: Path) -> None:
    with Visit(browser, report) as page:
        every = page.locator("#pictures [data-classes]").count()
        page.get_by_label("Only pictures of").select_option(label="rose")
        shown = page.locator("#pictures [data-classes]:visible")
        assert 0 < shown.count() < every
        assert all("1" in item.get_attribute("data-classes").split() for item in shown.all())
        assert page.locator(".filter output").inner_text() == f"{shown.count()} pictures"
        page.get_by_label("Only pictures of").select_option(label="every class")
        assert page.locator("#pictures [data-classes]:not([hidden])").count() == every


def test_without_javascript_everything_is_there(browser: Any, report: Path) -> None:
    with Visit(browser, report, java_script_enabled=False) as page:
        cells = page.locator("details.cell")
        assert cells.count() == page.locator("table.confusion a").count()
        assert cells.locator("summary:visible").count() == cells.count()
        cells.first.locator("summary").click()
        assert cells.first.locator("img:visible").count() > 0
        assert page.locator(".filter:visible").count() == 0
        assert page.locator("thead button").count() == 0
        assert page.locator("h2:visible").count() == 7
        assert page.locator("li[id^='step-']:visible").count() == 7


def test_on_paper_all_of_it_is_open(browser: Any, report: Path, tmp_path: Path) -> None:
    with Visit(browser, report) as page:
        page.emulate_media(media="print")
        assert page.locator("nav:visible, .filter:visible").count() == 0
        assert page.locator("details.more .tile:visible").count() > 0
        page.pdf(path=str(tmp_path / "report.pdf"))
    assert (tmp_path / "report.pdf").stat().st_size > 50_000
