"""The folder of an export: written beside its place, and renamed there once it is proven."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from regraft.artifacts import RunFolder, next_free, write_json, write_text
from regraft.errors import UsageError
from regraft.exporting.formats import Format
from regraft.exporting.int8 import Cost
from regraft.exporting.proof import Proof, Subject

ABOUT, README, PREDICT, PAGE = "export.json", "README.md", "predict.py", "index.html"
# Of the npm package onnxruntime-web, in its folder dist/; they go to ort/
WEB = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def place_for(out: str | Path | None, model: Path, run: RunFolder | None, name: str) -> Path:
    """The folder that an export is to be: `out`, else the next free one in `exports/` of its run or model.

    Raises UsageError where something is there already.
    """
    if out is None:
        return next_free(run.exports if run else model / "exports", name)
    place = Path(out)
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise UsageError(f"{place} is there already, and not empty. Choose another with --out.")
    return place


@contextlib.contextmanager
def whole(place: Path) -> Iterator[Path]:
    """A folder beside `place` to write into. It takes its place when the block is done, and is removed, with
    the parents that were made for it, where the block fails.
    """
    temporary = place.with_name(f".{place.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
    made = [folder for folder in place.parents if not folder.exists()]
    try:
        temporary.mkdir(parents=True)
        yield temporary
        with contextlib.suppress(OSError):
            place.rmdir()  # an empty one
        os.replace(temporary, place)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def complete(
    folder: Path,
    form: Format,
    subject: Subject,
    question: str,
    about: Mapping[str, Any],
    proof: Proof | None,
    cost: Cost | None,
) -> None:
    """Write what goes with a graph: what is known of it, a program that uses it, and a README."""
    from jinja2 import Environment, PackageLoader

    templates = Environment(
        loader=PackageLoader("regraft.exporting"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found = {"proof": proof and proof.to_dict(), "int8": cost and cost.to_dict()}
    write_json(folder / ABOUT, {**about, **found})
    for name, content in subject.files.items():
        (folder / name).write_bytes(content)
    intake = subject.intake
    usage = form.usage.replace("TEMPERATURE", f"{about['calibration'].get('temperature', 1.0):.6g}")
    if intake.reading and form.running:
        needs = ", ".join(("numpy", *form.needs, *intake.needs))
        text = templates.get_template("predict.py.jinja").render(
            needs=needs, imports=form.imports, reading=intake.reading.strip(), running=form.running
        )
        write_text(folder / PREDICT, text)
        usage = f"pip install {needs.replace(',', '')}\npython {PREDICT} FILE..."
    if intake.page and form.web:
        missing = (
            f"of the npm package onnxruntime-web, put {', '.join(WEB)} into the folder ort/ (npm pack "
            "onnxruntime-web; they are in its dist/), and open this page by python -m http.server."
        )
        text = templates.get_template("index.html.jinja").render(
            title=escape(about["model"]), question=escape(question), reading=intake.page, missing=missing
        )
        write_text(folder / PAGE, text)
        usage += f"\npython -m http.server    # then {PAGE} in a browser; nothing leaves the computer"
    versions = ", ".join(f"{name} {version}" for name, version in about["made_with"].items())
    text = templates.get_template("README.md.jinja").render(
        about=about,
        title=form.title,
        question=question,
        versions=versions,
        inside=_inside(form, subject),
        graph=not form.usage,
        usage=usage,
        checked="\n".join([*checked(proof), *costing(cost)]),
    )
    write_text(folder / README, text)


def web_files(package: Path) -> list[Path]:
    """The files of onnxruntime-web in an unpacked npm package. Raises UsageError where they are not there."""
    for place in (package / "dist", package, package / "package" / "dist"):
        if all((place / name).is_file() for name in WEB):
            return [place / name for name in WEB]
    raise UsageError(
        f"{package} is no unpacked onnxruntime-web: {', '.join(WEB)} were looked for in it and in its dist/. "
        "npm pack onnxruntime-web fetches it, tar xzf unpacks it."
    )


def put_web(files: Sequence[Path], folder: Path) -> None:
    """Copy the files that a page needs to run the graph into `ort/` of an export."""
    (folder / "ort").mkdir()
    for file in files:
        shutil.copyfile(file, folder / "ort" / file.name)


def _inside(form: Format, graph: Subject) -> str:
    """What the graph does itself, a sentence."""
    if form.usage:
        return (
            f"{form.title} prepares images by its own code, and the network gives logits: their softmax gives "
            "the probabilities of the model where they are divided by its temperature before."
        )
    intake = graph.intake
    names = ", ".join(f"`{one.name}`" for one in intake.inputs)
    inside = f"{intake.inside} and calibration are" if intake.inside else "calibration is"
    return f"Items go in {intake.entering} ({names}); {inside} inside."


def checked(proof: Proof | None) -> list[str]:
    """What the comparison with the model found, as lines of Markdown."""
    if proof is None:
        return ["It was not compared with its model: no examples were at hand."]
    rows = [("the same prepared input", proof.same), ("from files on", proof.files)]
    if proof.stored:
        rows.append(("against the answers the run has kept, of test", proof.stored))
    return [
        f"{proof.runner} answered {proof.n} real examples ({proof.of}) beside the model it is of:",
        "",
        "| | examples | largest difference | mean difference | same answers |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {one.n} | {one.largest:.1e} | {one.mean:.1e} | {one.agreement:.2%} |"
            for name, one in rows
        ),
        "",
        f"{_prepared(proof)} The least cosine of the features is {proof.features:.6f}.",
    ]


def _prepared(proof: Proof) -> str:
    """How far what goes into the network is from what the model's own preprocessing makes, a sentence."""
    mean, largest = proof.preparing["mean"], proof.preparing["largest"]
    if largest == 0:
        return "What goes into the network is what the model's own preprocessing makes, to the bit."
    return (
        f"What the graph prepares differs from what the model's own preprocessing makes by {mean:.2g} on average, "
        f"{largest:.3g} at most (of images: grey levels of 255)."
    )


def costing(cost: Cost | None) -> list[str]:
    """What int8 costs, as lines of Markdown; none where it was not asked for, or there is no val set."""
    if cost is None:
        return []
    speeds = ", ".join(f"{speed:.0f} in {name}" for name, speed in cost.speed.items())
    return [
        "",
        f"In int8 the {cost.metric} on {cost.n} examples of val is {cost.int8:.4f}, in float32 {cost.float32:.4f}: a "
        f"difference of {cost.difference:+.4f} (95 % interval {cost.low:+.4f} to {cost.high:+.4f}). Examples a second "
        f"when it was made, from decoded input to answer: {speeds}. The model may have learnt from val meanwhile, so "
        "both are too good; their difference is what counts.",
    ]
