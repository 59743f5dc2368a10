"""How many threads torch computes with: all that it takes, and on a busy machine what a trial is quickest with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from regraft import runtime


@pytest.fixture(autouse=True)
def four() -> Iterator[None]:
    """Torch takes four threads, and what it took before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("seconds", "quickest"), [((3, 2, 1), 1), ((3, 1, 2), 2), ((1, 2, 3), 4)])
def test_on_a_busy_machine_a_trial_decides(
    seconds: tuple[int, int, int], quickest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = dict(zip((4, 2, 1), seconds, strict=True))
    monkeypatch.setattr(runtime, "busy", lambda: True)
    monkeypatch.setattr(runtime, "_products", lambda: float(taken[torch.get_num_threads()]))
    threads, why = runtime.pick_threads()
    assert threads == quickest
    assert "others keep the machine busy" in why
    assert f"{1000 * taken[1]} ms on 1" in why
    assert torch.get_num_threads() == 4, "what the trial took is not left behind"


def test_an_idle_machine_is_used_whole_without_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "busy", lambda: False)
    monkeypatch.setattr(runtime, "_products", lambda: pytest.fail("there is nothing to try"))
    assert runtime.pick_threads() == (4, "as many as torch takes")


@pytest.mark.parametrize(("load", "expected"), [(0.5, False), (3.0, False), (9.5, True)])
def test_busy_is_more_load_than_processors(
    load: float, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    monkeypatch.setattr(runtime.os, "cpu_count", lambda: 4)
    assert runtime.busy() is expected


def test_the_trial_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "busy", lambda: True)
    threads, why = runtime.pick_threads()
    assert threads in (1, 2, 4)
    assert why.count(" ms on ") == 3
