"""Step 1 at full strength: backbones, input sizes and depths compared on the user's own examples, in growing
rounds.

The score is the out-of-fold log loss of a regularised linear probe on frozen features of train and val (rule
12); beside it stand nearest neighbours, LogME and the honest baseline, size: no score is the best on all data
(Agostinelli et al. 2022).

A network cut short counts only where it is clearly better than the whole one: frozen features flatter it, as
what the later stages would gain from fine-tuning is not in them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from regraft.backbones import Backbone, Cost, Obtained, costs, entry_of, make_base, obtain_weights, truncated
from regraft.data.examples import Part
from regraft.errors import BackboneError, UsageError
from regraft.evaluation import (
    Estimate,
    effective_count,
    folds_of,
    knn_out_of_fold,
    log_losses,
    logme,
    standard_error,
    wilson,
)
from regraft.inference import REFERENCE, Trial, feature_key, makers, pick_engine, trial_key
from regraft.steps.base import input_size, is_upscaled
from regraft.steps.context import Context
from regraft.steps.estimate import epochs_of, run_seconds, step_seconds, usual_plan
from regraft.training import class_weighted, fit_path

ROUNDS = (300, 1_000, 3_000)  # examples
FOLDS = 5
WORTH = 1.5  # times the examples of the round before: fewer new ones are not worth a round
DROP = 2.0  # standard errors of a paired difference from which it is clear: candidates so far behind are not looked at again
TIES = {"accuracy": 1.0, "speed": 2.0}  # standard errors within which the cheapest is taken
SMALLER, LEAST = 0.7, 64  # of the rule's input size, half its cost; pixels
DEPTHS = 4  # cuts a backbone is tried at, all in its later half
SHARE = 0.2  # of the time left: what the comparison may take
SAMPLE = 32  # images of the engines' trial


@dataclass(frozen=True)
class Row:
    """A candidate, and what it came to in the last round it was in: on `examples`, its first `depth` of
    `stages` stages.

    `excess` is its mean log loss (nats) above that of the best of the round, `error` the standard error of
    that difference. Parameters and 10^9 multiply-accumulates an image are those of the stages kept, the old
    classifier not counted. `clear` is false of a network cut short that is to be fine-tuned and is not
    clearly better than the whole one, behind which it stands.
    """

    reference: str
    size: int
    depth: int
    stages: int
    examples: int
    log_loss: float
    excess: float
    error: float
    accuracy: Estimate
    knn: Estimate
    logme: float
    parameters: int
    gmacs: float
    images_per_second: float
    run_seconds: float
    imagenet_top1: float | None
    pretrained_on: str
    licence: str
    clear: bool = True

    @property
    def name(self) -> str:
        """In words."""
        cut = "" if self.depth == self.stages else f", {self.depth} of {self.stages} stages"
        return f"{self.reference} at {self.size}{cut}"


@dataclass(frozen=True)
class Ranking:
    """All candidates, those of the last round first, each round by log loss (see `Row.clear`); which was
    chosen, and why.

    `opinions`: what other rules would have taken. `left_out`: references that were not compared, with the
    reason.
    """

    rows: tuple[Row, ...]
    chosen: Row
    reason: str
    opinions: Mapping[str, str]
    left_out: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        rows = [
            {"rank": place, "name": row.name, **asdict(row)} for place, row in enumerate(self.rows, start=1)
        ]
        return {
            "schema": 1,
            "chosen": self.chosen.name,
            "reason": self.reason,
            "opinions": dict(self.opinions),
            "left_out": dict(self.left_out),
            "rows": rows,
        }


@dataclass
class _Look:
    """A backbone at one input size, whose depths share one pass. Seconds are an image's, of the whole
    network.
    """

    reference: str
    size: int
    stages: int
    depths: tuple[int, ...]  # of all cuts that were offered: one pass, one converted network for all rounds
    engine: str
    forward: float
    step: float
    cost: dict[int, Cost]
    pretrained_on: str
    licence: str
    seen: int = 0
    features: dict[int, np.ndarray] = field(default_factory=dict)  # by depth, of those still in the race

    def share(self, depth: int) -> float:
        """Of the whole's time, what the first stages take."""
        return self.cost[depth].seconds / self.cost[self.stages].seconds


@dataclass(frozen=True)
class _Probe:
    """Out-of-fold results of one candidate: its losses on the same rows as any other's of the round."""

    look: _Look
    depth: int
    losses: np.ndarray
    blocks: np.ndarray  # of the same rows
    accuracy: Estimate
    knn: Estimate
    logme: float

    def standing(self, whole: _Probe | None) -> tuple[float, bool]:
        """What candidates are sorted by: the log loss, and true last; behind the whole network if not clearly
        better.
        """
        own = float(self.losses.mean())
        if whole is None or clearly_lower(self.losses, whole.losses, self.blocks):
            return own, False
        return max(own, float(whole.losses.mean())), True


def clearly_lower(losses: np.ndarray, others: np.ndarray, blocks: np.ndarray | None = None) -> bool:
    """Whether (N,) losses are lower than others of the same examples by more than two standard errors of the
    difference.
    """
    gain = others - losses
    return bool(gain.mean() > DROP * standard_error(gain, blocks))


def rank(
    part: Part,
    sizes: np.ndarray,
    counts: Mapping[str, int],
    classes: int,
    references: Sequence[str],
    context: Context,
    named: bool = False,
) -> Ranking:
    """Compare candidates on train and val together (`part`; `sizes` (N, 2) are the images' widths and
    heights).

    `counts` are those of the splits, for the estimate of a whole run. What cannot be used is left out with a
    word, or an error where the user `named` it. Raises UsageError where nothing is left to choose from.
    """
    race = _Race(part, sizes.min(axis=1), counts, classes, context)
    looks, left_out = race.enter(references, named)
    if not looks:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise UsageError(
            f"no backbone can be compared ({reasons or 'none is at hand'}). Name one with --backbone."
        )
    out: list[Row] = []
    for number, examples in enumerate(race.rounds):
        if number:
            race.extend(looks, examples)
        probes = race.probe(looks, examples)
        standing = race.standings(probes)
        probes.sort(key=lambda probe: standing[id(probe)])
        rows = {
            id(probe): race.row(probe, probes[0], examples, not standing[id(probe)][1]) for probe in probes
        }
        stay = [probe for probe in probes if rows[id(probe)].excess <= DROP * rows[id(probe)].error]
        if len(stay) == 1 or number == len(race.rounds) - 1 or race.out_of_time():
            break
        gone = [probe for probe in probes if probe not in stay]
        out = [*(rows[id(probe)] for probe in gone), *out]
        for probe in gone:
            del probe.look.features[probe.depth]
        looks = [look for look in looks if look.features]
    found = [*rows.values(), *out]
    chosen, reason = choose(found, context.recipe.run.prefer, context.seconds_left, sum(counts.values()))
    return Ranking(tuple(found), chosen, reason, opinions(found), left_out)


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """(N,) positions such that any first ones hold each class by its share, but at least FOLDS of it where it
    has them.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        own = np.flatnonzero(labels[shuffled] == label)
        place[own] = np.where(np.arange(len(own)) < FOLDS, -1.0, (np.arange(len(own)) + 0.5) / len(own))
    return shuffled[np.argsort(place, kind="stable")]


def round_sizes(examples: int, classes: int) -> list[int]:
    """How many examples each round looks at."""
    found: list[int] = []
    for size in (max(size, FOLDS * classes) for size in ROUNDS):
        if size * WORTH >= examples:
            return [*found, examples]
        if size not in found:
            found.append(size)
    return found


def choose(rows: Sequence[Row], prefer: str, seconds_left: float, images: int) -> tuple[Row, str]:
    """The cheapest of those as good as the best of the last round whose whole run fits the time left; and
    why.

    Where none does: the best that fits and is not clearly worse; else the quickest of the good ones, whose
    fine-tuning will be cut short, as long as its features of all `images` leave time for it; else the best
    that fits at all.
    """
    last = [row for row in rows if row.examples == rows[0].examples]
    best, ties = last[0], TIES[prefer]
    good = [row for row in last if row.excess <= ties * row.error and (row.clear or prefer == "speed")]
    fits = [row for row in last if row.run_seconds <= seconds_left]
    fair = [row for row in fits if row.excess <= DROP * row.error]
    short = [row for row in good if 1.2 * images / row.images_per_second <= seconds_left / 2]
    if cheap := [row for row in good if row in fits]:
        chosen = max(cheap, key=lambda row: row.images_per_second)
        why = f"lowest out-of-fold log loss ({chosen.log_loss:.3f}) of {len(rows)} candidates"
        if chosen is not best:
            within = f"within {'one standard error' if ties == 1 else 'two standard errors'} of the best"
            why = (
                f"cheapest of {len(cheap)} {within} of {len(rows)} candidates (out-of-fold log loss {chosen.log_loss:.3f}, "
                f"{best.log_loss:.3f} of {best.name})"
            )
    elif fair or (not short and fits):
        chosen = (fair or fits)[0]
        why = f"lowest out-of-fold log loss ({chosen.log_loss:.3f}) of those whose whole run fits the budget"
    elif short:
        chosen = min(short, key=lambda row: row.run_seconds)
        why = (
            f"quickest of the best (out-of-fold log loss {chosen.log_loss:.3f}); its fine-tuning will be cut short, as a "
            f"whole run would take about {chosen.run_seconds:.0f} s, more than the budget leaves"
        )
    else:
        chosen = min(rows, key=lambda row: row.run_seconds)
        why = f"no candidate's whole run fits the budget; this one comes nearest, with about {chosen.run_seconds:.0f} s"
    if any(not row.clear and row.log_loss < best.log_loss for row in last) and chosen in good:
        why += "; stages cut from a network count where that is clearly better, as all of them gain more from fine-tuning"
    if chosen is not best and chosen in fits and best not in fits:
        why += f"; {best.name} ({best.log_loss:.3f}) would take about {best.run_seconds:.0f} s, more than the budget leaves"
    return chosen, f"{why}, on {chosen.examples} examples"


def opinions(rows: Sequence[Row]) -> dict[str, str]:
    """What other rules would take: size and ImageNet accuracy know no data; LogME and neighbours judge the
    last round.
    """
    last = [row for row in rows if row.examples == rows[0].examples]
    found = {"most parameters": max(rows, key=lambda row: (row.parameters, row.size)).name}
    known = [row for row in rows if row.imagenet_top1 is not None]
    if len({row.reference for row in known}) > 1:
        found["highest ImageNet accuracy"] = max(
            known, key=lambda row: (row.imagenet_top1 or 0.0, row.depth, row.size)
        ).name
    found["LogME"] = max(last, key=lambda row: row.logme).name
    found["nearest neighbours"] = max(last, key=lambda row: row.knn.value).name
    return found


def _share(right: np.ndarray, blocks: np.ndarray) -> Estimate:
    share, count = float(right.mean()), effective_count(right, blocks)
    return Estimate(share, *wilson(share * count, count), len(right), "Wilson, out of fold")


class _Race:
    """What all candidates share. A backbone is loaded anew for each round, so that one at a time is in
    memory.
    """

    def __init__(
        self, part: Part, short_sides: np.ndarray, counts: Mapping[str, int], classes: int, context: Context
    ) -> None:
        self.part, self.short_sides, self.counts, self.classes, self.context = (
            part,
            short_sides,
            counts,
            classes,
            context,
        )
        self.recipe = context.recipe
        self.order = stratified_order(part.labels, self.recipe.run.seed)
        self.rounds = round_sizes(len(part), classes)
        self.deadline = time.monotonic() + SHARE * context.seconds_left

    def out_of_time(self) -> bool:
        """True when a share of the budget is used up."""
        return time.monotonic() > self.deadline

    def enter(self, references: Sequence[str], named: bool) -> tuple[list[_Look], dict[str, str]]:
        """The first round's passes, and what was left out."""
        looks: list[_Look] = []
        left_out: dict[str, str] = {}
        for number, reference in enumerate(references, start=1):
            if looks and self.out_of_time():
                left_out[reference] = "the time allowed for the comparison was up"
                continue
            found, wrong = [], ""
            try:
                obtained = obtain_weights(reference, self.recipe.run.offline)
                for size in self.sizes(obtained):
                    try:
                        found.append(self.look(reference, obtained, size))
                    except (
                        RuntimeError,
                        ValueError,
                        AssertionError,
                    ) as error:  # a network may not take every size
                        wrong = f"it cannot be run at {size}: {(str(error).splitlines() or [type(error).__name__])[0]}"
                if not found:
                    raise BackboneError(f"{reference}: {wrong}")
            except UsageError as error:
                if named:
                    raise
                left_out[reference] = str(error).splitlines()[0]
                continue
            for look in found:
                if look.features:
                    label = f"{reference} at {look.size} ({number} of {len(references)})"
                    self.run(look, self.backbone(obtained, look.size), self.rounds[0], label)
                    looks.append(look)
            if not any(look.features for look in found):
                left_out[reference] = (
                    f"all its depths have more than {self.recipe.obtain.max_parameters:,} parameters"
                )
        return looks, left_out

    def sizes(self, obtained: Obtained) -> list[int]:
        """The input size of the rule of step 2 and the next useful one below; or the one the user named."""
        fixed, native = bool(obtained.config.get("fixed_input_size")), obtained.provenance.input_size
        if self.recipe.base.size != "auto":
            if fixed and self.recipe.base.size != native:
                raise BackboneError(f"{obtained.provenance.id} takes inputs of {native} pixels only.")
            return [int(self.recipe.base.size)]
        cpu = self.context.device.type == "cpu"
        size, _ = input_size(native, fixed, self.short_sides, len(self.short_sides), cpu)
        smaller = max(LEAST, 32 * round(SMALLER * size / 32))
        return [size] if fixed or smaller >= size else [size, smaller]

    def backbone(self, obtained: Obtained, size: int) -> Backbone:
        """As step 2 would make it."""
        return make_base(obtained, size, is_upscaled(self.short_sides, size), self.context.levels)

    def look(self, reference: str, obtained: Obtained, size: int) -> _Look:
        """What a backbone offers and costs at one size; its engine by a trial."""
        backbone, run, device = self.backbone(obtained, size), self.recipe.run, self.context.device
        stages = len(backbone.stages)
        depths = self.cuts(backbone)
        cost = costs(backbone, depths, device)
        made = makers(backbone, device, run.feature_batch, depths, cache=self.context.store.folder)
        engine = str(run.engine) if run.engine in made else REFERENCE
        trials: list[Trial] = []
        if run.engine == "auto":
            some = [self.part.paths[row] for row in self.order[:SAMPLE]]
            key = trial_key(backbone, device, run.feature_batch, depths)
            engine, trials = pick_engine(
                made,
                lambda: np.stack([backbone.preprocess.host(path) for path in some]),
                len(self.part),
                key,
                self.context.store.folder,
            )
        speed = next((trial.speed for trial in trials if trial.engine == engine), None)
        trains = epochs_of(self.recipe, self.counts, size) > 0
        step = step_seconds(backbone, self.counts, self.classes, self.recipe) if trains else 0.0
        most, wanted = self.recipe.obtain.max_parameters, self.recipe.base.depth
        look = _Look(
            reference,
            size,
            stages,
            depths,
            engine,
            1 / speed if speed else cost[stages].seconds,
            step,
            cost,
            obtained.provenance.pretrained_on,
            obtained.provenance.licence,
        )
        for depth in (*depths, stages):
            if (most is None or cost[depth].parameters <= most) and wanted in ("auto", depth):
                look.features[depth] = np.zeros((0, 0), dtype=np.float32)
        return look

    def cuts(self, backbone: Backbone) -> tuple[int, ...]:
        """Depths, a few of the later half, at which this backbone can end; or the one the user named."""
        stages, recipe = len(backbone.stages), self.recipe
        if recipe.base.depth != "auto":
            if int(recipe.base.depth) > stages:
                raise UsageError(
                    f"a depth of {recipe.base.depth} was asked for; the backbone has {stages} stages"
                )
            wanted = [int(recipe.base.depth)] if recipe.base.depth != stages else []
        else:
            half = -(-stages // 2)
            wanted = sorted(
                {int(depth) for depth in np.linspace(half, stages - 1, min(DEPTHS, stages - half))}
            )
        found = []
        for depth in wanted:
            try:
                usual_plan(truncated(backbone, depth), recipe)
            except (ValueError, UsageError) as error:
                if recipe.base.depth != "auto":
                    raise UsageError(str(error)) from None
                continue
            found.append(depth)
        return tuple(found)

    def extend(self, looks: Sequence[_Look], examples: int) -> None:
        """Passes over the examples that are new in this round."""
        references = list(dict.fromkeys(look.reference for look in looks))
        for number, reference in enumerate(references, start=1):
            obtained = obtain_weights(reference, self.recipe.run.offline)
            for look in (look for look in looks if look.reference == reference):
                label = f"{reference} at {look.size} ({number} of {len(references)}), {examples} examples"
                self.run(look, self.backbone(obtained, look.size), examples, label)

    def run(self, look: _Look, backbone: Backbone, examples: int, label: str) -> None:
        """Features of all depths that are in the race, from one pass, by the store."""
        new, run = self.order[look.seen : examples], self.recipe.run
        made = makers(
            backbone, self.context.device, run.feature_batch, look.depths, cache=self.context.store.folder
        )
        engine = made[look.engine]()
        columns = ("pooled", *(f"depth {depth}" for depth in look.depths))
        pooled, *shallow = self.context.store.features(
            [self.part.ids[row] for row in new],
            [self.part.paths[row] for row in new],
            feature_key(engine),
            backbone.preprocess,
            engine,
            self.context.events.tick,
            label,
            columns,
        )
        for depth, values in zip((look.stages, *look.depths), (pooled, *shallow), strict=True):
            if depth in look.features:
                look.features[depth] = np.concatenate([look.features[depth], values]) if look.seen else values
        look.seen = examples

    def probe(self, looks: Sequence[_Look], examples: int) -> list[_Probe]:
        """Every candidate's out-of-fold results on the first examples of the order."""
        labels, weights = self.part.labels[self.order[:examples]], self.part.weights[self.order[:examples]]
        weights, seed = class_weighted(labels, weights, False, self.classes), self.recipe.run.seed
        blocks = self.part.blocks[self.order[:examples]]
        pairs = [(look, depth) for look in looks for depth in sorted(look.features)]
        found = []
        for number, (look, depth) in enumerate(pairs, start=1):
            values = look.features[depth]
            path = fit_path(values, labels, weights, self.classes, FOLDS, seed, blocks=blocks)
            near = knn_out_of_fold(values, labels, folds_of(labels, FOLDS, seed, blocks))
            found.append(
                _Probe(
                    look,
                    depth,
                    log_losses(labels[path.rows], path.logits),
                    blocks[path.rows],
                    _share(path.logits.argmax(axis=1) == labels[path.rows], blocks[path.rows]),
                    _share(near == labels, blocks),
                    logme(values, labels),
                )
            )
            self.context.events.tick(label=f"probes on {examples} examples", done=number, total=len(pairs))
        return found

    def standings(self, probes: Sequence[_Probe]) -> dict[int, tuple[float, bool]]:
        """Each probe's standing, by its id. A cut is like any other where nothing will be fine-tuned or the
        whole is out.
        """
        frozen = self.recipe.freeze.strategy == "head" or self.recipe.finetune.epochs == 0
        whole = (
            {} if frozen else {id(probe.look): probe for probe in probes if probe.depth == probe.look.stages}
        )
        cuts = {
            id(probe): whole.get(id(probe.look)) if probe.depth < probe.look.stages else None
            for probe in probes
        }
        return {id(probe): probe.standing(cuts[id(probe)]) for probe in probes}

    def row(self, probe: _Probe, best: _Probe, examples: int, clear: bool) -> Row:
        """A candidate beside the best of its round."""
        look, depth = probe.look, probe.depth
        excess, share, entry = probe.losses - best.losses, look.share(depth), entry_of(look.reference)
        return Row(
            look.reference,
            look.size,
            depth,
            look.stages,
            examples,
            float(probe.losses.mean()),
            float(excess.mean()),
            standard_error(excess, probe.blocks),
            probe.accuracy,
            probe.knn,
            probe.logme,
            look.cost[depth].parameters,
            look.cost[depth].gmacs,
            1 / (look.forward * share),
            run_seconds(self.recipe, self.counts, look.size, look.forward * share, look.step * share),
            entry.imagenet_top1 if entry else None,
            look.pretrained_on,
            look.licence,
            clear,
        )
