"""Exports: one graph from pixels to calibrated probabilities, or another library's folder; proven, and usable
alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import regraft
from conftest import Fitted
from regraft.artifacts import read_json, read_parquet
from regraft.errors import UsageError
from regraft.exporting import FORMATS, Exported, RefusedError
from regraft.exporting import onnx as writer
from regraft.exporting.folder import WEB
from regraft.exporting.graph import Graph

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'regraft[export]'")


@pytest.fixture(scope="module")
def run(fitted: Fitted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shared run, to export in."""
    return Path(shutil.copytree(fitted.run, tmp_path_factory.mktemp("exported") / "run"))


@pytest.fixture(scope="module")
def exported(run: Path) -> Exported:
    return regraft.export(run, "onnx")


@pytest.fixture
def written(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Graphs are not traced again: the one that is there is copied."""

    def copy(graph: Any, about: Any, folder: Path) -> Path:
        return Path(shutil.copy(exported.path / writer.FILE, folder))

    def use(runner: Any = writer.Runner) -> None:
        monkeypatch.setattr(writer, "write", copy)
        used = replace(FORMATS["onnx"], write=copy, runner=lambda place, graph: runner(place))
        monkeypatch.setitem(FORMATS, "onnx", used)

    use()
    return use


def test_it_answers_as_the_model_does(exported: Exported, run: Path) -> None:
    assert exported.path == run / "exports" / "onnx"
    proof = exported.proof
    assert proof.n == len(read_parquet(run / "predictions.parquet")) > 20
    assert proof.same.largest < 1e-5
    assert proof.files.largest < 1e-3
    assert proof.stored.largest < 1e-3
    assert proof.files.agreement == proof.stored.agreement == 1
    assert proof.preparing["largest"] <= 1
    assert proof.features > 0.99999


def test_a_batch_of_any_size_goes_in_and_features_come_out(exported: Exported, run: Path) -> None:
    session = onnxruntime.InferenceSession(exported.path / "model.onnx")
    (given,) = session.get_inputs()
    assert (given.name, given.shape, given.type) == (
        "pixels",
        ["batch", "height", "width", 3],
        "tensor(uint8)",
    )
    assert [one.name for one in session.get_outputs()] == ["probabilities", "features"]
    model = regraft.load(run)
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (7, 300), (48, 48), (90, 61)):
        pixels = rng.integers(0, 256, (3, *shape, 3), np.uint8)
        probabilities, features = session.run(None, {"pixels": pixels})
        wanted = model.predict([pixels[0], pixels[1], pixels[2]])
        expected = np.array([list(one.probabilities.values()) for one in wanted])
        assert np.abs(probabilities - expected).max() < 1e-3, shape
        assert features.shape == (3, model.backbone.width)


def test_the_file_says_what_it_is(exported: Exported, run: Path) -> None:
    session = onnxruntime.InferenceSession(exported.path / "model.onnx")
    about = session.get_modelmeta().custom_metadata_map
    kept = read_json(exported.path / "export.json")
    assert json.loads(about["classes"]) == kept["classes"] == ["blue", "green", "red"]
    assert json.loads(about["provenance"]) == kept["provenance"]
    assert about["version"] == f"regraft {regraft.__version__}"
    assert json.loads(about["thresholds"]) == kept["thresholds"]
    assert kept["licence"] == about["licence"]
    assert json.loads(about["made_with"])["opset"] == 18
    assert kept["proof"]["same"]["largest"] == exported.proof.same.largest
    written = b"".join(path.read_bytes() for path in exported.path.iterdir())
    for private in (str(run), str(Path(writer.__file__).parent), sys.prefix):
        assert private.encode() not in written, private


def test_it_is_used_without_regraft(exported: Exported, run: Path, fitted: Fitted, tmp_path: Path) -> None:
    """The program beside the graph reads what `host` reads: turned, transparent, deep and large pictures."""
    source = Image.open(fitted.data / "red" / "3.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    source.resize((901, 700)).save(tmp_path / "turned.jpg", exif=turned.tobytes(), quality=95)
    source.resize((640, 403)).save(tmp_path / "large.png")
    clear = source.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(source.size))
    clear.save(tmp_path / "clear.png")
    Image.fromarray(np.asarray(source.convert("L")).astype(np.uint16) * 200).save(tmp_path / "deep.png")
    source.convert("P").save(tmp_path / "palette.gif")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    names = [str(path) for path in sorted(tmp_path.iterdir())]
    code = "import sys; sys.modules['regraft'] = sys.modules['torch'] = None; import runpy; sys.argv = sys.argv[1:]; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(exported.path / "predict.py"), *names],
        capture_output=True,
        text=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["source"] for line in lines] == names, done.stderr
    assert done.returncode == 1
    for line, wanted in zip(lines, regraft.load(run).predict(names), strict=True):
        if wanted.error:
            assert "error" in line
            continue
        assert line["label"] == wanted.label
        gaps = [abs(line["probabilities"][name] - p) for name, p in wanted.probabilities.items()]
        assert max(gaps) < 1e-3, line["source"]
    program = (exported.path / "predict.py").read_text("utf-8")
    assert "regraft" not in program.replace("nothing of regraft", "")


def test_what_differs_is_refused_and_nothing_written(run: Path, written: Any, tmp_path: Path) -> None:
    class Other(writer.Runner):
        def run(self, given: Any) -> Any:
            numbers, features = super().run(given)
            return numbers[:, ::-1], features

    written(Other)
    with pytest.raises(RefusedError, match=r"nothing was written: on the same input the largest difference"):
        regraft.export(run, "onnx", tmp_path / "new" / "deeper")
    assert list(tmp_path.iterdir()) == []


def test_a_model_alone_is_proven_on_named_files_or_not_at_all(
    run: Path, fitted: Fitted, written: Any, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(run / "model", tmp_path / "model"))
    alone = regraft.export(model, out=tmp_path / "alone")
    assert alone.proof is None
    assert "not compared" in (alone.path / "README.md").read_text("utf-8")
    proven = regraft.export(model, out=tmp_path / "proven", data=fitted.data)
    assert proven.proof is not None
    assert proven.proof.n == 90
    assert proven.proof.stored is None


def test_a_wrong_call_is_said_in_a_sentence(run: Path, exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no export to 'tflite'; there are onnx, openvino, torch, timm"):
        regraft.export(run, "tflite")
    with pytest.raises(UsageError, match="not empty"):
        regraft.export(run, "onnx", exported.path)
    moved = Path(shutil.copytree(run, tmp_path / "run"))
    with pytest.raises(UsageError, match="does not exist"):
        regraft.export(moved, data=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"are gone, such as .*--data FOLDER"):
        regraft.export(moved, data=tmp_path / "empty")


@pytest.mark.parametrize("name", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_resizing_in_the_graph_is_pillows(name: str) -> None:
    """To the bit but for ties, as whole pixels of a box are, and for what `Resize` says of itself."""
    from regraft.modalities.image import ImagePreprocess

    rng = np.random.default_rng(1)
    for shape in ((40, 52), (31, 33), (130, 97), (3, 200), (64, 64), (60, 33)):
        for crop in (0.875, 1.0, 0.9):
            pre = ImagePreprocess(32, crop, name, (0.5,) * 3, (0.5,) * 3)
            image = Image.fromarray(rng.integers(0, 256, (shape[0] // 3 + 1, shape[1] // 3 + 1, 3), np.uint8))
            pixels = np.asarray(image.resize(shape[::-1]))
            ours = pre.intake().module(torch.from_numpy(pixels[None].copy()))["pixels"][0].numpy()
            apart = np.abs(ours.astype(int) - pre.host(pixels))
            if shape[0] - 32 > 2 * (shape[1] - 32):  # by columns first
                assert apart.mean() < 1, (shape, crop)
            elif min(shape) >= 4 * round(32 / crop):  # averaged before
                assert apart.max() <= 3, (shape, crop)
                assert (apart > 0).mean() < 0.3, (shape, crop)
            else:
                assert apart.max() <= 2, (shape, crop)
                assert (apart > 0).mean() < 0.15, (shape, crop)


def test_a_graph_holds_copies(run: Path) -> None:
    model = regraft.load(run)
    graph = Graph(model)
    before = {name: tensor.clone() for name, tensor in graph.state_dict().items()}
    for parameter in model.backbone.module.parameters():
        parameter.data.zero_()
    assert all((before[name] == tensor).all() for name, tensor in graph.state_dict().items())


def answers_of(folder: Path, names: list[str]) -> list[dict[str, Any]]:
    """What the program beside an export says of files."""
    done = subprocess.run(
        [sys.executable, str(folder / "predict.py"), *names], capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("to", ["openvino", "torch"])
def test_the_other_graphs_answer_the_same(to: str, run: Path, fitted: Fitted, written: Any) -> None:
    made = regraft.export(run, to)
    assert made.proof is not None
    assert made.proof.same.largest < 1e-4
    assert made.proof.files.agreement == 1
    names = [str(path) for path in sorted((fitted.data / "green").iterdir())[:3]]
    for line, wanted in zip(answers_of(made.path, names), regraft.load(run).predict(names), strict=True):
        assert abs(line["probability"] - wanted.probability) < 1e-3
    content = b"".join(path.read_bytes() for path in made.path.iterdir())
    assert str(run).encode() not in content
    assert str(Path(writer.__file__).parent).encode() not in content
    assert b"provenance" in content


def test_timm_loads_its_folder(run: Path, tmp_path: Path) -> None:
    import timm

    made = regraft.export(run, "timm", tmp_path / "timm")
    assert made.proof is not None
    assert made.proof.same.largest < 1e-4
    assert {path.name for path in made.path.iterdir()} == {
        "README.md",
        "config.json",
        "export.json",
        "model.safetensors",
    }
    network = timm.create_model(f"local-dir:{made.path}", pretrained=True)
    assert network.pretrained_cfg["label_names"] == ["blue", "green", "red"]
    assert "softmax(dim=1)" in (made.path / "README.md").read_text("utf-8")


def test_what_no_other_library_can_load_is_refused_with_a_reason(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none of transformers' networks of images; --to timm"):
        regraft.export(run, "transformers")
    model = regraft.load(run)
    model.head_kind = "mlp"
    with pytest.raises(UsageError, match=r"its head is an MLP.*head.kind=linear"):
        FORMATS["timm"].begin(model)
    assert not (run / "exports" / "transformers").exists()


def test_transformers_loads_its_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="pip install 'regraft[transformers]'")
    from regraft.backbones import make_base, obtain_weights
    from regraft.modalities import modality_of
    from regraft.model import Model
    from regraft.tasks import task_of
    from regraft.training import make_head

    torch.manual_seed(0)
    shape = {"hidden_sizes": [8, 16], "depths": [1, 1], "embedding_size": 8, "layer_type": "basic"}
    config = transformers.ResNetConfig(image_size=32, **shape)
    transformers.ResNetModel(config).save_pretrained(tmp_path / "theirs")
    obtained = obtain_weights(f"path:{tmp_path / 'theirs'}", True)
    preprocess, _ = modality_of("image").preprocess(obtained.config, 32, None, None, cpu=True)
    backbone = make_base(obtained, preprocess)
    head = make_head("linear", backbone.width, 3)
    Model(backbone, head, "linear", task_of("single", ["a", "b", "c"])).save(tmp_path / "model")
    data = tmp_path / "data"
    data.mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        noise = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8))
        noise.resize((40 + 3 * number, 40)).save(data / f"{number}.png")
    made = regraft.export(tmp_path / "model", "transformers", tmp_path / "made", data=data)
    assert made.proof is not None
    assert made.proof.same.largest < 1e-4
    network = transformers.AutoModelForImageClassification.from_pretrained(str(made.path))
    assert network.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_int8_says_what_it_costs_and_is_refused_where_it_costs_too_much(
    run: Path, written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = regraft.export(run, "onnx", tmp_path / "small", quantize="int8", force=True)
    assert made.cost is not None
    assert made.cost.n == made.cost.to_dict()["n"] > 0
    assert made.cost.low <= made.cost.difference <= made.cost.high
    assert {"float32", "int8"} <= set(made.cost.speed)
    assert "In int8 the accuracy" in (made.path / "README.md").read_text("utf-8")
    kept = read_json(made.path / "export.json")
    assert kept["precision"] == "int8"
    assert kept["int8"] == made.cost.to_dict()
    assert {path.name for path in made.path.iterdir()} == {
        "README.md",
        "export.json",
        "index.html",
        "model.onnx",
        "predict.py",
    }
    session = onnxruntime.InferenceSession(made.path / "model.onnx")
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["blue", "green", "red"]
    monkeypatch.setattr("regraft.exporting.int8.AGREEING", 1.1)
    with pytest.raises(RefusedError, match=r"fewer than 110.0%.*--force hands it over"):
        regraft.export(run, "openvino", tmp_path / "other", quantize="int8")
    assert not (tmp_path / "other").exists()
    with pytest.raises(UsageError, match="--quantize knows int8, --to onnx or openvino"):
        regraft.export(run, "torch", quantize="int8")


BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
PACKAGE = os.environ.get("REGRAFT_ORT_WEB", "")


def test_the_page_says_what_it_lacks_and_takes_it_from_a_package(
    run: Path, exported: Exported, written: Any, tmp_path: Path
) -> None:
    page = (exported.path / "index.html").read_text("utf-8")
    assert "npm pack onnxruntime-web" in page
    assert "Tell apart blue, green and red." in page
    package = tmp_path / "package" / "dist"
    package.mkdir(parents=True)
    with pytest.raises(UsageError, match="no unpacked onnxruntime-web"):
        regraft.export(run, "onnx", tmp_path / "made", web=package.parent)
    for name in WEB:
        (package / name).write_text("no program")
    made = regraft.export(run, "onnx", tmp_path / "made", web=package.parent)
    assert {path.name for path in (made.path / "ort").iterdir()} == set(WEB)
    with pytest.raises(UsageError, match="--web is for --to onnx"):
        regraft.export(run, "torch", web=package.parent)


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on the path")
@pytest.mark.skipif(
    not PACKAGE,
    reason="set REGRAFT_ORT_WEB to the unpacked npm package: npm pack onnxruntime-web, tar xzf its file",
)
def test_the_page_answers_in_a_browser_as_the_model_does(
    run: Path, fitted: Fitted, written: Any, real_data: Path, tmp_path: Path
) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    made = regraft.export(run, "onnx", tmp_path / "made", web=PACKAGE)
    photograph = Image.open(fitted.data / "green" / "3.png")
    photograph.resize((640, 403)).save(tmp_path / "large.png")  # averaged before
    names = [str(fitted.data / kind / "5.png") for kind in ("red", "green", "blue")]
    names.append(str(tmp_path / "large.png"))
    names += [str(path) for path in sorted((real_data / "flowers5" / "test").rglob("*.jpg"))[:200:67]]
    handler = partial(SimpleHTTPRequestHandler, directory=str(made.path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with playwright.sync_playwright() as driver:
            chromium = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
            page = chromium.new_page(viewport={"width": 375, "height": 700})
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            page.goto(f"http://127.0.0.1:{server.server_port}/")
            status = page.locator("#status")  # the page's policy lets nobody evaluate strings in it
            playwright.expect(status).to_have_text("Ready.", timeout=30_000)
            for wanted in regraft.load(run).predict(names):
                page.set_input_files("#file", wanted.source)
                playwright.expect(status).to_contain_text(
                    f"{Path(wanted.source).name}: {wanted.label}", timeout=30_000
                )
                said = [line.split() for line in page.inner_text("#answers").split("\n") if line.strip()]
                flat = [word for words in said for word in words]
                numbers = dict(zip(flat[::2], map(float, flat[1::2]), strict=True))
                gaps = [abs(numbers[name] - share) for name, share in wanted.probabilities.items()]
                assert max(gaps) < 2e-3, wanted.source
                page.set_input_files("#file", [])
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 375
            chromium.close()
    finally:
        server.shutdown()
    assert {url.split("/")[2] for url in asked if not url.startswith("blob:")} == {
        f"127.0.0.1:{server.server_port}"
    }
