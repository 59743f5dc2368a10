"""Makes the pictures of README.md from a run of the demo's digits.

    regraft demo --out runs/digits                # or a fit of its digits with --freeze head, which is quicker
    python docs/pictures.py runs/digits

It opens the report, and the page of `regraft serve` with one of the run's test images dropped on it, in headless Chromium
(playwright, and a chromium on the path), and writes docs/pictures/report.png and docs/pictures/page.png.
"""

from __future__ import annotations

import io
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from regraft.artifacts import read_json

FOLDER = Path(__file__).with_name("pictures")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
MOST = 120_000  # bytes of a picture
# The folder of whoever makes the pictures is nobody's business
PLACELESS = """folder => {
  for (const place of document.querySelectorAll("code")) place.textContent = place.textContent.replace(folder + "/", "");
}"""
COLOURS = (256, 128, 64, 32)


def save(shot: bytes, name: str) -> None:
    """Write a screenshot as a PNG of a palette, as many colours as fit the size."""
    picture = Image.open(io.BytesIO(shot)).convert("RGB")
    FOLDER.mkdir(exist_ok=True)
    for colours in COLOURS:
        picture.quantize(colours, dither=Image.Dither.NONE).save(FOLDER / name, optimize=True)
        if (FOLDER / name).stat().st_size < MOST:
            print(f"{FOLDER / name}: {(FOLDER / name).stat().st_size:,} bytes, {colours} colours")
            return
    raise SystemExit(f"{name} does not fit {MOST:,} bytes")


def test_image(run: Path) -> Path:
    """A file of the run's test set."""
    rows = pq.read_table(run / "predictions.parquet", columns=["source", "split"]).to_pylist()
    source = next(row["source"] for row in rows if row["split"] == "test")
    return Path(read_json(run / "run.json")["data"]["source"]) / source


@contextmanager
def served(run: Path) -> Iterator[str]:
    """`regraft serve` of a run on a free port; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "regraft", "serve", str(run), "--port", str(port)])
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{address}/readyz") as answer:
                    if answer.status == 200:
                        break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


def report(browser: Any, run: Path) -> None:
    """The head of the report."""
    page = browser.new_page(viewport={"width": 1100, "height": 900}, color_scheme="light")
    page.goto((run / "report.html").resolve().as_uri())
    page.evaluate(PLACELESS, str(Path(read_json(run / "run.json")["data"]["source"]).parent))
    page.wait_for_timeout(500)
    save(page.screenshot(), "report.png")
    page.close()


def page_of_serve(browser: Any, run: Path) -> None:
    """The page, after an image was given to it."""
    with served(run) as address:
        page = browser.new_page(viewport={"width": 900, "height": 880}, color_scheme="light")
        page.goto(address)
        page.set_input_files("input[type=file] >> nth=0", str(test_image(run)))
        page.wait_for_selector("#results li img >> nth=1", timeout=60_000)
        page.wait_for_timeout(500)
        save(page.screenshot(), "page.png")
        page.close()


def main() -> None:
    """Make both pictures of the run that is named."""
    from playwright.sync_api import sync_playwright

    run = Path(sys.argv[1])
    browser_path = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
        report(browser, run)
        page_of_serve(browser, run)
        browser.close()


if __name__ == "__main__":
    main()
