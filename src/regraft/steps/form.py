"""Part of step 2: the input size of a backbone, how many of its stages, and whether their depths are joined."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from regraft.backbones import Backbone, Way, joined, truncated, widths_of
from regraft.data.part import Part
from regraft.errors import UsageError
from regraft.evaluation import fewest_blocks
from regraft.inference import feature_key
from regraft.steps.context import Context
from regraft.steps.engine import Frozen, choose_engine
from regraft.steps.estimate import usual_plan
from regraft.steps.evidence import CLEAR_ERRORS
from regraft.steps.finetune.forecast import Signs
from regraft.steps.join import JOINED, WAYS, columns, gain_of, joined_by, probed, way_of
from regraft.tasks import Task
from regraft.training import Path

ENOUGH = 1_000  # examples of train and val that choose, at most
SMALLER, SMALLEST = 0.7, 64  # of the rule's input size, which is half its cost; pixels
DEPTHS = 4  # cuts a backbone is tried at, all in its later half
SPARED = 20.0  # times what a further pass takes have to be left of a budget


@dataclass(frozen=True)
class Form:
    """What step 2 makes of a backbone: its input size, its first stages, and how their depths are joined."""

    size: int
    depth: int
    way: Way

    def in_words(self, stages: int) -> str:
        """Inside a sentence."""
        cut = f"all {stages} stages" if self.depth == stages else f"{self.depth} of {stages} stages"
        return f"{cut} at input size {self.size}"


@dataclass(frozen=True)
class _Look:
    """Features of some examples at one input size: (N, D) of all depths joined, and (N, width) at each depth at
    which the network may end; the engine that gave them, and the seconds it took.
    """

    joined: np.ndarray
    last: Mapping[int, np.ndarray]
    engine: str
    seconds: float

    def of(self, form: Form, widths: Sequence[int]) -> np.ndarray:
        """(N, D) features of a form, of depths with these `widths`."""
        return (
            self.last[form.depth] if form.way is False else columns(self.joined, form.way, widths, form.depth)
        )


class Looks:
    """How well a backbone predicts in each form, out of fold on some examples of train and val, `part`. One pass
    at each input size gives the features of all depths and of all ways of joining them.

    `count` are the examples of all splits, `facts` those of train and val.
    """

    def __init__(
        self, backbone: Backbone, part: Part, facts: pa.Table, count: int, task: Task, context: Context
    ) -> None:
        self.backbone, self.facts, self.count = backbone, facts, count
        self.task, self.context = task, context
        self.some, self.examples = part.every(-(-len(part) // ENOUGH)), len(part)
        self.usual, self.stages = backbone.preprocess.size, len(backbone.stages)
        self.widths = widths_of(backbone) if self.stages > 1 else [backbone.width]
        self.looks: dict[int, _Look] = {}
        self.paths: dict[Form, Path] = {}

    @property
    def able(self) -> bool:
        """Whether there is something to choose by, and time."""
        labels = self.task.strata(self.some.labels)
        return fewest_blocks(labels, self.some.blocks) >= 2 and not self.context.out_of_time()

    def whole(self, way: Way) -> Form:
        """All stages at the usual size, joined by this way."""
        return Form(self.usual, self.stages, way)

    def path(self, form: Form) -> Path:
        """The out-of-fold outputs of a linear head on the features of a form."""
        if form not in self.paths:
            values = self._look(form.size).of(form, self.widths)
            self.paths[form] = probed(values, self.some, self.task, self.context)
        return self.paths[form]

    def loss(self, form: Form) -> float:
        """The mean out-of-fold loss."""
        path = self.path(form)
        return float(self.task.losses(self.some.labels[path.rows], path.logits).mean())

    def gain(self, form: Form, other: Form) -> tuple[float, float]:
        """By how much the loss of the other form is lower, and the standard error of that."""
        return gain_of(self.path(form), self.path(other), self.some, self.task)

    def signs(self) -> Signs | None:
        """What the ways of joining that were looked at say of fine-tuning; None where the last depth alone was not
        compared with others.
        """
        last = self.whole(False)
        others = [form for form in map(self.whole, WAYS) if form in self.paths and form != last]
        if last not in self.paths or not others:
            return None
        return Signs(self.loss(last), self.loss(last) - min(map(self.loss, others)))

    def spare(self) -> bool:
        """Whether the budget leaves time for another pass."""
        seconds = max((look.seconds for look in self.looks.values()), default=0.0)
        return SPARED * seconds < self.context.seconds_left and not self.context.out_of_time()

    def made(self, form: Form) -> Backbone:
        """The backbone in a form; its features of the examples that were looked at are kept in the store. Raises
        UsageError or ValueError where it cannot be made.
        """
        backbone = self._sized(form.size)
        if form.depth < self.stages:
            backbone = truncated(backbone, form.depth)
            usual_plan(backbone, self.context.recipe)
        if form.way is not False:
            backbone = joined_by(backbone, form.way)
        look = self.looks.get(form.size)
        if look is not None:
            engine = choose_engine(
                backbone, self.some.items, self.count, self.context.trial(), like=look.engine
            )
            values = look.of(form, self.widths)
            self.context.store.keep(self.some.ids, feature_key(engine), engine, values)
        return backbone

    def _sized(self, size: int) -> Backbone:
        """The backbone at an input size."""
        backbone, context = self.backbone, self.context
        if size == self.usual:
            return backbone
        native, cpu = backbone.provenance.input_size, context.device.type == "cpu"
        preprocess, _ = context.modality.preprocess(backbone.config, native, self.facts, size, cpu)
        return replace(backbone, preprocess=preprocess)

    def _look(self, size: int) -> _Look:
        if size not in self.looks:
            began = time.monotonic()
            every = joined(
                self._sized(size), "deviations" if "deviations" in self.context.modality.joins else True
            )
            like = next((look.engine for look in self.looks.values()), "")
            depths = (*cuts_of(self.stages), self.stages)
            engine = choose_engine(every, self.some.items, self.count, self.context.trial(), depths, like)
            names = ("pooled", *(f"depth {depth}" for depth in depths))
            values, *last = Frozen(every, engine, self.context).columns(self.some, names)
            ends, seconds = dict(zip(depths, last, strict=True)), time.monotonic() - began
            self.looks[size] = _Look(values, ends, engine.name, seconds)
        return self.looks[size]


def formed(
    backbone: Backbone, part: Part, facts: pa.Table, count: int, task: Task, context: Context, free: bool
) -> tuple[Backbone, Signs | None]:
    """The backbone as the recipe wants it: its depths joined or not, and, where `free`, at the input size and the
    depth that predict better out of fold on train and val together, `part` with these `facts`; and what was seen
    of fine-tuning meanwhile. `count` are the examples of all splits. Free is what comes unasked: neither the user
    nor a ranking has named it.

    The whole network at the size by the modality's rule is the usual form. A smaller input or a network cut short
    wins only if it is clearly better: all of it gains more from fine-tuning, and where nothing is fine-tuned, less than
    that was chance (docs/decisions.md).
    """
    looks = Looks(backbone, part, facts, count, task, context)
    way, why, compared = way_of(looks)
    usual = looks.whole(way)
    chosen, body = usual, None
    if free and looks.stages > 1 and (compared or context.recipe.base.join != "auto") and looks.able:
        chosen, body, better = _best(usual, looks)
        why = f"{why}; {better}"
        compared = True
    body = body or looks.made(chosen)
    context.settle("base.join", way, why)
    if chosen != usual:
        context.settle("base.size", chosen.size, why)
        context.settle("base.depth", chosen.depth, why)
    if compared or way is not False:
        context.decisions.amend("base", _said(body, chosen, looks), why, _details(body))
    return body, looks.signs()


def smaller_than(size: int, fixed: bool, resizes: bool) -> int | None:
    """The next useful input size below this one; None where there is none, or the network takes no other."""
    smaller = max(SMALLEST, 32 * round(SMALLER * size / 32))
    return None if fixed or not resizes or smaller >= size else smaller


def cuts_of(stages: int) -> tuple[int, ...]:
    """Depths, a few of the later half, at which a backbone of so many stages is tried."""
    half = -(-stages // 2)
    return tuple(sorted({int(depth) for depth in np.linspace(half, stages - 1, min(DEPTHS, stages - half))}))


def _best(usual: Form, looks: Looks) -> tuple[Form, Backbone | None, str]:
    """The best form of those on offer and the backbone in it, the usual one unless another is clearly better;
    and what was found.
    """
    gains = _gains(usual, looks)
    if not gains:
        return usual, None, "no other size or depth is on offer"
    ordered = sorted(gains, key=lambda form: -gains[form][0])
    chosen, body = usual, None
    for form in (form for form in ordered if gains[form][0] > CLEAR_ERRORS * gains[form][1]):
        try:
            chosen, body = form, looks.made(form)
            break
        except (ValueError, UsageError):  # it cannot end there
            continue
    for form in (usual, *gains):
        gain, error = gains.get(form, (0.0, 0.0))
        told = {"size": form.size, "depth": form.depth, "stages": looks.stages, "join": WAYS[form.way]}
        beside = {"loss": looks.loss(form), "difference": -gain, "difference_error": error}
        looks.context.events.emit("form", step="base", **told, **beside, chosen=form == chosen)
    found = ordered[0] if chosen == usual else chosen
    gain, error = gains[found]
    change = f"{'lower' if gain > 0 else 'higher'} by {abs(gain):.3f} ± {error:.3f}"
    whole, other = usual.in_words(looks.stages), found.in_words(looks.stages)
    if chosen != usual:
        return chosen, body, f"{looks.loss(found):.3f} by {other}, {change} than by {whole}"
    said = f"no other size or depth is clearly better, the next best being {other} ({change})"
    return chosen, body, said


def _gains(usual: Form, looks: Looks) -> dict[Form, tuple[float, float]]:
    """By how much the loss of other forms is lower, and the standard error of that: of the network cut short, of
    smaller inputs, and of both, as far as the recipe leaves them open and the budget has time.

    A smaller input is asked only of what fills the size the network was trained at. At each size the deepest
    comes first, and once one is clearly worse than the usual form, those below it are not looked at; nor is a
    smaller input where the network needs its last stage so much.
    """
    asked, backbone, modality = looks.context.recipe.base, looks.backbone, looks.context.modality
    depths = [*(reversed(cuts_of(looks.stages)) if asked.depth == "auto" else ())]
    gains: dict[Form, tuple[float, float]] = {}

    def look(size: int, depths: Sequence[int]) -> None:
        for form in (replace(usual, size=size, depth=depth) for depth in depths):
            if not _possible(form, looks):
                break
            gains[form] = looks.gain(usual, form)
            if _worse(*gains[form]):
                break

    looks.path(usual)
    look(usual.size, depths)
    fixed, native = bool(backbone.config.get("fixed_input_size")), backbone.provenance.input_size
    smaller = smaller_than(usual.size, fixed, modality.resizes)
    if asked.size != "auto" or smaller is None or usual.size < native or not looks.spare():
        return gains
    if not any(_worse(*gain) for gain in list(gains.values())[:1]):
        look(smaller, (usual.depth, *depths))
    return gains


def _worse(gain: float, error: float) -> bool:
    """Whether it is clearly below 0."""
    return gain < -CLEAR_ERRORS * error


def _possible(form: Form, looks: Looks) -> bool:
    """Whether a form can be looked at, and there is time to: a network may not take every size."""
    if looks.context.out_of_time():
        return False
    try:
        looks.path(form)
    except (RuntimeError, ValueError, AssertionError):
        return False
    return True


def _said(body: Backbone, form: Form, looks: Looks) -> str:
    kept = f"{form.depth} stages" if form.depth == looks.stages else f"{form.depth} of {looks.stages} stages"
    if form.way is not False:
        cut = "" if form.depth == looks.stages else f"first {form.depth} of "
        kept = f"{cut}all {looks.stages} depths {JOINED[form.way]}"
    return f"{kept}, {body.width:,} features, input size {form.size}"


def _details(body: Backbone) -> dict[str, object]:
    return {"stages": ", ".join(stage.name for stage in body.stages), "width": body.width}
