"""One thing done by all workers together, by Ray Train: it begins a process a worker, joins them by
torch.distributed, and begins all of them again where one was lost.

Ray Train keeps nothing of what they do: what a new beginning goes on from, what is told on the way and what
comes of it lie with an actor of this call's own, the `Post`. Its storage is a temporary folder, for its
notes on the run, which is removed.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray
import torch

from regraft.errors import RegraftError
from regraft.scale.post import GLANCE, Post, Seat

FAILURES = 10  # beginnings that may fail, each costing what was done since the last checkpoint
LOST = (RuntimeError, OSError, ray.exceptions.RayError)  # what a process meets whose fellows are gone
SILENCE = 600  # seconds for which a process waits for the others before it counts them as lost
# What Ray Train is told. Its watcher of machines about to go is a process of its own, whose seconds of imports buy
# nothing: whoever is lost costs what was done since the last checkpoint, announced or not.
SAID = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


@dataclass
class Asked:
    """What a team is sent for: `function` of a `Seat` and of `given`, `hear` and `keep` on this side, and the
    state `kept` from which an earlier team went.
    """

    function: Callable[[Any, Any], Any]
    given: Any
    hear: Callable[[dict[str, Any]], None]
    keep: Callable[[bytes], None]
    kept: bytes | None


def _member(config: dict[str, Any]) -> None:
    """What each process does. That others are gone is Ray Train's to see to; any other error ends the whole."""
    from ray.train import get_context
    from ray.train.torch import get_device

    from regraft.runtime import begin_worker

    with contextlib.suppress(OSError):  # as workers of `each` do
        os.chdir(config["folder"])
    begin_worker(config["threads"])
    post = config["post"]
    if ray.get(post.ended.remote()):
        return
    context = get_context()
    seat = Seat(post, 0, context.get_world_rank(), context.get_world_size(), str(get_device()))
    function, given = ray.get(config["what"][0])
    try:
        answer = function(seat, given)
    except LOST:
        raise
    except Exception as error:
        if torch.distributed.is_initialized():  # else Ray Train has parted the processes, as one was lost
            ray.get(post.end.remote(False, error))
        raise
    if seat.rank == 0:
        ray.get(post.end.remote(True, answer))


def teamed(asked: Asked, workers: int, threads: int, gpus: int) -> Any:
    """What rank 0 of a team of `workers` gave, or raise what it raised; see `Crew.team`."""
    post = Post(lambda _, event: asked.hear(event), lambda _, state: asked.keep(state), [asked.kept])
    config = {
        "post": post.actor,
        "threads": threads,
        "folder": os.getcwd(),
        "what": [ray.put((asked.function, asked.given))],
    }
    failed: list[BaseException] = []
    with tempfile.TemporaryDirectory(prefix="regraft-") as folder, _told():
        trainer = _trainer(config, workers, threads, gpus, folder)

        def fit() -> None:
            try:
                trainer.fit()
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=fit, daemon=True)
        thread.start()
        answer = _attended(thread, post)
    post.close()
    if answer is None:
        why = str(failed[0]).strip().splitlines()[-1] if failed else "it ended without a word"
        raise RegraftError(
            f"the workers did not end what they had begun together, {FAILURES + 1} times: {why}"
        )
    well, value = answer
    if not well:
        raise value
    return value


def _attended(thread: threading.Thread, post: Post) -> tuple[bool, Any] | None:
    """Hear what a team tells until it has ended. The first Ctrl-C is passed on to it, the second raised."""
    while True:
        over = not thread.is_alive()
        try:
            answer = post.look()
            if over:
                return answer
            thread.join(GLANCE)
        except KeyboardInterrupt:
            post.stop()


def _trainer(config: dict[str, Any], workers: int, threads: int, gpus: int, folder: str) -> Any:
    """Ray Train's trainer of such a team."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    return TorchTrainer(
        _member,
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo", timeout_s=SILENCE),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=bool(gpus),
            resources_per_worker={"CPU": threads, **({"GPU": 1} if gpus else {})},
        ),
        run_config=RunConfig(
            name="team", storage_path=folder, failure_config=FailureConfig(max_failures=FAILURES)
        ),
    )


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Ray Train looks after its processes twice a second, writes no metrics, and begins no watcher."""
    before = {name: os.environ.get(name) for name in SAID}
    os.environ.update(SAID)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
