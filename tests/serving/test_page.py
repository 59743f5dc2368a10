"""The page as a browser shows it: it asks its own server only, and what can be pressed does what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served import Running, png, running
from visit import Visit, in_browser

from conftest import Fitted

pytest_plugins = ["served", "visit"]
pytestmark = in_browser


def chosen(page: Any, *files: tuple[str, bytes]) -> None:
    """These files are chosen."""
    about = [{"name": name, "mimeType": "image/png", "buffer": content} for name, content in files]
    page.locator("#ways input[type=file]").set_input_files(about)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_a_picture_is_answered_at_every_width(
    browser: Any, server: Running, red: bytes, width: int, scheme: str
) -> None:
    how = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    with Visit(browser, server.caller.port, **how) as page:
        assert page.locator("#question").inner_text() == "Is it blue, green or red?"
        chosen(page, ("a.png", red))
        page.locator(".caption").wait_for()
        assert page.locator(".label strong").inner_text() == "red"
        assert page.locator(".bars tr").count() == 3
        assert page.locator(".bars tr.said").count() == 1
        assert page.locator(".bars tr th").first.inner_text() == "red"
        assert page.locator(".seen img").count() == 2
        assert page.locator("[role=status]").inner_text().startswith("a.png: red, ")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        paper, ink = (
            page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color")
        )
        light, dark = (sum(int(part) for part in colour[4:-1].split(",")) for colour in (paper, ink))
        assert (light > dark) == (scheme == "light")


def test_several_files_are_answered_each_for_itself(browser: Any, server: Running, red: bytes) -> None:
    blue = png(np.full((48, 48, 3), (40, 40, 220), np.uint8))
    with Visit(browser, server.caller.port) as page:
        page.get_by_label("Show where it looked").uncheck()
        chosen(page, ("red.png", red), ("none.png", b"no picture"), ("blue.png", blue))
        page.locator("#results > li:not(:has(.busy))").nth(2).wait_for()
        assert page.locator("#results .source").all_inner_texts() == ["red.png", "none.png", "blue.png"]
        assert page.locator(".label strong").all_inner_texts() == ["red", "blue"]
        assert page.locator(".wrong").inner_text() == "No answer: not an image Pillow can read (a text)."
        assert page.locator(".caption").count() == 0
        page.get_by_role("button", name="Clear the answers").click()
        assert page.locator("#results > li").count() == 0


def test_it_can_be_used_with_the_keyboard_alone(browser: Any, server: Running, red: bytes) -> None:
    with Visit(browser, server.caller.port) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.type") == "file"
        page.locator(":focus").set_input_files([{"name": "a.png", "mimeType": "image/png", "buffer": red}])
        page.locator(".label strong").wait_for()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Use the camera"
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_everything_that_can_be_used_has_a_name(browser: Any, server: Running, red: bytes) -> None:
    with Visit(browser, server.caller.port) as page:
        chosen(page, ("a.png", red))
        page.locator(".caption").wait_for()
        tree = page.locator("body").aria_snapshot()
        for line in (
            "heading",
            'button "Choose pictures"',
            'checkbox "Show where it looked"',
            'table "Probabilities"',
        ):
            assert line in tree, tree
        for image in page.locator("img").all():
            assert image.get_attribute("alt")
        unnamed = "[...document.querySelectorAll('input,select,textarea')].filter(n => !n.labels.length && !n.ariaLabel).length"
        assert page.evaluate(unnamed) == 0


def test_a_picture_is_pasted_and_dropped(browser: Any, server: Running, red: bytes) -> None:
    give = """([kind, bytes]) => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], `${kind}.png`, { type: "image/png" }));
      const about = { bubbles: true, cancelable: true };
      const event = kind === "paste"
        ? new ClipboardEvent(kind, { ...about, clipboardData: data })
        : new DragEvent(kind, { ...about, dataTransfer: data });
      document.body.dispatchEvent(event);
    }"""
    with Visit(browser, server.caller.port) as page:
        for number, kind in enumerate(("paste", "drop")):
            page.evaluate(give, [kind, list(red)])
            page.locator(".label strong").nth(number).wait_for()
            assert page.locator("#results .source").first.inner_text() == f"{kind}.png"


def test_the_camera_takes_a_picture(browser: Any, server: Running) -> None:
    with Visit(browser, server.caller.port, permissions=["camera"]) as page:
        page.get_by_role("button", name="Use the camera").click()
        dialog = page.get_by_role("dialog", name="Camera")
        dialog.wait_for()
        page.wait_for_timeout(300)
        dialog.get_by_role("button", name="Take the picture").click()
        page.locator(".label strong").wait_for()
        assert page.locator("#results .source").inner_text() == "camera.jpg"
        assert page.get_by_role("dialog").count() == 0


def test_the_token_is_asked_for_and_kept_for_the_visit(
    browser: Any, fitted: Fitted, tmp_path: Path, red: bytes
) -> None:
    token = "a token of the tests"
    with (
        running(f"one={fitted.run}", f"two={fitted.run}", "--token", token, cwd=tmp_path) as server,
        Visit(browser, server.caller.port) as page,
    ):
        assert page.locator("#question").inner_text() == "Who is asking?"
        page.get_by_label("This server asks for a token").fill("another of the tests")
        page.keyboard.press("Enter")
        page.get_by_label("This server asks for a token").fill(token)
        page.get_by_role("button", name="Use it").click()
        page.locator("#offer:visible").wait_for()
        page.reload()
        page.locator("#offer:visible").wait_for()
        page.get_by_label("Model").select_option("two")
        chosen(page, ("a.png", red))
        page.locator(".label strong").wait_for()
        assert page.title() == "two · regraft"
        assert (
            'model="two",outcome="answered"'
            in server.caller.get("/metrics", Authorization=f"Bearer {token}").body.decode()
        )
