"""Fetching files of a hub into its local cache: watched while they come, and checked by the hash that the
hub states.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from regraft.errors import BackboneError

STALL = 30.0  # seconds without a byte, after which a download is given up
SLOWEST = 20e3  # bytes a second, on average after STALL seconds, below which it is too
PIECE = 1 << 17  # bytes the client reads at a time: of its usual 10 MB a slow hub sends none for minutes
LOOK = 0.1  # seconds between two looks at it

Tick = Callable[[str, int, int], None]  # label, kilobytes that are there, kilobytes of all


class _Gone(Exception):
    """Raised inside the client's own progress bar to end a download nobody waits for any more."""


class Download:
    """What the thread that fetches and the one that watches share."""

    def __init__(self) -> None:
        self.done = self.total = 0
        self.moved = self.began = time.monotonic()
        self.given_up = False
        self.places: list[Path] = []
        self.error: BaseException | None = None

    def next(self, size: int) -> None:
        """Another file begins, of so many bytes."""
        self.done, self.total = 0, size
        self.moved = self.began = time.monotonic()

    def bar(self) -> type:
        """A class the hub's client takes for a progress bar: it shows nothing, and counts here."""
        from tqdm.auto import tqdm

        download = self

        class Bar(tqdm):  # type: ignore[misc]
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **{**options, "disable": True})
                download.total = max(download.total, int(options.get("total") or 0))
                download.done += int(options.get("initial") or 0)

            def update(self, n: float | None = 1) -> None:
                if download.given_up:
                    raise _Gone
                if n and n > 0:
                    download.moved = time.monotonic()
                download.done += int(n or 0)

        return Bar

    def why_hopeless(self) -> str:
        """Why this is not waited for any longer, "" where it is."""
        now = time.monotonic()
        if now - self.moved > STALL:
            return f"the hub has sent nothing for {STALL:.0f} seconds"
        spent = now - self.began
        if spent > STALL and self.total and self.done < SLOWEST * spent:
            return f"the hub is too slow: {self.done / 1e3 / spent:.1f} kB a second"
        return ""


def fetch(label: str, repo: str, wanted: Sequence[Sequence[str]], tick: Tick | None = None) -> list[Path]:
    """Fetch files of the repository `repo` where the local cache lacks them; gives their places.

    Of each group of names the first that the repository has is taken; a group that ends with "" may be
    missing. Raises BackboneError, in words, for a hub that refuses, breaks off, is too slow, or sends what
    does not have the hash it stated; what is wrong is taken out of the cache again.
    """
    download = Download()
    worker = threading.Thread(target=_work, args=(download, repo, wanted), daemon=True)
    worker.start()
    try:
        while worker.is_alive():
            worker.join(LOOK)
            if tick is not None and download.total:
                tick(f"fetching {label}, kB", download.done // 1000, download.total // 1000)
            if worker.is_alive() and (why := download.why_hopeless()):
                raise BackboneError(f"{label} was not fetched: {why}.")
    finally:
        download.given_up = True  # also where somebody stopped the program
    if download.error is not None:
        raise BackboneError(f"{label} was not fetched: {_in_words(download.error)}.") from None
    return download.places


def _work(download: Download, repo: str, wanted: Sequence[Sequence[str]]) -> None:
    from huggingface_hub import constants

    try:
        constants.DOWNLOAD_CHUNK_SIZE = PIECE
        for names in wanted:
            if (place := _fetched(download, repo, names)) is not None:
                download.places.append(place)
    except BaseException as error:
        download.error = error


def _fetched(download: Download, repo: str, names: Sequence[str]) -> Path | None:
    """The first of the files that the repository has, checked."""
    from inspect import signature

    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    more = {"tqdm_class": download.bar()} if "tqdm_class" in signature(hf_hub_download).parameters else {}
    for name in filter(None, names):
        try:
            about = get_hf_file_metadata(hf_hub_url(repo, name), token=False)
            download.next(int(about.size or 0))
            place = Path(hf_hub_download(repo, name, token=False, **more))
        except EntryNotFoundError:
            continue
        _check(place, str(about.etag or ""))
        return place
    if "" in names:
        return None
    raise FileNotFoundError(f"{repo} has no {' and no '.join(names)}")


def _check(place: Path, stated: str) -> None:
    """Raise ValueError, and delete the file, where it has not the SHA-256 that the hub stated for it. Hubs
    state one of large files only.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", stated):
        return
    digest = hashlib.sha256()
    with open(place, "rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    if digest.hexdigest() != stated:
        for path in (place.resolve(), place):
            with contextlib.suppress(OSError):
                os.remove(path)
        raise ValueError(
            f"what came has not the hash that the hub stated (SHA-256 {digest.hexdigest()[:12]}..., stated {stated[:12]}...); "
            "it was deleted"
        )


def _in_words(error: BaseException) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"GatedRepoError"} or status in (401, 403):
        return (
            f"the hub gives it only to those it knows (status {status}). Ask for it on its page, `hf auth login`, `hf "
            "download` it, and name it as path:FOLDER"
        )
    if "OfflineModeIsEnabled" in kinds:
        return "HF_HUB_OFFLINE is set, which closes the hub"
    if "RepositoryNotFoundError" in kinds or status == 404:
        return "the hub does not have it"
    if status is not None:
        return f"the hub answered with status {status}"
    first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    if isinstance(error, (ValueError, FileNotFoundError)):
        return first
    if (
        isinstance(error, OSError) and error.filename is not None
    ):  # a full disk, a cache that cannot be written
        return f"{error.strerror}: {error.filename}"
    if "Consistency check" in first or "RemoteProtocolError" in kinds or "ChunkedEncodingError" in kinds:
        return f"the connection broke off before all of it was there ({first})"
    return f"the hub could not be talked to ({first})"
