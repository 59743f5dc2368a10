"""Reading in worker processes gives what reading on threads gives, whoever dies or is stopped meanwhile."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from regraft.data import KnownFile
from regraft.data.known import content_id
from regraft.errors import ChangedError, Unreadable
from regraft.inference import Feed, Reading, batched, workers
from regraft.inference.workers import Workers, workers_for
from regraft.modalities.image.augment import Augment
from regraft.modalities.image.preprocess import ImagePreprocess
from regraft.steps.finetune.batches import Drawn

CPU = torch.device("cpu")
LOOKS = ImagePreprocess(16, 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3)


def png(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def crew() -> Iterator[Workers]:
    """Two processes for all tests here but those that end them."""
    found = Workers(2)
    yield found
    found.close()


@pytest.fixture
def files(tmp_path: Path) -> list[KnownFile]:
    found = []
    for number in range(20):
        content = png(number)
        (tmp_path / f"{number}.png").write_bytes(content)
        found.append(KnownFile(str(tmp_path / f"{number}.png"), content_id(content)))
    return found


def nobody(*_: Any) -> Iterator[Any]:
    raise AssertionError("the processes were to read")


def pixels(
    crew: Workers, items: list[Any], otherwise: Callable[..., Any] = nobody, size: int = 4
) -> np.ndarray:
    reading = Reading(LOOKS.host, LOOKS.collate)
    return np.concatenate(
        [made[0]["pixels"] for _, made in crew.read(batched(items, size), reading, otherwise)]
    )


@pytest.fixture
def for_a_card(crew: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the processor were a card that computes aside, and two processes were worth it."""
    monkeypatch.setattr(workers, "workers_for", lambda device, reads, reading: crew)


def test_processes_read_what_threads_read_in_the_same_order(crew, files, for_a_card) -> None:
    expected = np.stack([LOOKS.host(file) for file in files])
    assert np.array_equal(pixels(crew, files), expected)
    with Feed(device=CPU) as feed:
        for augment in (None, Augment(0.5, True, 0.2)):
            pairs = list(zip(files, range(20), strict=True))
            drawn = Drawn(LOOKS, augment, 1, 2)
            (found,) = feed.made([pairs], Reading(drawn, LOOKS.collate))
            assert np.array_equal(found[1][0]["pixels"], np.stack([drawn(pair) for pair in pairs]))


def test_groups_are_those_of_threads_and_name_what_cannot_be_read(crew, files, for_a_card) -> None:
    items: list[Any] = [*files[:5], b"no image", *files[5:9], "/nowhere.png"]

    def grouped(device: torch.device | None) -> tuple[dict[int, bytes], dict[int, str]]:
        odd: dict[int, Unreadable] = {}
        rows: dict[int, bytes] = {}
        with Feed(device=device) as feed:
            for keys, batch in feed.groups(enumerate(items), LOOKS, 3, odd=odd.__setitem__):
                rows |= {key: row.tobytes() for key, row in zip(keys, batch()["pixels"], strict=True)}
        return rows, {number: str(error) for number, error in odd.items()}

    assert grouped(CPU) == grouped(None)
    rows, odd = grouped(CPU)
    assert sorted(odd) == [5, 10]
    assert sorted(rows) == [0, 1, 2, 3, 4, 6, 7, 8, 9]


class Crooked(Exception):
    """An error that does not survive being sent."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


def test_what_a_process_raises_arrives_whole(crew, files) -> None:
    changed = KnownFile(files[0].path, files[1].id)
    with pytest.raises(ChangedError) as caught:
        pixels(crew, [changed])
    assert caught.value.path == files[0].path
    with pytest.raises(Unreadable, match="not an image"):
        pixels(crew, [b"no image"])
    assert str(workers._sendable(Crooked("one", "other"))) == "Crooked: one and other"
    assert len(pixels(crew, files)) == 20  # and the next caller is served


def test_who_stops_half_way_leaves_nothing_for_the_next(crew, files) -> None:
    first = crew.read(batched(files, 2), Reading(LOOKS.host, LOOKS.collate), nobody)
    next(first)
    busy = pixels(crew, files[:4], lambda batches, reading: ((some, reading(some)) for some in batches))
    assert len(busy) == 4  # meanwhile another caller reads for himself
    first.close()
    assert np.array_equal(pixels(crew, files[5:]), np.stack([LOOKS.host(file) for file in files[5:]]))


class Own:
    """An item that no other process can be sent."""

    def __reduce__(self) -> Any:
        raise TypeError("not to be sent")

    def __str__(self) -> str:
        return "own"


def test_what_cannot_be_sent_is_read_here(crew) -> None:
    found = list(crew.read(batched([1, 2, Own(), 4], 1), Reading(str), nobody))
    assert [made for _, made in found] == [["1"], ["2"], ["own"], ["4"]]


def test_nothing_is_drawn_from_torchs_own_random_numbers(crew, files) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    pixels(crew, files)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("roomy", [True, False])
def test_without_room_in_shared_memory_arrays_are_sent_all_the_same(roomy, files, monkeypatch) -> None:
    monkeypatch.setattr(workers, "_room_to_share", lambda: roomy)
    job = workers._packed(Reading(LOOKS.host, LOOKS.collate), files[:2])
    batch, odd = workers._Desk().__getitems__([job])
    assert isinstance(batch["pixels"], torch.Tensor) == roomy
    assert np.array_equal(workers._arrays((batch, odd))[0]["pixels"][1], LOOKS.host(files[1]))


def test_a_stop_is_for_the_parent_and_a_killed_process_loses_nothing(files) -> None:
    crew = Workers(2)
    try:
        expected = pixels(crew, files)
        own = _processes_of(crew)
        for one in own:
            one.send_signal(signal.SIGINT)
        assert np.array_equal(pixels(crew, files), expected)

        def slowly() -> Iterator[list[KnownFile]]:
            for number, some in enumerate(batched(files, 2)):
                if number == 6:
                    own[0].kill()
                    own[0].wait(10)
                yield some

        with Feed() as feed:
            read = crew.read(slowly(), Reading(LOOKS.host, LOOKS.collate), feed._threads)
            found = np.concatenate([made[0]["pixels"] for _, made in read])
        assert np.array_equal(found, expected)
        assert crew.broken
    finally:
        crew.close()
    assert not psutil.wait_procs(own, timeout=20)[1]


def _processes_of(crew: Workers) -> list[psutil.Process]:
    assert crew.loader is not None
    return [psutil.Process(one.pid) for one in crew.loader._iterator._workers]  # type: ignore[union-attr]


def test_few_reads_other_devices_and_what_is_large_are_for_threads(monkeypatch) -> None:
    monkeypatch.setattr(workers, "processors", lambda: 5)
    monkeypatch.setattr(workers, "_shared", {})
    reading = Reading(LOOKS.host, LOOKS.collate)
    assert workers_for(CPU, 10**6, reading) is None
    card = torch.device("cuda")
    assert workers_for(card, workers.FEWEST - 1, reading) is None
    assert workers_for(card, 10**6, Reading(lambda item: item)) is None  # cannot be sent
    assert workers_for(card, 10**6, Reading(bytes(workers.LARGEST).join)) is None
    found = workers_for(card, workers.FEWEST, reading)
    assert found is not None
    assert (found.count, found.pin, found.loader) == (4, True, None)  # nothing is started before it is needed
    assert workers_for(card, 1, reading) is found  # once there they serve who reads few, too
    monkeypatch.setattr(workers, "processors", lambda: 2)
    assert workers_for(card, 10**6, reading) is None


SCRIPT = """
import os, sys, time
from regraft.inference import Reading, batched
from regraft.inference.workers import Workers

crew = Workers(2)
found = [made for _, made in crew.read(batched(range(8), 2), Reading(str), None)]
print(found, flush=True)
print([one.pid for one in crew.loader._iterator._workers], flush=True)
if sys.argv[1:]:
    time.sleep(600)
"""


def test_a_script_without_a_guard_reads_and_leaves_no_process(tmp_path: Path) -> None:
    """Neither at its end nor when it is killed; and it is not run again in each process."""
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    for more in ([], ["wait"]):
        script = subprocess.Popen(
            [sys.executable, str(tmp_path / "script.py"), *more],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert script.stdout is not None
        assert script.stdout.readline().strip() == str([[str(n), str(n + 1)] for n in range(0, 8, 2)])
        pids = [int(pid) for pid in script.stdout.readline().strip("[]\n").split(",")]
        if more:
            script.kill()
        script.wait(60)
        deadline = time.monotonic() + 60
        while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not [pid for pid in pids if psutil.pid_exists(pid)]
        assert script.stdout.read() == ""
