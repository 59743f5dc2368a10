"""Where workers come from: how many, in which cluster, and how many threads each has."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from regraft.crew import Crew
from regraft.errors import NotInstalledError, UsageError

if TYPE_CHECKING:
    from regraft.scale.workers import RayCrew

LOCAL = "local"  # Ray's word for a cluster of its own on this machine
LANES = 8  # threads a worker can use well: an engine runs as many batches at once


@dataclass(frozen=True)
class Cluster:
    """What workers are asked for: how many ("auto": as many as use the whole cluster), and the address of
    the cluster: "auto" for one that runs on this machine or as Ray's environment says, "ray://host:port" for
    one elsewhere, "local" for one of this call's own on this machine.
    """

    workers: int | Literal["auto"] = "auto"
    address: str = LOCAL

    @classmethod
    def asked(cls, workers: str | int | None, address: str | None) -> Cluster | None:
        """As options of the command name it; None where neither does. Raises UsageError."""
        if workers is None and address is None:
            return None
        count: int | Literal["auto"] = "auto"
        if workers not in (None, "auto"):
            try:
                count = int(workers)  # type: ignore[arg-type]
            except ValueError:
                count = 0
            if count < 1:
                raise UsageError(f"--workers {workers!r} is no number of workers: 1 and more, or auto.")
        return cls(count, address or LOCAL)


@contextlib.contextmanager
def crew_of(
    cluster: Cluster | None, note: Callable[[str], None], gpus: bool = False
) -> Iterator[Crew | None]:
    """The workers of a cluster as long as the context lasts; None where none were asked for.

    `note` is told what they are and where Ray's dashboard is. With `gpus` each worker has one. A cluster that
    the process had joined before stays joined. Raises UsageError where there is no such cluster, or too
    little room in it, and NotInstalledError without Ray.
    """
    if cluster is None:
        yield None
        return
    ray, manners = _ray(), contextlib.ExitStack()
    ours = not ray.is_initialized()
    if ours:
        manners.enter_context(stdout_kept())
        try:
            dashboard = _join(ray, cluster.address)
        except BaseException:
            manners.close()
            raise
        if dashboard:
            note(f"Ray's dashboard is at http://{dashboard}")
    crew: RayCrew | None = None
    try:
        from regraft.scale.workers import RayCrew

        workers, threads = room(nodes(ray), cluster.workers, gpus, ours and cluster.address == LOCAL)
        note(
            f"{workers} worker{'s' * (workers > 1)} of {threads} thread{'s' * (threads > 1)}{' and a GPU' * gpus}"
        )
        crew = RayCrew(workers, threads, gpus, note)
        yield crew
    finally:
        if crew is not None:
            crew.rest()
        if ours:
            ray.shutdown()
        manners.close()


@contextlib.contextmanager
def stdout_kept() -> Iterator[None]:
    """While it lasts, what Ray prints of lost workers goes to stderr: stdout has what the command answers.

    Ray has no setting for this: `log_to_driver` concerns what workers print.
    """
    from ray._private import worker

    printed = getattr(worker, "print_to_stdstream", None)
    if printed is None:  # another version of Ray
        yield
        return
    worker.print_to_stdstream = lambda data, ignore_prefix: printed({**data, "is_err": True}, ignore_prefix)
    try:
        yield
    finally:
        worker.print_to_stdstream = printed


def _ray() -> Any:
    """Ray, that reports to nobody. Raises NotInstalledError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise NotInstalledError(
            "workers need Ray, which is not installed: pip install 'regraft[ray]'"
        ) from None
    return ray


def _join(ray: Any, address: str) -> str:
    """Join a cluster, or begin one of its own; gives the address of its dashboard, "" where it has none."""
    try:
        context = ray.init(address=address, log_to_driver=False, logging_level="error")
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"no Ray cluster can be joined at {address!r}: {first}. Begin one with `ray start --head`, name another "
            "by --address, or leave the option out for workers on this machine alone."
        ) from None
    return str(getattr(context, "dashboard_url", "") or "")


def nodes(ray: Any) -> list[dict[str, float]]:
    """The resources of each node that is alive: CPU, GPU and others."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def room(
    found: Sequence[dict[str, float]], asked: int | Literal["auto"], gpus: bool, local: bool
) -> tuple[int, int]:
    """How many workers of how many threads each.

    "auto" takes one a GPU, or as few as use all processors, since a worker runs up to LANES batches at once
    and holds the network once. On this machine alone a worker takes no more threads than torch would. Raises
    UsageError for more workers than there is room for.
    """
    import torch

    processors = [int(node.get("CPU", 0)) for node in found]
    devices = [
        int(node.get("GPU", 0)) if gpus else count for node, count in zip(found, processors, strict=True)
    ]
    most = torch.get_num_threads() if local else max(processors, default=0)
    count = asked
    if count == "auto":
        count = sum(devices) if gpus else sum(-(-cores // min(LANES, max(most, 1))) for cores in processors)
    for threads in range(max(min(LANES, most), 1), 0, -1):
        if (
            sum(min(cores // threads, units) for cores, units in zip(processors, devices, strict=True))
            >= count
            > 0
        ):
            return count, threads
    what = f"{sum(devices)} GPUs" if gpus else f"{sum(processors)} processors"
    raise UsageError(f"{asked} workers were asked for; the cluster has {what} in {len(found)} nodes.")
