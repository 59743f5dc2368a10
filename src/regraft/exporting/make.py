"""An export from beginning to end: made, held against the model, and handed over only where they agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft.data import Examples
from regraft.errors import RegraftError, UsageError
from regraft.exporting import int8, onnx, openvino
from regraft.exporting.examples import real_examples, run_of
from regraft.exporting.folder import complete, place_for, put_web, web_files, whole
from regraft.exporting.formats import Format, format_of
from regraft.exporting.graph import described
from regraft.exporting.int8 import Cost
from regraft.exporting.proof import AGREEING, THEIR_OWN, Proof, RefusedError, prove
from regraft.model import Model

Tick = Callable[..., None]


@dataclass(frozen=True)
class Exported:
    """A folder with an export, in one of the formats, how it differs from its model (None where no examples
    were at hand to compare with), and what int8 costs (None where it was not asked for).
    """

    path: Path
    format: str
    proof: Proof | None
    cost: Cost | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "path": str(self.path),
            "format": self.format,
            "proof": self.proof and self.proof.to_dict(),
            "int8": self.cost and self.cost.to_dict(),
        }


def export(
    place: Path,
    to: str,
    out: str | Path | None = None,
    quantize: str | None = None,
    data: str | Path | None = None,
    force: bool = False,
    web: str | Path | None = None,
    tick: Tick = lambda **_: None,
) -> Exported:
    """Export the model of a run or a model folder. Nothing is written where it does not answer as the model
    does.

    `data` says where the run's data are now, or names examples to compare a model without its run with. With
    `force` an export in int8 is handed over whatever it costs. `web` is an unpacked npm package onnxruntime-web,
    whose files the page beside an ONNX graph then has. Raises RefusedError, UsageError.
    """
    form = format_of(to)
    if quantize not in (None, "int8") or (quantize and to not in ("onnx", "openvino")):
        raise UsageError(f"--quantize knows int8, --to onnx or openvino; asked for was {quantize} of {to}.")
    if web is not None and not form.web:
        raise UsageError(f"--web is for --to onnx: browsers cannot run what is for {form.title}.")
    runtime = [] if web is None else web_files(Path(web))
    versions = form.versions()
    model, run = Model.load(place), run_of(place)
    target = place_for(out, place, run, f"{to}-int8" if quantize else to)
    real = real_examples(model, run, data)
    trained_on = int8.examples_of(run, data) if quantize else None
    list(model.outputs(real.items[:1]))  # what it takes to read them is missed before the network is traced
    tick(label=f"making what goes to {form.title}", done=0, total=1)
    subject = form.begin(model)
    about = {**described(subject, model, versions), "format": to, "precision": quantize or "float32"}
    with whole(target) as folder:
        cost = None
        if trained_on is None:
            runner = form.runner(_taken(form, lambda: form.write(subject, about, folder)), subject)
        else:
            file, cost = _taken(
                form, lambda: _in_int8(form, subject, about, folder, (model, trained_on), tick)
            )
            runner = form.runner(file, subject)
        proof = prove(runner, subject, model, real, tick) if len(real) else None
        if proof and not (force and quantize):
            exact = subject.answer.alike, THEIR_OWN if form.usage else AGREEING
            limits = (float("inf"), int8.AGREEING) if quantize else exact
            _check(proof, to, limits, " --force hands it over all the same." if quantize else "")
        if runtime:
            put_web(runtime, folder)
        complete(folder, form, subject, model.task.question(), about, proof, cost)
    return Exported(target, to, proof, cost)


def _in_int8(
    form: Format, graph: Any, about: dict[str, Any], folder: Path, of: tuple[Model, Examples], tick: Tick
) -> tuple[Path, Cost | None]:
    """A file in int8, and what that costs."""
    model, examples = of
    exact = onnx.write(graph, about, folder).rename(folder / "float32.onnx")
    place = folder / onnx.FILE
    int8.quantise(exact, place, graph, examples, tick)
    if about["format"] == "openvino":
        place = openvino.convert(place, about, folder)
    runners = {"float32": form.runner(exact, graph), "int8": form.runner(place, graph)}
    cost = int8.cost_of(model, graph, examples, {**runners, **int8.bfloat16(exact)}, tick)
    exact.unlink()
    return place, cost


def _taken(form: Format, write: Callable[[], Any]) -> Any:
    """What `write` gives. Raises RefusedError where the library cannot take the network."""
    try:
        return write()
    except (OSError, RegraftError):
        raise
    except Exception as error:  # whatever an exporter stumbles over, it is no fault of the user's
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise RefusedError(f"the network cannot be exported for {form.title}: {reason}") from error


def _check(proof: Proof, to: str, limits: tuple[float, float], advice: str) -> None:
    """Raises RefusedError with what of a proof is beyond the limits."""
    if faults := proof.faults(*limits):
        raise RefusedError(
            f"the export to {to} was refused, and nothing was written: {'; '.join(faults)} "
            f"({proof.n} real examples: {proof.of}).{advice}"
        )
