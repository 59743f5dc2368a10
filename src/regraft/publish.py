"""A finished model sent to a model hub: what is sent, what stays here, and the sending.

Sent are the weights, what it takes to load them, and the model card. Examples, what is known of them
(hashes, features), predictions and paths of this machine are never sent.
"""

from __future__ import annotations

import contextlib
import json
import re
import struct
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from regraft.artifacts import RunFolder, read_json, read_parquet, to_json, utf8
from regraft.errors import RegraftError, UsageError
from regraft.ready import BESIDE
from regraft.report import model_card
from regraft.runtime import cache_folder, quiet_libraries

WEIGHTS = ("model.safetensors", "head.safetensors", BESIDE)
ELSEWHERE = "(a place on the machine that made it)"
_ABSOLUTE = re.compile(r"(?<![\w.:/\\])(?:~?(?:/[^\s/\"'`|;,()<>]+){2,}|[A-Za-z]:\\[^\s\"'`|;,()<>]+)/?")

Json = dict[str, Any]


@dataclass(frozen=True)
class Parcel:
    """What is sent of a run: contents by their names in the repository, files of weights by their paths.
    `left_here` are the files of the model folder that are not sent, `licence` is that of the backbone.
    """

    name: str
    contents: Mapping[str, bytes | Path]
    left_here: tuple[str, ...]
    licence: str

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of every file."""
        return {
            name: item.stat().st_size if isinstance(item, Path) else len(item)
            for name, item in self.contents.items()
        }


@dataclass(frozen=True)
class Place:
    """A repository of a hub: `repo` is OWNER/NAME; `public` is None where it is not there yet."""

    repo: str
    address: str
    public: bool | None


def pack(run: str | Path) -> Parcel:
    """What would be sent of a finished run. Raises UsageError for what is no run with a model, RegraftError
    where something to be sent names a place of this machine.
    """
    folder = RunFolder(Path(run))
    if not (folder.path / "run.json").is_file():
        raise UsageError(f"{run} is no run (no run.json in it). Give the folder of a finished run.")
    if not (folder.model / "regraft.json").is_file():
        raise UsageError(f"{run} holds no finished model. Go on with it: regraft fit --resume --out {run}")
    state = folder.read_state()
    about, config = (read_json(folder.model / name) for name in ("regraft.json", "config.json"))
    private = [*_places(folder.path, state), *_places_of(about["provenance"])]
    about = {**about, "provenance": _told(about["provenance"])}
    metrics = read_json(folder.metrics) if folder.metrics.is_file() else {}
    contents: dict[str, bytes | Path] = {
        "README.md": utf8(model_card(_shown(state, _names(folder)), metrics)),
        "config.json": utf8(to_json(_without(config, private)) + "\n"),
        "regraft.json": utf8(to_json(about) + "\n"),
    }
    for name in (*WEIGHTS, *about["preprocess"].get("files", ())):  # such as a tokenizer
        if (folder.model / name).is_file():
            contents[name] = folder.model / name
    _check(contents, private)
    left = sorted(
        path.name for path in folder.model.iterdir() if path.is_file() and path.name not in contents
    )
    return Parcel(about["name"], contents, tuple(left), str(about["provenance"].get("licence") or "unknown"))


def _names(folder: RunFolder) -> list[str]:
    """What the run's examples are called, the longest first: no text that is sent names one."""
    if not folder.examples.is_file():
        return []
    names = read_parquet(folder.examples, columns=["source"]).column("source").to_pylist()
    return sorted({name for name in names if name and len(name) > 3}, key=len, reverse=True)


def _places(run: Path, state: Json) -> list[str]:
    """Folders of this machine, absolute, that nothing sent may name."""
    places = [run.absolute(), run.resolve(), Path.cwd(), Path(tempfile.gettempdir()), cache_folder()]
    with contextlib.suppress(RuntimeError):
        places.append(Path.home())
    if source := (state.get("data") or {}).get("source"):
        places.append(Path(str(source)))
    return [
        str(place) for place in places if place is not None and place.is_absolute() and len(place.parts) > 1
    ]


def _places_of(provenance: Json) -> list[str]:
    kind, _, rest = str(provenance.get("id")).partition(":")
    named = [rest, str(provenance.get("source"))] if kind in ("path", "run") else []
    return [place for place in named if PurePath(place).is_absolute()]


def _told(provenance: Json) -> Json:
    """Where a backbone came from, without the folders it lies in."""
    told = dict(provenance)
    kind, _, rest = str(told.get("id") or "").partition(":")
    if kind in ("path", "run"):
        told["id"] = f"{kind}:{_last(rest)}"
        told["source"] = _last(str(told.get("source") or rest))
    for key in ("pretrained_on", "source"):
        if isinstance(told.get(key), str):
            told[key] = re.sub(
                r"\b(path|run):([^,]+)", lambda m: f"{m[1]}:{_last(m[2])}", _ABSOLUTE.sub(_base, told[key])
            )
    return told


def _last(path: str) -> str:
    return PureWindowsPath(path).name or path  # it takes both kinds of slashes


def _base(match: re.Match[str]) -> str:
    return _last(match[0])


def _shown(state: Json, names: list[str]) -> Json:
    """run.json as the card of the hub may know it: no example is named, and no place."""

    def clean(text: str) -> str:
        for name in names:
            if name in text:
                text = text.replace(name, "(an example)")
        return _ABSOLUTE.sub(ELSEWHERE, text)

    data = dict(state.get("data") or {})
    data["findings"] = [
        {**item, "message": clean(str(item["message"]))} for item in data.get("findings") or []
    ]
    shown = {**state, "data": data, "provenance": _told(state.get("provenance") or {})}
    shown["missing"] = {what: clean(str(why)) for what, why in (state.get("missing") or {}).items()}
    for key in ("chosen", "chosen_why"):
        if shown.get(key):
            shown[key] = clean(str(shown[key]))
    return shown


def _without(value: Any, places: list[str]) -> Any:
    """A JSON value whose texts do not name the places."""
    if isinstance(value, dict):
        return {key: _without(item, places) for key, item in value.items()}
    if isinstance(value, list):
        return [_without(item, places) for item in value]
    if isinstance(value, str) and any(place in value for place in places):
        return _last(value)
    return value


def _check(contents: Mapping[str, bytes | Path], places: list[str]) -> None:
    """Raise RegraftError if anything that would be sent names a place of this machine after all."""
    for name, item in contents.items():
        if isinstance(item, bytes):
            text = item.decode("utf-8", "replace")
        elif name.endswith(".safetensors"):
            text = str(_metadata(item))
        else:
            continue
        for place in places:
            if re.search(rf"{re.escape(place)}(?![\w.-])", text):
                raise RegraftError(f"{name} names {place}, a place of this machine, so nothing was sent.")


def _metadata(weights: Path) -> Json:
    """The texts a safetensors file holds beside its tensors."""
    with weights.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return dict(header.get("__metadata__") or {})


def find(repo: str) -> Place:
    """The repository of this name on the hub (HF_ENDPOINT, else huggingface.co); without an owner it is one
    of the user's own. Raises UsageError for a name that is none and where there is no token.
    """
    quiet_libraries()
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UsageError(f"{repo!r} is no name of a repository. Write OWNER/NAME. {error}") from None
    hub = _hub()
    with _told_in_words(repo):
        if "/" not in repo:
            repo = f"{hub.whoami()['name']}/{repo}"
        try:
            public: bool | None = not hub.repo_info(repo).private
        except RepositoryNotFoundError:
            public = None
    return Place(repo, f"{hub.endpoint}/{repo}", public)


def send(parcel: Parcel, place: Place, public: bool = False) -> str:
    """Make the repository where it is not there, private unless `public`, and send everything in one
    commit; gives its address. Raises UsageError where the repository is public and that was not asked for,
    RegraftError for whatever the hub or the network refuses.
    """
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.utils import disable_progress_bars

    check_visibility(place, public)
    hub = _hub()
    if not sys.stderr.isatty():
        disable_progress_bars()
    with _told_in_words(place.repo):
        if place.public is None:
            hub.create_repo(place.repo, private=not public, exist_ok=False)
        hub.create_commit(
            place.repo,
            [
                CommitOperationAdd(name, str(item) if isinstance(item, Path) else item)
                for name, item in parcel.contents.items()
            ],
            commit_message=f"{parcel.name}: model and card by regraft",
        )
    return place.address


def check_visibility(place: Place, public: bool) -> None:
    """Raise UsageError where what is there is not as visible as was asked for."""
    if place.public and not public:
        raise UsageError(
            f"{place.repo} is there and is public. Add --public to send to it, or name another repository."
        )
    if place.public is False and public:
        raise UsageError(
            f"{place.repo} is there and is private. Leave out --public, "
            "or make it public on its own page first."
        )


def _hub() -> Any:
    from huggingface_hub import HfApi, get_token

    if (token := get_token()) is None:
        raise UsageError(
            "there is no token of the hub on this machine. "
            "Make one that may write, then `hf auth login`, or set HF_TOKEN."
        )
    return HfApi(token=token, library_name="regraft")


@contextlib.contextmanager
def _told_in_words(repo: str) -> Iterator[None]:
    """What the hub's client raises, as one sentence. It comes from whatever library talks HTTP, which has
    changed between versions, so every Exception is translated.
    """
    try:
        yield
    except RegraftError:
        raise
    except Exception as error:
        raise RegraftError(f"{repo}: {_words(error)} Nothing, or not all of it, was sent.") from error


def _words(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if type(error).__name__ == "OfflineModeIsEnabled":
        return "HF_HUB_OFFLINE is set, which closes the hub."
    if status in (401, 403):
        return f"the hub does not let this token do that (status {status}). Use one that may write there."
    if status is not None:
        return f"the hub answered with status {status}: {first}"
    return f"the hub could not be talked to: {first}."
