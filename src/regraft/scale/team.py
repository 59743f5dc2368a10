"""One thing done by all workers together, by Ray Train: it begins a process a worker, joins them by
torch.distributed, and begins all of them again where one was lost.

Ray Train keeps nothing of what they do: what a new beginning goes on from, what is told on the way and what
comes of it lie with an actor of this call's own, the `_Post`. Its storage is a temporary folder, for its
notes on the run, which is removed.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from regraft.errors import RegraftError

FAILURES = 10  # beginnings that may fail, each costing what was done since the last checkpoint
LOST = (RuntimeError, OSError, ray.exceptions.RayError)  # what a process meets whose fellows are gone
SILENCE = 600  # seconds for which a process waits for the others before it counts them as lost
GLANCE = 0.2  # seconds between two looks at the post
TELLS = 0.25  # seconds between two ticks that are told, and between two looks whether to stop
HEALTH = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5", "RAY_TRAIN_METRICS_ENABLED": "0"}


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


class _Post:
    """What lies between a team and who sent it."""

    def __init__(self, kept: bytes | None) -> None:
        self.kept, self.fresh, self.stopping = kept, False, False
        self.events: list[dict[str, Any]] = []
        self.answer: tuple[bool, Any] | None = None

    def tell(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def keep(self, state: bytes) -> None:
        self.kept, self.fresh = state, True

    def last(self) -> bytes | None:
        return self.kept

    def stop(self) -> None:
        self.stopping = True

    def stopped(self) -> bool:
        return self.stopping

    def end(self, well: bool, answer: Any) -> None:
        if self.answer is None:
            self.answer = (well, answer)

    def ended(self) -> bool:
        return self.answer is not None

    def collect(self) -> tuple[list[dict[str, Any]], bytes | None, tuple[bool, Any] | None]:
        """Events and state that are new, and the answer."""
        events, state = self.events, self.kept if self.fresh else None
        self.events, self.fresh = [], False
        return events, state, self.answer


class _Seat:
    """What a process of a team has (`crew.Seat`)."""

    def __init__(self, post: Any, threads: int) -> None:
        from ray.train import get_context
        from ray.train.torch import get_device

        context = get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.device, self.threads = str(get_device()), threads
        self._post, self._told, self._looked, self._stopped = post, 0.0, 0.0, False

    def tell(self, event: dict[str, Any]) -> None:
        now = time.monotonic()
        if event.get("kind") == "tick":
            if now - self._told < TELLS:
                return
            self._told = now
        self._post.tell.remote(event)

    def stopped(self) -> bool:
        now = time.monotonic()
        if self.rank == 0 and now - self._looked >= TELLS:
            self._looked, self._stopped = now, ray.get(self._post.stopped.remote())
        return self._stopped

    def keep(self, state: bytes) -> None:
        ray.get(self._post.keep.remote(state))

    def kept(self) -> bytes | None:
        return ray.get(self._post.last.remote())  # type: ignore[no-any-return]


def _member(config: dict[str, Any]) -> None:
    """What each process does. That others are gone is Ray Train's to see to; any other error ends the whole."""
    from regraft.runtime import keep_large_blocks, quiet_libraries, ready_torchvision

    with contextlib.suppress(OSError):  # as workers of `each` do
        os.chdir(config["folder"])
    quiet_libraries()
    keep_large_blocks()
    torch.set_num_threads(config["threads"])
    ready_torchvision()
    post = config["post"]
    if ray.get(post.ended.remote()):
        return
    seat = _Seat(post, config["threads"])
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
    # On this machine: that of a worker would take it along when it is lost
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    post = ray.remote(num_cpus=0, scheduling_strategy=here)(_Post).remote(asked.kept)
    config = {
        "post": post,
        "threads": threads,
        "folder": os.getcwd(),
        "what": [ray.put((asked.function, asked.given))],
    }
    failed: list[BaseException] = []
    with tempfile.TemporaryDirectory(prefix="regraft-") as folder, _health():
        trainer = _trainer(config, workers, threads, gpus, folder)

        def fit() -> None:
            try:
                trainer.fit()
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=fit, daemon=True)
        thread.start()
        answer = _attended(thread, post, asked)
    ray.kill(post)
    if answer is None:
        why = str(failed[0]).strip().splitlines()[-1] if failed else "it ended without a word"
        raise RegraftError(
            f"the workers did not end what they had begun together, {FAILURES + 1} times: {why}"
        )
    well, value = answer
    if not well:
        raise value
    return value


def _attended(thread: threading.Thread, post: Any, asked: Asked) -> tuple[bool, Any] | None:
    """Hear what a team tells until it has ended. The first Ctrl-C is passed on to it, the second raised."""
    answer: tuple[bool, Any] | None = None
    stopping = False
    while True:
        over = not thread.is_alive()
        try:
            events, state, answer = ray.get(post.collect.remote())
            for event in events:
                asked.hear(event)
            if state is not None:
                asked.keep(state)
            if over:
                return answer
            thread.join(GLANCE)
        except KeyboardInterrupt:
            if stopping:
                raise
            stopping = True
            ray.get(post.stop.remote())


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
def _health() -> Iterator[None]:
    """Ray Train looks after its processes twice a second, and writes no metrics."""
    before = {name: os.environ.get(name) for name in HEALTH}
    os.environ.update(HEALTH)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
