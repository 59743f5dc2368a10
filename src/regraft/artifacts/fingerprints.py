"""What contents are known by: hashes of files and of plain values."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from regraft.artifacts.files import plain, utf8


def fingerprint(*parts: Any) -> str:
    """16 hex digits that change when any of `parts` does."""
    text = json.dumps(plain(list(parts)), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(utf8(text)).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
