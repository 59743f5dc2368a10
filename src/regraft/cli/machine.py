"""The verbs about what this machine has: models, cache."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from regraft.cli import options, values
from regraft.cli.shown import print_json
from regraft.errors import UsageError

OTHERS = {
    "timm:NAME": "any timm model, from the hub or the local cache",
    "transformers:OWNER/NAME": "a repository in transformers' layout (or hf:), from the hub or the local cache",
    "path:FOLDER": "model.safetensors and config.json, in the layout of timm, transformers or sentence-transformers",
    "path:FILE@ARCHITECTURE": "a .safetensors file of a timm model",
    "run:FOLDER": "the model of an earlier run",
}


def models(as_json: options.AsJson = False) -> None:
    """List the pre-trained models at hand and in the catalogue, and where others come from."""
    from regraft.backbones import at_hand

    known = at_hand()
    if as_json:
        print_json(known)
        return
    print(f"{'':53} {'for':5} {'params':>8} {'GMACs':>6} {'input':>5} {'top-1':>5}  {'licence':14}")
    for item in known:
        print(_line(item))
    for reference, what in OTHERS.items():
        print(f"{reference:34} {what}")


def _line(item: dict[str, Any]) -> str:
    fetched = f", {item['download'] / 1e6:,.0f} MB" if item.get("download") else ""
    where = f"at hand ({item['source']})" if item["at_hand"] else f"not at hand: {item['source']}{fetched}"
    size = f"{item['parameters'] / 1e6:6.1f} M" if item["parameters"] else ""
    macs = f"{item['gmacs']:.2f}" if item["gmacs"] else ""
    top = f"{item['imagenet_top1']:.1f}" if item["imagenet_top1"] else ""
    numbers = f"{size:>8} {macs:>6} {item['input_size'] or '':>5} {top:>5}"
    good = f"; {item['good_for']}" if item.get("good_for") else ""
    return f"{item['reference']:53} {item['modality']:5} {numbers}  {item['licence']:14} {where}{good}"


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="delete all of it")] = False,
    limit: Annotated[
        str | None, typer.Option(help="delete what was used longest ago down to this: 500MB, 2GB")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what the cache holds (features, converted models, trials), or clear it. Nothing in it is needed
    to keep.
    """
    from regraft.inference import FeatureStore
    from regraft.runtime import NO_HOME, cache_folder

    folder = cache_folder()
    if folder is None:
        raise UsageError(NO_HOME[0].upper() + NO_HOME[1:] + ".")
    store = FeatureStore(folder)
    deleted = 0
    if clear:
        deleted = store.clear()
    elif limit is not None:
        deleted = store.shrink(values.in_bytes(limit))
    kept = store.kept()
    if as_json:
        rows = [{"kind": k.kind, "files": k.files, "bytes": k.size, "used": k.used} for k in kept]
        about = {"folder": store.folder, "deleted_bytes": deleted, "limit_bytes": store.limit}
        print_json({**about, "kept": rows})
        return
    print(f"{store.folder}: {sum(k.size for k in kept) / 1e6:,.1f} MB of at most {store.limit / 1e9:,.0f} GB")
    for item in kept:
        print(f"  {item.kind:10} {item.files:6,} files {item.size / 1e6:10,.1f} MB")
    if clear or limit is not None:
        print(f"deleted {deleted / 1e6:,.1f} MB")
