"""`regraft serve` beside a plain FastAPI handler and LitServe, all with the same weights.

    REGRAFT_DATA=... python benchmarks/serve.py [--run RUN] [--litserve SITE_PACKAGES] [--requests 1.0]
    REGRAFT_DATA=... python benchmarks/serve.py --mixed 60 [--run RUN]

A client of our own asks over loopback, with as many connections as there are clients, each asking again as
soon as it was answered, photographs of flowers5 in turn, until a fixed number of requests is answered. All
servers are up at the same time and asked one after the other at each number of clients. Client and server
share the machine's cores, so what the client costs is taken from every server alike.

The plain handler is what tutorials show: `def predict(file: UploadFile)`, Pillow, timm's own transform,
float32 PyTorch, one picture a pass. LitServe (`--litserve` names the folder of a `pip install litserve`)
does the same in batches of up to 16 that it waits 5 ms for. regraft takes the engine that it takes by
default. The time of one client is held against `model.predict` in a process of its own, at the same time.

With `--mixed` good and bad requests come for so many seconds; what is told are the statuses and the
server's memory.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
LEVELS = {1: 120, 4: 200, 16: 400, 64: 480}  # clients, and requests among them
EDGE = b"benchmark-boundary"


def plain(folder: str, port: int) -> None:
    """A server as a tutorial writes it."""
    import io

    import torch
    import uvicorn
    from fastapi import FastAPI, UploadFile
    from PIL import Image

    model, names, transform = timm_model(folder)
    app = FastAPI()

    @app.post("/predict")
    def predict(file: UploadFile) -> dict[str, float]:
        picture = transform(Image.open(io.BytesIO(file.file.read())).convert("RGB"))
        with torch.inference_mode():
            shares = model(picture.unsqueeze(0)).softmax(1)[0].tolist()
        return dict(zip(names, shares, strict=True))

    uvicorn.run(app, port=port, log_level="warning", access_log=False)


def litserve(folder: str, port: int) -> None:
    """LitServe, which wants its model in a module of its own."""
    from serve_lit import run

    run(folder, port)


def timm_model(folder: str):
    """The network of a model folder, its classes, and its transform, by plain timm."""
    from regraft.runtime import ready_torchvision

    ready_torchvision()
    import timm

    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    names = json.loads((Path(folder) / "config.json").read_text())["label_names"]
    return model, names, timm.data.create_transform(**timm.data.resolve_model_data_config(model))


def own(run: str) -> None:
    """`model.predict` of one photograph at a time: milliseconds for each line of standard input."""
    import regraft
    from regraft.recipe import read_recipe

    model = regraft.load(run, engine=read_recipe(Path(run) / "recipe.yaml")["run"]["engine"])
    contents = pictures()
    model.predict(contents[0])
    print("ready", flush=True)
    for line in sys.stdin:
        took = []
        for number in range(int(line)):
            began = time.perf_counter()
            model.predict(contents[number % len(contents)])
            took.append(1000 * (time.perf_counter() - began))
        print(json.dumps(took), flush=True)


def pictures(count: int = 60) -> list[bytes]:
    """Photographs of the test set."""
    files = sorted((Path(os.environ["REGRAFT_DATA"]) / "flowers5" / "test").glob("*/*"))
    return [file.read_bytes() for file in files[:: max(1, len(files) // count)][:count]]


def form(content: bytes, path: str = "/predict") -> bytes:
    """A whole request with one file."""
    head = (
        b'Content-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    )
    body = b"--" + EDGE + b"\r\n" + head + content + b"\r\n--" + EDGE + b"--\r\n"
    return request("POST", path, body, f"multipart/form-data; boundary={EDGE.decode()}")


def request(method: str, path: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def answered(reader: asyncio.StreamReader) -> int:
    """The status of the next answer, which is read to its end."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    await reader.readexactly(int(fields[b"content-length"]))
    return int(head.split(b" ", 2)[1])


async def load(port: int, clients: int, count: int, asked: list[bytes]) -> tuple[float, list[float]]:
    """Requests a second, and the milliseconds of each, of so many clients that ask without a pause."""
    left, took = iter(range(count)), []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in left:
            began = time.perf_counter()
            writer.write(asked[number % len(asked)])
            status = await answered(reader)
            took.append(1000 * (time.perf_counter() - began))
            assert status == 200, status
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*[client() for _ in range(clients)])
    return count / (time.perf_counter() - began), sorted(took)


@contextlib.contextmanager
def started(*words: str, port: int, more: str = "") -> Iterator[subprocess.Popen]:
    """A server in a process of its own, once it listens."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), more])),
    }
    process = subprocess.Popen([sys.executable, *words], env=environment)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                asyncio.run(load(port, 1, 8, [form(pictures(1)[0])]))
                break
            assert process.poll() is None, words
            time.sleep(0.1)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()


def compared(run: Path, site: str | None, share: float) -> dict:
    """All servers at all numbers of clients, and the own time."""
    asked, script, folder = [form(content) for content in pictures()], str(Path(__file__)), str(run / "model")
    ports = {"regraft": 8331, "plain": 8332, **({"litserve": 8333} if site else {})}
    figures: dict = {name: {} for name in ports}
    with contextlib.ExitStack() as stack:
        stack.enter_context(started("-m", "regraft", "serve", str(run), "--port", "8331", port=8331))
        for name in list(ports)[1:]:
            words = (script, "--server", name, "--run", folder, "--port", str(ports[name]))
            stack.enter_context(started(*words, port=ports[name], more=(site or "") * (name == "litserve")))
        own = subprocess.Popen(
            [sys.executable, script, "--server", "own", "--run", str(run)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(own.kill)
        own.stdout.readline()
        for port in ports.values():
            asyncio.run(load(port, 8, 40, asked))  # warm
        for clients, count in LEVELS.items():
            for name, port in ports.items():
                rate, took = asyncio.run(load(port, clients, max(clients, int(count * share)), asked))
                figures[name][clients] = {
                    "rate": rate,
                    "p50": quantile(took, 0.5),
                    "p99": quantile(took, 0.99),
                }
        single, direct = [], []
        for _ in range(3):
            own.stdin.write("40\n")
            own.stdin.flush()
            direct += json.loads(own.stdout.readline())
            single += asyncio.run(load(ports["regraft"], 1, 40, asked))[1]
    figures["one client"] = {"served": statistics.median(single), "predictor": statistics.median(direct)}
    return figures


def quantile(took: list[float], share: float) -> float:
    """Of sorted values."""
    return took[min(len(took) - 1, int(share * len(took)))]


def told(figures: dict) -> None:
    """As a table."""
    names = [f"{name}: answers/s, p50, p99 ms" for name in figures if name != "one client"]
    print(f"| clients | {' | '.join(names)} |")
    for clients in LEVELS:
        rows = [figures[name][clients] for name in figures if name != "one client"]
        cells = ["{rate:.0f}, {p50:.0f}, {p99:.0f}".format(**row) for row in rows]
        print(f"| {clients} | {' | '.join(cells)} |")
    ours, theirs = figures["regraft"][16], figures["plain"][16]
    print(f"16 clients: {ours['rate'] / theirs['rate']:.2f} times the plain handler's answers/s,", end=" ")
    print(f"p99 {ours['p99'] / theirs['p99']:.2f} times its")
    one = figures["one client"]
    print(f"one client: p50 {one['served']:.1f} ms, the predictor {one['predictor']:.1f} ms:", end=" ")
    print(f"{one['served'] / one['predictor']:.2f} times")


async def mixture(port: int, pid: int, seconds: float) -> tuple[Counter, list[float]]:
    """Statuses, and the server's memory in MB each second, of 16 clients that send good and bad."""
    import psutil

    good, rng, until = pictures(), random.Random(0), time.monotonic() + seconds
    statuses: Counter = Counter()
    bad = [
        form(good[0][:5000]),
        form(b"no picture"),
        form(b""),
        form(good[1], "/predict?model=other"),
        form(good[1], "/predict?top=0"),
        request("POST", "/predict", b"{"),
        request("POST", "/predict", b'{"items": [{"data": "????"}]}'),
        request("POST", "/predict", b"[" * 50_000),
        request("POST", "/predict", good[2], "image/jpeg"),
        request("GET", "/../../etc/passwd", b""),
        request("DELETE", "/models", b""),
        request("POST", "/predict", bytes(40_000_000)),
    ]
    weights = [4] * (len(bad) - 1) + [0.2]

    async def client() -> None:
        connection = None
        while time.monotonic() < until:
            if connection is None:
                connection = await asyncio.open_connection("127.0.0.1", port)
            reader, writer = connection
            draw = rng.random()
            try:
                if draw < 0.02:  # half a request, and gone
                    writer.write(form(good[3])[:3000])
                    writer.close()
                    connection = None
                    continue
                if draw < 0.6:
                    writer.write(form(rng.choice(good)))
                elif draw < 0.65:
                    writer.write(form(rng.choice(good), "/predict?explain=true&top=2"))
                else:
                    writer.write(rng.choices(bad, weights)[0])
                statuses[await answered(reader)] += 1
            except (ConnectionError, asyncio.IncompleteReadError):
                statuses["closed"] += 1
                connection = None

    async def watch() -> list[float]:
        sizes, process = [], psutil.Process(pid)
        while time.monotonic() < until:
            sizes.append(process.memory_info().rss / 1e6)
            await asyncio.sleep(1)
        return sizes

    *_, sizes = await asyncio.gather(*[client() for _ in range(16)], watch())
    return statuses, sizes


def fitted(place: Path) -> Path:
    """A run of the head alone on flowers5."""
    import regraft

    data = Path(os.environ["REGRAFT_DATA"]) / "flowers5"
    return regraft.fit(data, place / "flowers", recipe={"freeze": {"strategy": "head"}}).path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", help="a finished run; else one is fitted")
    parser.add_argument("--litserve", help="the site-packages folder of a pip install litserve")
    parser.add_argument("--requests", type=float, default=1.0, help="the share of the usual number")
    parser.add_argument("--mixed", type=float, help="seconds of good and bad requests")
    parser.add_argument("--json", help="where the figures go")
    parser.add_argument("--server", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=8331, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.server == "own":
        own(given.run)
        return
    if given.server:
        {"plain": plain, "litserve": litserve}[given.server](given.run, given.port)
        return
    place = Path(tempfile.mkdtemp())
    try:
        run = Path(given.run) if given.run else fitted(place)
        if given.mixed:
            with started("-m", "regraft", "serve", str(run), "--port", "8331", port=8331) as server:
                statuses, sizes = asyncio.run(mixture(8331, server.pid, given.mixed))
            figures = {
                "statuses": {str(key): value for key, value in sorted(statuses.items(), key=str)},
                "megabytes": sizes,
            }
            print(figures["statuses"])
            quarters = [max(sizes[len(sizes) * n // 4 : len(sizes) * (n + 1) // 4]) for n in range(4)]
            print("memory, MB, the most in each quarter:", *[f"{size:.0f}" for size in quarters])
        else:
            figures = compared(run, given.litserve, given.requests)
            told(figures)
        if given.json:
            Path(given.json).write_text(json.dumps(figures, indent=1))
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
