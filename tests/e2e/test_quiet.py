"""A whole run opens no socket and writes nothing outside its folder and the cache: watched from inside and
outside.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

WATCHED = """
import json, os, sys, threading

data, run, cache, temporary, strategy = sys.argv[1:]
allowed = tuple(os.path.realpath(place) for place in (run, cache, temporary))
# Of each event where its paths stand, and where the open folders that these are beside
changes = {"os.mkdir": {0: 2}, "os.rename": {0: 2, 1: 3}, "os.remove": {0: 1}, "os.rmdir": {0: 1},
           "os.link": {0: 2, 1: 3}, "os.symlink": {1: 2}, "os.truncate": {0: None}, "os.chmod": {0: 2},
           "os.utime": {0: 3}, "shutil.rmtree": {0: 1}}
writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
sockets, written, busy = [], [], threading.local()
REACHING = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind")

def inside(path):
    place = os.path.realpath(os.fsdecode(path))
    if place == os.devnull or place.startswith(("/dev/shm/", "/proc/self/")):
        return True
    return any(place == top or place.startswith(top + os.sep) for top in allowed)

def placed(arguments, path, folder):
    name = arguments[path]
    beside = arguments[folder] if folder is not None and folder < len(arguments) else None
    if isinstance(beside, int) and beside >= 0 and os.path.isdir(f"/proc/self/fd/{beside}"):
        return os.path.join(os.readlink(f"/proc/self/fd/{beside}"), os.fsdecode(name))
    return name

def hear(event, arguments):
    if getattr(busy, "now", False):
        return
    if event in REACHING:
        sockets.append([event, repr(arguments)])
        raise OSError("the network is closed in this test")
    if event == "open":
        path, mode, flags = arguments
        by_flags = bool((flags or 0) & writing)
        writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else by_flags
        paths = [path] if writes else []
    else:
        paths = [placed(arguments, *where) for where in changes.get(event, {}).items()]
    busy.now = True
    for path in paths:
        if isinstance(path, (str, bytes, os.PathLike)) and not inside(path):
            written.append([event, os.fsdecode(path)])
    busy.now = False

sys.addaudithook(hear)
if strategy == "self-test":
    import socket
    open(os.path.join(data, "red", "new.txt"), "w").close()
    os.close(os.open(os.path.join(data, "low.txt"), os.O_CREAT | os.O_WRONLY))
    os.rename(os.path.join(data, "low.txt"), os.path.join(data, "high.txt"))
    folder = os.open(data, os.O_RDONLY)
    os.remove("high.txt", dir_fd=folder)
    os.mkdir(os.path.join(cache, "fine"))
    try:
        socket.create_connection(("127.0.0.1", 9))
    except OSError:
        pass
else:
    import regraft
    fitted = regraft.fit(data, run, recipe={"base": {"size": 64, "join": False}, "freeze": {"strategy": strategy},
        "finetune": {"epochs": 1, "folds": 0, "refit": False}})
    regraft.load(fitted.path).predict([os.path.join(data, "red", "0.png")])
sys.stdout.write("\\n" + json.dumps({"sockets": sockets, "written": written}))
"""


def watched(colours: Path, tmp_path: Path, strategy: str) -> dict[str, list]:
    """What the watch saw during a run in a process with a home, a working and a temporary folder of its
    own.
    """
    home, cache, temporary, here = (tmp_path / name for name in ("home", "cache", "temporary", "here"))
    for folder in (home, cache, temporary, here):
        folder.mkdir()
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "HF_", "TORCH", "MPL"))}
    environment = {
        **keep,
        "HOME": str(home),
        "USERPROFILE": str(home),
        "LOCALAPPDATA": str(home),
        "REGRAFT_CACHE": str(cache),
        "TMPDIR": str(temporary),
        "TEMP": str(temporary),
        "TMP": str(temporary),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    words = [colours, tmp_path / "run", cache, temporary, strategy]
    result = subprocess.run(
        [sys.executable, "-c", WATCHED, *map(str, words)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=here,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_the_watch_sees(colours: Path, tmp_path: Path) -> None:
    seen = watched(colours, tmp_path, "self-test")
    assert seen["sockets"]
    assert [(event, Path(path).name) for event, path in seen["written"]] == [
        ("open", "new.txt"),
        ("open", "low.txt"),
        ("os.rename", "low.txt"),
        ("os.rename", "high.txt"),
        ("os.remove", "high.txt"),
    ]


def test_a_run_is_quiet(colours: Path, tmp_path: Path) -> None:
    seen = watched(colours, tmp_path, "last-1")
    assert seen["sockets"] == []
    assert seen["written"] == []
    assert [path for name in ("home", "here") for path in (tmp_path / name).rglob("*")] == []
    left = [path for path in (tmp_path / "temporary").rglob("*") if path.is_file()]
    assert left == []  # torch leaves an empty folder there, Python tries whether it may write
    assert (tmp_path / "run" / "model" / "regraft.json").is_file()
