"""What a model has seen: the examples it learnt from or was chosen by, those of every run before it
included.

A model folder holds them as `seen.parquet`: hashes and facts only, no names and no contents. So the lineage
goes with the weights wherever they are copied, and needs no run that stands beside them; a run's folder is
only looked at for the files themselves, where pixels have to be compared.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from safetensors import SafetensorError, safe_open

from regraft.artifacts import openable, read_parquet, write_parquet
from regraft.data.alike import Known, Met, meet
from regraft.data.examples import Examples, facts_in
from regraft.data.kind import Kind
from regraft.data.known import KnownFile
from regraft.data.part import Part
from regraft.data.splits import ORDER
from regraft.errors import UsageError

FILE = "seen.parquet"
KEY = "regraft"  # of the metadata of a weights file that regraft wrote
COMMON = pa.schema(  # the columns of every seen.parquet; behind them come those of the modality's facts
    [("id", pa.string()), ("identity", pa.string()), ("split", pa.string()), ("run", pa.int32())]
)


@dataclass(frozen=True)
class Seen:
    """Train and val of a run and of all runs before it. `table` has the columns COMMON, where `run` is a
    position in `runs`, and those of the modality's facts.

    `runs` are the runs' folders, the model's own first; `unknown` says of which ancestors it is not known
    what they have seen.
    """

    table: pa.Table
    runs: tuple[str, ...]
    unknown: tuple[str, ...] = ()

    @classmethod
    def of(cls, examples: Examples, run: Path, before: Seen | None = None) -> Seen:
        """What a model of the run in this folder will have seen, its backbone's past included. Of test
        nothing.
        """
        own, facts = examples.table.select(COMMON.names[:-1]), examples.facts()
        own = own.append_column(COMMON.field("run"), pa.array([0] * own.num_rows, pa.int32()))
        for name in facts.column_names:
            own = own.append_column(facts.schema.field(name), facts[name])
        if before is None:
            return cls(_compact(own), (str(run.resolve()),))
        past = before.table.filter(
            pc.invert(pc.is_in(before.table["id"], value_set=own["id"].combine_chunks()))
        )
        place = past.schema.get_field_index("run")
        past = past.set_column(place, "run", pc.cast(pc.add(past["run"], 1), pa.int32()))
        return cls(
            pa.concat_tables([_compact(own), past], promote_options="default"),
            (str(run.resolve()), *before.runs),
            before.unknown,
        )

    def ancestors(self) -> Seen:
        """What the ancestors of the run have seen, without the run itself."""
        past = self.table.filter(pc.greater(self.table["run"], 0))
        place = past.schema.get_field_index("run")
        past = past.set_column(place, "run", pc.cast(pc.subtract(past["run"], 1), pa.int32()))
        return Seen(past, self.runs[1:], self.unknown)

    def save(self, path: Path) -> None:
        """Write `seen.parquet`."""
        about = {KEY: json.dumps({"runs": self.runs, "unknown": self.unknown})}
        write_parquet(path, self.table.replace_schema_metadata(about), compression="zstd")

    @classmethod
    def load(cls, path: Path) -> Seen:
        """Read `seen.parquet` back. Raises UsageError where it is none."""
        try:
            table = read_parquet(path)
            about = json.loads((table.schema.metadata or {})[KEY.encode()])
            seen = cls(table.replace_schema_metadata(None), tuple(about["runs"]), tuple(about["unknown"]))
        except (pa.ArrowException, OSError, LookupError, ValueError) as error:
            raise UsageError(f"{path} cannot be read: {(str(error).splitlines() or [''])[0]}.") from None
        if missing := [name for name in COMMON.names if name not in table.column_names]:
            raise UsageError(
                f"{path} was written by an earlier regraft (no column {missing[0]!r}): "
                "use the model with that one, or fit it anew."
            )
        return seen

    def known(self, home: Path | None = None) -> Known:
        """The rows to compare with; files as far as the runs' folders are still there. `home` is where the
        own run is now.
        """
        ids, runs = self.table["id"].to_pylist(), self.table["run"].to_pylist()
        files: list[KnownFile | None] = [None] * len(ids)
        for number, run in enumerate(self.runs):
            places = [home, Path(run)] if number == 0 and home is not None else [Path(run)]
            by_identity = next((some for place in places if (some := _files(place))), {})
            for row, (identity, own) in enumerate(zip(ids, runs, strict=True)):
                if own == number:
                    files[row] = by_identity.get(identity)
        return _known(self.table, files)

    def meet(self, new: Part, kind: Kind, tick: Callable[..., None], home: Path | None = None) -> Met:
        """Which of some items the model has seen, by content and by identity."""
        return meet(new, self.known(home), kind, tick)

    def names(self, rows: Iterable[int]) -> list[str]:
        """The runs that have seen some rows of the table."""
        number = self.table["run"].to_numpy()
        return [self.runs[run] for run in sorted({int(number[row]) for row in rows})]


def seen_by(reference: str) -> Seen | None:
    """What the model that a reference names has seen; None for weights that come from no run of regraft, or
    from nowhere.
    """
    kind, _, name = reference.partition(":")
    if kind not in ("run", "path") or not name:
        return None
    place = Path(os.path.expanduser(name))
    if kind == "path" and not place.exists() and "@" in place.name:
        place = place.with_name(place.name.rpartition("@")[0])
    folder = (
        place.parent
        if place.is_file()
        else place / "model"
        if kind == "run" and (place / "model").is_dir()
        else place
    )
    if (folder / FILE).is_file():
        return Seen.load(folder / FILE)
    if not (folder / "regraft.json").is_file() and not _of_ours(
        place if place.is_file() else folder / "model.safetensors"
    ):
        return None
    return Seen(
        COMMON.empty_table(),
        (),
        (f"{reference}: what it was made with is not known, as there is no {FILE} beside its weights",),
    )


def of_run(run: Path, moved: str | Path | None = None) -> Known:
    """All examples of a run, test included, with their splits. `moved` says where its data are now. Raises
    UsageError.
    """
    path = run / "examples.parquet"
    if not path.is_file():
        raise UsageError(f"{run}: there is no examples.parquet in it. Give the folder of an earlier run.")
    try:
        table, examples = read_parquet(path).replace_schema_metadata(None), Examples.load(path)
    except (pa.ArrowException, OSError, LookupError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {(str(error).splitlines() or [''])[0]}.") from None
    files = {
        file.id: file for file in (examples if moved is None else examples.moved_to(moved)).files().values()
    }
    return _known(table, [files.get(identity) for identity in table["id"].to_pylist()])


def assigned(place: Path) -> Known:
    """What `--splits` keeps: the examples of a run, or what the model in a model folder has seen. Raises
    UsageError.
    """
    if (place / FILE).is_file() and not (place / "examples.parquet").is_file():
        return Seen.load(place / FILE).known()
    try:
        known = of_run(place)
    except UsageError as error:
        raise UsageError(f"--splits {error}") from None
    # Of copies, test counts first
    return known.some(sorted(range(len(known)), key=lambda row: ORDER[known.splits[row]]))


def in_sample(about: dict[str, Any]) -> str:
    """Why predictions of train and val prove nothing, from `data` of run.json: the backbone saw them. ""
    where it did not.
    """
    past = about.get("seen_by_ancestors") or {}
    if past.get("train") or past.get("val"):
        return (
            f"{past['train']:,} of train and {past['val']:,} of val were seen by a run that the "
            "backbone comes from, so predictions of them are no evidence and promise nothing"
        )
    return "what the backbone has seen is not known, so nothing is promised" if past.get("unknown") else ""


def _compact(table: pa.Table) -> pa.Table:
    """`identity` only where it is not the id."""
    place = table.schema.get_field_index("identity")
    other = pc.fill_null(pc.not_equal(table["identity"], table["id"]), False)
    return table.set_column(
        place, COMMON.field("identity"), pc.if_else(other, table["identity"], pa.scalar(None, pa.string()))
    )


def _known(table: pa.Table, files: Sequence[KnownFile | None]) -> Known:
    ids, splits = (tuple(table[name].to_pylist()) for name in ("id", "split"))
    shown = zip(table["identity"].to_pylist(), ids, strict=True)
    facts = facts_in(table.drop_columns([name for name in ("run",) if name in table.column_names]))
    return Known(ids, tuple(identity or own for identity, own in shown), splits, facts, tuple(files))


def _files(run: Path) -> dict[str, KnownFile]:
    try:
        return {file.id: file for file in Examples.load(run / "examples.parquet").files().values()}
    except (pa.ArrowException, OSError, LookupError, ValueError):
        return {}


def _of_ours(weights: Path) -> bool:
    """Whether a weights file was written by regraft; only then is it said that its past is not known."""
    try:
        with openable(weights) as file, safe_open(file, framework="numpy") as handle:
            return KEY in (handle.metadata() or {})
    except (SafetensorError, OSError):
        return False
