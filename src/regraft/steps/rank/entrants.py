"""Who takes part in a ranking: backbones at input sizes and depths, their engines, their cost and their
frozen features of the examples of each round.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from regraft.backbones import Backbone, Cost, Obtained, costs, make_base, obtain_weights, truncated
from regraft.data.part import Part
from regraft.errors import BackboneError, UsageError
from regraft.inference import REFERENCE, Trial, feature_key, makers, pick_engine, trial_key
from regraft.modalities import Preprocess
from regraft.steps.context import Context
from regraft.steps.estimate import epochs_of, step_seconds, usual_plan
from regraft.steps.form import cuts_of, smaller_than
from regraft.steps.join import as_compared
from regraft.steps.rank.probing import FOLDS
from regraft.tasks import Task

ROUNDS = (300, 1_000, 3_000)  # examples
WORTH = 1.5  # times the examples of the round before: fewer new ones are not worth a round
RANKING_SHARE = 0.2  # of the time left, which the comparison may take
TRIAL_ITEMS = 32  # images of the engines' trial


@dataclass
class Entrant:
    """A backbone at one input size. It and its cuts at `depths` are candidates that share one pass.

    `forward` and `step` are the seconds that an image takes in a forward pass and in a training step of the
    whole network. `features` holds, by depth, (`seen`, width) float32 features of the candidates that are
    still in the race; the whole network's depth is `stages`.
    """

    reference: str
    size: int
    stages: int
    depths: tuple[int, ...]  # every cut on offer: one pass and one converted network serve all rounds
    engine: str
    forward: float
    step: float
    cost: dict[int, Cost]  # by depth
    pretrained_on: str
    licence: str
    seen: int = 0
    features: dict[int, np.ndarray] = field(default_factory=dict)
    joined: bool = False  # the features are those of all depths

    def share(self, depth: int) -> float:
        """The share of the whole network's time that its first `depth` stages take."""
        return self.cost[depth].seconds / self.cost[self.stages].seconds


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """(N,) positions, any first of which hold each class by its share, but at least FOLDS of it where it
    has them.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        own = np.flatnonzero(labels[shuffled] == label)
        place[own] = np.where(np.arange(len(own)) < FOLDS, -1.0, (np.arange(len(own)) + 0.5) / len(own))
    return shuffled[np.argsort(place, kind="stable")]


def round_sizes(examples: int, classes: int) -> list[int]:
    """How many of the examples each round looks at; the last looks at all that it may."""
    sizes: list[int] = []
    for size in (max(size, FOLDS * classes) for size in ROUNDS):
        if size * WORTH >= examples:
            return [*sizes, examples]
        if size not in sizes:
            sizes.append(size)
    return sizes


class Entrants:
    """Makes entrants and computes their features. A backbone is loaded anew for each round, so that only
    one at a time is in memory.
    """

    def __init__(
        self, part: Part, facts: pa.Table, counts: Mapping[str, int], task: Task, context: Context
    ) -> None:
        self.part, self.facts, self.counts = part, facts, counts
        self.task, self.context, self.recipe = task, context, context.recipe
        self.order = stratified_order(task.strata(part.labels), self.recipe.run.seed)
        self.rounds = round_sizes(len(part), task.outputs)
        self.deadline = time.monotonic() + RANKING_SHARE * context.seconds_left

    def out_of_time(self) -> bool:
        """True once the ranking's share of the budget is used up."""
        return time.monotonic() > self.deadline

    def enter(self, references: Sequence[str], named: bool) -> tuple[list[Entrant], dict[str, str]]:
        """The entrants, with their features for the first round; and the references left out, with the
        reason.
        """
        racing: list[Entrant] = []
        left_out: dict[str, str] = {}
        for number, reference in enumerate(references, start=1):
            if racing and self.out_of_time():
                left_out[reference] = "the time allowed for the comparison was up"
                continue
            try:
                obtained = self._obtained(reference)
                entrants = self._at_all_sizes(reference, obtained)
            except UsageError as error:
                if named:
                    raise
                left_out[reference] = str(error).splitlines()[0]
                continue
            allowed = [entrant for entrant in entrants if entrant.features]
            for entrant in allowed:
                label = f"{reference} at {entrant.size} ({number} of {len(references)})"
                self._compute(entrant, self._backbone(obtained, entrant.size), self.rounds[0], label)
            racing += allowed
            if not allowed:
                most = self.recipe.obtain.max_parameters
                left_out[reference] = f"all its depths have more than {most:,} parameters"
        return racing, left_out

    def extend(self, racing: Sequence[Entrant], examples: int) -> None:
        """Compute the features of the examples that are new in a round of so many `examples`."""
        references = list(dict.fromkeys(entrant.reference for entrant in racing))
        for number, reference in enumerate(references, start=1):
            obtained = self._obtained(reference)
            for entrant in (entered for entered in racing if entered.reference == reference):
                label = f"{reference} at {entrant.size} ({number} of {len(references)}), {examples} examples"
                self._compute(entrant, self._backbone(obtained, entrant.size), examples, label)

    def _obtained(self, reference: str) -> Obtained:
        return obtain_weights(reference, self.recipe.run.offline, self.context.modality.name)

    def _at_all_sizes(self, reference: str, obtained: Obtained) -> list[Entrant]:
        """The entrants of one backbone. Raises BackboneError where it can be run at none of its sizes."""
        entrants, wrong = [], ""
        for size in self._sizes(obtained):
            try:
                entrants.append(self._entrant(reference, obtained, size))
            except (RuntimeError, ValueError, AssertionError) as error:  # a network may not take every size
                first = (str(error).splitlines() or [type(error).__name__])[0]
                wrong = f"it cannot be run at {size}: {first}"
        if not entrants:
            raise BackboneError(f"{reference}: {wrong}")
        return entrants

    def _sizes(self, obtained: Obtained) -> list[int]:
        """The input size by the rule of step 2 and the next useful one below it, or the one asked for."""
        fixed, native = bool(obtained.config.get("fixed_input_size")), obtained.provenance.input_size
        if self.recipe.base.size != "auto":
            if fixed and self.recipe.base.size != native:
                raise BackboneError(f"{obtained.provenance.id} takes inputs of {native} pixels only.")
            return [int(self.recipe.base.size)]
        size = self._preprocess(obtained, None).size
        smaller = smaller_than(size, fixed, self.context.modality.resizes)
        return [size] if smaller is None else [size, smaller]

    def _backbone(self, obtained: Obtained, size: int) -> Backbone:
        """The backbone as step 2 would make it."""
        return make_base(obtained, self._preprocess(obtained, size))

    def _preprocess(self, obtained: Obtained, size: int | None) -> Preprocess:
        """The preprocessing of step 2, at this size or at that of its rule."""
        cpu, native = self.context.device.type == "cpu", obtained.provenance.input_size
        return self.context.modality.preprocess(obtained.config, native, self.facts, size, cpu)[0]

    def _entrant(self, reference: str, obtained: Obtained, size: int) -> Entrant:
        """One backbone at one size: which depths it offers, what each costs, and its engine by a trial."""
        backbone = self._backbone(obtained, size)
        compared = as_compared(backbone, self.context)
        stages, depths = len(backbone.stages), () if compared.join else self._cuts(backbone)
        device = self.context.device
        cost = costs(backbone, depths, device)
        engine, speed = self._engine(compared, depths)
        trains = epochs_of(self.recipe, self.counts, size) > 0
        entrant = Entrant(
            reference=reference,
            size=size,
            stages=stages,
            depths=depths,
            engine=engine,
            forward=1 / speed if speed else cost[stages].seconds,
            step=step_seconds(backbone, self.counts, self.task.outputs, self.recipe, device)
            if trains
            else 0.0,
            cost=cost,
            pretrained_on=obtained.provenance.pretrained_on,
            licence=obtained.provenance.licence,
            joined=bool(compared.join),
        )
        most, wanted = self.recipe.obtain.max_parameters, self.recipe.base.depth
        for depth in (*depths, stages):
            if (most is None or cost[depth].parameters <= most) and wanted in ("auto", depth):
                entrant.features[depth] = np.zeros((0, 0), dtype=np.float32)
        return entrant

    def _engine(self, backbone: Backbone, depths: tuple[int, ...]) -> tuple[str, float | None]:
        """The engine that runs a backbone, and its images a second where a trial measured them."""
        run, device, folder = self.recipe.run, self.context.device, self.context.store.folder
        made = makers(backbone, device, self.context.feature_batch, depths, cache=folder)
        if run.engine != "auto":
            return (str(run.engine) if run.engine in made else REFERENCE), None
        sample = [self.part.items[row] for row in self.order[:TRIAL_ITEMS]]
        key = trial_key(backbone, device, self.context.feature_batch, depths)
        trials: list[Trial]
        engine, trials = pick_engine(
            made,
            lambda: backbone.preprocess.collate([backbone.preprocess.host(path) for path in sample]),
            len(self.part),
            key,
            folder,
        )
        return engine, next((trial.speed for trial in trials if trial.engine == engine), None)

    def _cuts(self, backbone: Backbone) -> tuple[int, ...]:
        """Depths, a few of the later half, at which this backbone can end; or the one the user named."""
        stages, asked = len(backbone.stages), self.recipe.base.depth
        if asked != "auto":
            if int(asked) > stages:
                raise UsageError(f"a depth of {asked} was asked for; the backbone has {stages} stages")
            wanted = [int(asked)] if asked != stages else []
        else:
            wanted = list(cuts_of(stages))
        depths = []
        for depth in wanted:
            try:
                usual_plan(truncated(backbone, depth), self.recipe)
            except (ValueError, UsageError) as error:
                if asked != "auto":
                    raise UsageError(str(error)) from None
                continue
            depths.append(depth)
        return tuple(depths)

    def _compute(self, entrant: Entrant, backbone: Backbone, examples: int, label: str) -> None:
        """Features of the first `examples` of the order at all depths in the race, from one pass, by the
        store.
        """
        new, store = self.order[entrant.seen : examples], self.context.store
        backbone = as_compared(backbone, self.context) if entrant.joined else backbone
        made = makers(
            backbone, self.context.device, self.context.feature_batch, entrant.depths, cache=store.folder
        )
        engine = made[entrant.engine]()
        pooled, *shallow = store.features(
            [self.part.ids[row] for row in new],
            [self.part.items[row] for row in new],
            feature_key(engine),
            backbone.preprocess,
            engine,
            self.context.events.tick,
            label,
            ("pooled", *(f"depth {depth}" for depth in entrant.depths)),
        )
        for depth, values in zip((entrant.stages, *entrant.depths), (pooled, *shallow), strict=True):
            if depth in entrant.features:
                known = [entrant.features[depth]] if entrant.seen else []
                entrant.features[depth] = np.concatenate([*known, values])
        entrant.seen = examples
