"""The process regraft runs in: caches, device, libraries' manners. Imports torch only inside functions."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import os
import platform
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
}


TRIES, PRODUCTS = 3, 20  # of the trial of threads, some hundredths of a second each

NO_HOME = "there is no home folder, so nothing is kept in a cache; name a folder for it with REGRAFT_CACHE"


def cache_folder() -> Path | None:
    """Where features and the demo's data are kept: $REGRAFT_CACHE, else the platform's cache folder.

    None where that would be in a home folder and there is none, as for the user of a container that has no
    name.
    """
    named = os.environ.get("REGRAFT_CACHE")
    if named:
        return Path(named)
    import platformdirs

    try:
        folder = Path(platformdirs.user_cache_dir("regraft", appauthor=False))
    except (RuntimeError, KeyError):
        return None
    return folder if folder.is_absolute() else None  # some versions leave ~ as it is


def quiet_libraries() -> None:
    """Telemetry off. Call before timm is first imported."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if "matplotlib" not in sys.modules:  # else its list of fonts is written into the home folder
        cache = cache_folder()
        if cache is not None:
            os.environ.setdefault("MPLCONFIGDIR", str(cache / "matplotlib"))


def ready_matplotlib() -> None:
    """Call before matplotlib is first imported: where it has no folder for its list of fonts it gets one
    until the end.
    """
    if "matplotlib" in sys.modules:
        return
    place = os.environ.get("MPLCONFIGDIR", "")
    with contextlib.suppress(OSError):
        os.makedirs(place, exist_ok=True)
        if os.access(place, os.W_OK):
            return
    with contextlib.suppress(OSError):
        os.environ["MPLCONFIGDIR"] = temporary = tempfile.mkdtemp(prefix="matplotlib-")
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)


@contextlib.contextmanager
def closed_hub(closed: bool = True) -> Iterator[None]:
    """Inside, where `closed`, the hub's local cache is all there is: nothing is asked of the network.

    Afterwards the hub is as open as it was: what else the process does with it is no business of regraft's.
    """
    if not closed:
        yield
        return
    from huggingface_hub import constants as hub

    before = hub.HF_HUB_OFFLINE
    hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before
        # Some versions take a copy when they are first imported
        copied = sys.modules.get("transformers.utils.hub")
        if hasattr(copied, "_is_offline_mode"):
            copied._is_offline_mode = before  # type: ignore[union-attr]


_fragments: list[object] = []  # a library object must outlive the operators it defines


def ready_torchvision() -> None:
    """Let torchvision be imported beside a torch its compiled part was not built for.

    Its Python part registers shapes for `nms` and `qnms` at import and fails when the compiled part, which
    defines them, did not load. Only then are the bare schemas defined here; calling them still fails, as it
    should.
    """
    if "torchvision" in sys.modules:
        return
    from importlib.util import find_spec

    import torch

    spec = find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return
    folder = Path(next(iter(spec.submodule_search_locations)))
    for compiled in (*folder.glob("_C*.so"), *folder.glob("_C*.pyd"), *folder.glob("_C*.dylib")):
        try:
            torch.ops.load_library(str(compiled))
        except (OSError, RuntimeError):
            continue
    schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(f"{name}{schema}")
            _fragments.append(library)


def keep_large_blocks() -> None:
    """Ask glibc to keep freed large blocks, so eager PyTorch does not pay page faults on every batch.

    Without it each activation is a fresh mapping. EfficientNet-Lite0 training went from 11 to 20 images/s
    on two cores without AVX-512. Does nothing elsewhere than on glibc.
    """
    if platform.system() != "Linux":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        return


def begin_worker(threads: int) -> None:
    """What a worker's process does before its first job: it settles the libraries as the calling process did, and
    computes with this many threads.

    Hooks of modules that are registered here get numbers of their own. A module that is sent keeps the numbers
    its hooks have, and torch counts from 0 in each process: of two hooks of one number the later would take the
    place of the first, without a word.
    """
    quiet_libraries()
    keep_large_blocks()
    import torch

    torch.set_num_threads(threads)
    handle = torch.utils.hooks.RemovableHandle
    handle.next_id = max(handle.next_id, secrets.randbits(31) << 32 | 1 << 32)
    ready_torchvision()


@functools.cache
def survive_forks() -> None:
    """Let processes that are forked from this one compute, with one thread each; call before torch
    computes.

    GNU's OpenMP, which torch uses on Linux, waits for ever in a forked child for threads that only the
    parent has. With one thread it needs none. A child that is to use all processors is to be spawned.
    """

    def alone() -> None:
        import torch

        torch.set_num_threads(1)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=alone)


_share = 0


def share_processors(count: int) -> None:
    """Have this process use no more than so many processors: others work beside it."""
    global _share
    _share = count


def processors() -> int:
    """How many processors this process may use: all of the machine, unless it was given a share."""
    return _share or os.cpu_count() or 1


def busy() -> bool:
    """Whether more work waits than there are processors, by the last minute's load; False where the system does
    not tell.
    """
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > (os.cpu_count() or 1)


def pick_threads() -> tuple[int, str]:
    """How many threads torch is to compute with, and why: as many as it takes, and on a busy machine as many as a
    short trial is quickest with.

    OpenMP's threads wait for each other after each product. Where other processes have the processors, a small
    product on two threads takes several times what it takes on one.
    """
    import torch

    usual = torch.get_num_threads()
    if usual == 1 or not busy():
        return usual, "as many as torch takes"
    offers = sorted({usual, max(1, usual // 2), 1}, reverse=True)
    seconds = dict.fromkeys(offers, 0.0)
    try:
        for _ in range(TRIES):  # in turns, as what others do changes
            for threads in offers:
                torch.set_num_threads(threads)
                seconds[threads] += _products()
    finally:
        torch.set_num_threads(usual)
    quickest = min(offers, key=lambda threads: seconds[threads])
    told = ", ".join(f"{1000 * seconds[threads] / TRIES:.0f} ms on {threads}" for threads in offers)
    return quickest, f"others keep the machine busy; a trial of small products took {told}"


def _products() -> float:
    """Seconds of some products of the size that the fit of a head makes."""
    import torch

    rows, weights = torch.ones(400, 1280), torch.ones(1280, 50)
    began = time.perf_counter()
    for _ in range(PRODUCTS):
        weights = rows.T @ (rows @ weights) / (1280 * 400)
    return time.perf_counter() - began


def pick_device(name: str = "auto") -> torch.device:
    """The device to work on: the named one with the number that it has (`cuda:1`), else CUDA, else MPS,
    else the CPU.

    Raises UsageError for one that does not compute here.
    """
    import torch

    from regraft.errors import UsageError

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        device = torch.device(name)
        (torch.ones(1, device=device) + 1).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:
        first = (str(error).splitlines() or ["unknown"])[0]
        raise UsageError(f"the device {name!r} cannot be used here: {first}. Try --device cpu.") from None
    return device


def versions() -> dict[str, str]:
    """Versions of what decides the numbers, for run.json."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for package in (
        "regraft",
        "torch",
        "timm",
        "torchvision",
        "numpy",
        "scipy",
        "scikit-learn",
        "pillow",
        "pyarrow",
    ):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def peak_memory() -> int:
    """Peak resident memory of this process in bytes (0 where the system does not tell)."""
    try:
        import resource
    except ImportError:
        import psutil

        return int(getattr(psutil.Process().memory_info(), "peak_wset", 0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


class PeakMemory:
    """`with PeakMemory() as memory: ...`; then `memory.peak` is the most resident bytes of this process
    meanwhile.
    """

    def __init__(self, every: float = 0.05) -> None:
        self.every, self.peak = every, 0
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        import psutil

        process = psutil.Process()
        while True:
            self.peak = max(self.peak, process.memory_info().rss)
            if self._done.wait(self.every):
                return

    def __enter__(self) -> PeakMemory:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()
