"""Workers of a real Ray on this machine: the same bits as at home, what a lost worker costs, and what errors say."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import regraft
from regraft.crew import Crew, in_order
from regraft.data import read_source
from regraft.data.audit import files
from regraft.errors import ChangedError, DataError, NotInstalledError, RegraftError, UsageError
from regraft.inference import FeatureStore, feature_key, makers
from regraft.modalities import modality_of
from regraft.scale import Cluster, crew_of
from regraft.scale.cluster import room, stdout_kept

pytestmark = pytest.mark.ray


class Times:
    """A factory: multiplies what it is given, and ends its process where the file `trap` says so."""

    def __init__(self, factor: int, trap: Path | None = None) -> None:
        self.factor, self.trap = factor, trap

    def __call__(self) -> Callable[[int], int]:
        return self.work

    def work(self, job: int) -> int:
        if self.trap is not None and job == 3 and self.trap.exists():
            if self.trap.read_text() == "once":
                self.trap.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.factor * job


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Twelve files of two classes, among them a copy and one that is no picture."""
    for number in range(11):
        folder = tmp_path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        pixels = np.full((8, 8, 3), 20 * (number % 10), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (tmp_path / "a" / "none.png").write_bytes(b"no picture")
    return tmp_path


def refuse() -> Callable[[int], int]:
    """A factory of what raises an error whose kind asks for more than a message."""

    def work(job: int) -> int:
        raise ChangedError(f"{job}.png", "its content is another one")

    return work


def test_every_job_is_done_once_and_jobs_are_drawn_as_they_are_needed(crew: Crew, told: list[str]) -> None:
    drawn = []

    def jobs() -> Iterator[int]:
        for number in range(1000):
            drawn.append(number)
            yield number

    found = in_order(crew.each(Times(3), jobs()))
    assert [next(found) for _ in range(5)] == [0, 3, 6, 9, 12]
    assert len(drawn) < 50
    found.close()  # type: ignore[attr-defined]
    assert list(in_order(crew.each(Times(2), range(20)))) == [2 * job for job in range(20)]
    assert any(line.startswith("2 workers of 1 thread") for line in told)


def test_a_lost_worker_costs_its_jobs_only(crew: Crew, told: list[str], tmp_path: Path) -> None:
    (tmp_path / "trap").write_text("once")
    made = dict(crew.each(Times(3, tmp_path / "trap"), range(12)))
    assert made == {job: 3 * job for job in range(12)}
    assert any("a worker was lost" in line for line in told)
    (tmp_path / "trap").write_text("always")
    with pytest.raises(RegraftError, match="4 workers ended one after the other"):
        dict(crew.each(Times(3, tmp_path / "trap"), range(12)))
    assert dict(crew.each(Times(3), range(2))) == {0: 0, 1: 3}, "it works on afterwards"


def test_what_ray_prints_of_a_lost_worker_keeps_off_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    from ray._private import worker

    printed, lost = worker.print_to_stdstream, "a worker died or was killed"
    with stdout_kept():  # as Ray's listener prints what became of workers
        worker.print_to_stdstream({"lines": [lost], "pid": "raylet", "is_err": False}, ignore_prefix=False)
    said = capsys.readouterr()
    assert not said.out
    assert lost in said.err
    assert worker.print_to_stdstream is printed


def test_an_error_comes_home_whole(crew: Crew) -> None:
    with pytest.raises(ChangedError, match="its content is another one") as raised:
        list(crew.each(refuse, range(3)))
    assert raised.value.path.endswith(".png")


def test_errors_reach_another_process_whole() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(DataError("wrong:", ["a", "b"], "mend it")))
    assert (type(error), error.faults, str(error)) == (DataError, ("a", "b"), "wrong:\n  - a\n  - b\nmend it")


@pytest.mark.parametrize("engine", ["torch-float32", "openvino-float32"])
def test_features_have_the_bits_of_home_and_are_kept(
    crew: Crew, tiny: str, colours: Path, tmp_path: Path, engine: str
) -> None:
    base = regraft.backbone(tiny, 32)
    made = makers(base, torch.device("cpu"), 8)
    if engine not in made:
        pytest.skip("OpenVINO is for x86-64 processors only")
    runs = made[engine]()
    files = sorted(colours.rglob("*.png"))
    ids, seen = [f"{n:032x}" for n in range(len(files))], []
    work = functools.partial(
        FeatureStore.features,
        ids=ids,
        items=files,
        key=feature_key(runs),
        preprocess=base.preprocess,
        engine=runs,
        tick=lambda **fields: seen.append(fields["done"]),
    )
    (home,) = work(FeatureStore(None))
    (away,) = work(FeatureStore(tmp_path / "kept", crew=crew))
    assert np.array_equal(home, away)
    seen.clear()
    (stored,) = work(FeatureStore(tmp_path / "kept"))
    assert np.array_equal(home, stored)
    assert not seen, "nothing was computed again"


def test_what_workers_have_no_room_for_is_said() -> None:
    nodes = [{"CPU": 4.0}, {"CPU": 2.0}, {"CPU": 16.0, "GPU": 2.0}]
    assert room(nodes, "auto", gpus=False, local=False) == (4, 4)
    assert room(nodes, "auto", gpus=True, local=False) == (2, 8)
    assert room(nodes, 5, gpus=False, local=False) == (5, 4)
    assert room(nodes, 22, gpus=False, local=False) == (22, 1)
    with pytest.raises(
        UsageError, match="23 workers were asked for; the cluster has 22 processors in 3 nodes"
    ):
        room(nodes, 23, gpus=False, local=False)
    with pytest.raises(UsageError, match="the cluster has 2 GPUs"):
        room(nodes, 3, gpus=True, local=False)


@pytest.mark.parametrize("workers", ["0", "-1", "two"])
def test_a_number_of_workers_that_is_none(workers: str) -> None:
    with pytest.raises(UsageError, match="is no number of workers: 1 and more, or auto"):
        Cluster.asked(workers, None)


def test_what_is_asked_for_by_options() -> None:
    assert Cluster.asked(None, None) is None
    assert Cluster.asked("auto", None) == Cluster("auto", "local")
    assert Cluster.asked(None, "ray://head:10001") == Cluster("auto", "ray://head:10001")
    assert Cluster.asked("3", "auto") == Cluster(3, "auto")


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: Any) -> None: ...

    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(NotInstalledError, match=r"pip install 'regraft\[ray\]'"),
        crew_of(Cluster(1), nothing),
    ):
        pass


def doubled(_: torch.nn.Module, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    return (2 * given[0],)


def passed_beside_another_hook() -> Callable[[torch.nn.Module], float]:
    """A factory of what hooks a module for a moment, and asks it afterwards."""

    def work(module: torch.nn.Module) -> float:
        module.register_forward_pre_hook(lambda *_: None).remove()
        return float(module(torch.ones(1)))

    return work


def test_a_hook_of_a_sent_module_stays_whatever_is_hooked_there(crew: Crew) -> None:
    """Each has another of the first numbers, which a fresh process gives out too."""
    modules = []
    for number in range(64):
        module = torch.nn.Identity()
        module._forward_pre_hooks[number] = doubled
        modules.append(module)
    assert list(in_order(crew.each(passed_beside_another_hook, modules))) == [2.0] * 64


def test_workers_look_at_files_as_one_process_does(
    crew: Crew, mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the files cannot be read, and two show the same."""
    monkeypatch.setattr(files, "PART", 3)
    source = read_source(mixed, [modality_of("image")])
    home, away = (files.audit_files(source, lambda **_: None, who) for who in (None, crew))
    assert len(away.facts) == 11
    assert [fact.identity for fact in away.facts].count(away.facts[0].identity) == 2
    assert away.quarantined[0].reason
    assert away == home
