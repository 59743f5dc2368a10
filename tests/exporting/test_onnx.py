"""The export to ONNX: one graph from pixels to calibrated probabilities, proven, and usable alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
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
        monkeypatch.setitem(FORMATS, "onnx", replace(FORMATS["onnx"], write=copy, runner=runner))

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
    with pytest.raises(UsageError, match="no export to 'tflite'; there are onnx"):
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
