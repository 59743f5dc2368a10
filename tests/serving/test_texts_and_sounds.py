"""One server with a text and a sound model: what it takes and refuses, and its page in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import Running, running
from visit import Visit, in_browser

import regraft
import sounds
import texts
from commands import call
from conftest import Fitted

pytest_plugins = ["served", "visit"]
STRANGE = "من هو أول رجل على القمر ؟ <script>document.title = 'taken'</script>"


@pytest.fixture(scope="module")
def both(
    fitted_texts: Fitted, fitted_sounds: Fitted, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    models = (f"said={fitted_texts.run}", f"heard={fitted_sounds.run}")
    with running(*models, cwd=tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sounds.write(tmp_path_factory.mktemp("clip") / "a.wav", sounds.tone(1_200, 0.4))


def answers(said: Any) -> list[tuple[str, dict[str, float]]]:
    assert said.status == 200, said.body
    return [(one["source"], one["probabilities"]) for one in said.json["predictions"]]


def test_each_model_answers_as_it_does_in_python(
    both: Running, fitted_texts: Fitted, fitted_sounds: Fitted, clip: Path
) -> None:
    items = [text for text, _ in texts.labelled(2, seed=4)]
    ours = [one.probabilities for one in regraft.load(fitted_texts.run).predict(items)]
    by_json = answers(both.caller.json({"items": [{"text": item, "name": "it"} for item in items]}))
    files = [("one.txt", items[0].encode()), ("two.txt", items[1].encode("utf-16"))]
    by_form = answers(both.caller.files(*files, kind="text/plain", query="?model=said"))
    assert [name for name, _ in by_json + by_form[:2]] == ["it"] * len(items) + ["one.txt", "two.txt"]
    for (_, theirs), own in zip(by_json + by_form, ours + ours[:2], strict=True):
        assert theirs == pytest.approx(own, abs=1e-4)
    (heard,) = regraft.load(fitted_sounds.run).predict([clip])
    said = both.caller.files(("a.wav", clip.read_bytes()), kind="audio/wav", query="?model=heard")
    assert answers(said)[0][1] == pytest.approx(heard.probabilities, abs=1e-4)


def test_what_is_of_another_kind_or_too_long_says_so(both: Running, clip: Path) -> None:
    quiet = sounds.write(clip.parent / "long.flac", sounds.hiss(0.1, 1_000).repeat(6_500), 1_000)
    for model, name, content, reason in (
        ("said", "a.wav", clip.read_bytes(), "NUL bytes"),
        ("said", "a.txt", b"  \n", "empty"),
        ("said", "a.txt", b"word " * 30_000, "too large: 150,000 characters"),
        ("heard", "a.txt", b"rain and snow", "no sound"),
        ("heard", "a.wav", clip.read_bytes()[:900], "cut short"),
        ("heard", "a.flac", quiet.read_bytes(), "too large: 650 seconds"),
    ):
        said = both.caller.files((name, content), query=f"?model={model}")
        assert said.status == 422
        assert reason in said.json["error"]
    assert both.caller.json(b'{"items": [{"text": "a \\ud800 b"}]}').status == 400


def test_one_largest_size_is_not_for_texts_and_sounds_alike(
    fitted_texts: Fitted, fitted_sounds: Fitted, tmp_path: Path
) -> None:
    models = (f"said={fitted_texts.run}", f"heard={fitted_sounds.run}")
    done = call("serve", *models, "--max-size", "100", "--port", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert "characters and seconds" in done.stderr


@in_browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_texts_are_written_and_sounds_are_recorded(
    browser: Any, both: Running, clip: Path, width: int, scheme: str
) -> None:
    how: dict[str, Any] = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    with Visit(browser, both.caller.port, permissions=["microphone"], **how) as page:
        box = page.get_by_role("textbox", name="Text")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        assert box.evaluate("box => document.activeElement === box")
        page.keyboard.insert_text(STRANGE)
        page.keyboard.press("Control+Enter")
        page.locator(".caption").wait_for()
        assert page.locator("blockquote").inner_text() == STRANGE
        assert page.locator("blockquote").evaluate("node => getComputedStyle(node).direction") == "rtl"
        assert page.title() == "said · regraft"
        assert page.locator(".caption").inner_text().startswith("Which words mattered: ")
        box.fill(f"{texts.sentence('weather', 1)}\n\n{texts.sentence('kitchen', 2)}\n")
        page.get_by_label("each line by itself").check()
        page.get_by_role("button", name="Ask").click()
        page.locator(".caption").nth(2).wait_for()
        page.get_by_label("Model").select_option("heard")
        page.get_by_role("button", name="Record").click()
        page.get_by_role("button", name="Stop and ask").wait_for()
        assert page.locator("[role=status]").inner_text().startswith("Recording.")
        page.wait_for_timeout(600)
        page.get_by_role("button", name="Stop and ask").click()
        page.locator(".caption").nth(3).wait_for()
        assert page.locator("#results .source").first.inner_text() == "recording.wav"
        assert page.locator(".caption").first.inner_text().startswith("Where it listened: ")
        page.locator("#ways input[type=file]").set_input_files(clip)
        page.locator("#results .label").nth(4).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        nodes = page.locator("textarea, input, audio")
        assert nodes.evaluate_all("all => all.every(one => one.ariaLabel || one.labels?.length)")


@in_browser
def test_what_is_being_recorded_when_another_model_is_chosen_is_for_nobody(
    browser: Any, both: Running
) -> None:
    with Visit(browser, both.caller.port, permissions=["microphone"]) as page:
        page.get_by_label("Model").select_option("heard")
        page.get_by_role("button", name="Record").click()
        page.get_by_role("button", name="Stop and ask").wait_for()
        page.wait_for_timeout(300)
        page.get_by_label("Model").select_option("said")
        page.get_by_role("textbox", name="Text").fill("rain")
        page.get_by_role("textbox", name="Text").press("Control+Enter")
        page.locator(".label strong").wait_for()
        assert page.locator("#results > li").count() == 1
