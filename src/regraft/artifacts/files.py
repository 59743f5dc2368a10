"""Files that are written whole or not at all: text, JSON and parquet."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

TEMPORARY = re.compile(r"\..+\.\d+\.\d+\.tmp")  # what `atomic` calls a file that is not whole yet


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`. On success the file is flushed and renamed onto `path`,
    otherwise it is removed.

    Raises OSError that names `path` where the disk is full or the folder cannot be written, whichever
    library wrote to the temporary file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        # The user's usual mode, which is kept: some writers make their files private
        mode = temporary.stat().st_mode
        yield temporary
        with contextlib.suppress(OSError):  # some file systems have no modes
            os.chmod(temporary, mode)
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except Exception as error:
        raise _naming(error, path, temporary) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _naming(error: Exception, path: Path, temporary: Path) -> Exception:
    """An OSError that names `path` where `error` says that the file cannot be written, else `error`."""
    if isinstance(error, OSError):
        if error.errno is None or error.filename not in (None, str(temporary)):
            return error
        number = error.errno
    else:
        # As libraries in Rust say it, such as safetensors
        code = re.search(r"\(os error (\d+)\)", str(error))
        if code is None:
            return error
        number = int(code[1])
    return OSError(number, os.strerror(number), str(path))


def utf8(text: str) -> bytes:
    """`text` in UTF-8. Bytes of file names that are not UTF-8 become escapes, which JSON and YAML read
    back.
    """
    return text.encode("utf-8", "backslashreplace")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(utf8(text))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def openable(path: Path) -> Iterator[str]:
    """Yield a name of the file `path` for libraries that cannot open a path that is not UTF-8.

    Raises OSError where there is no such file.
    """
    name = str(path)
    if name.isascii() or utf8(name).decode() == name:
        yield name
        return
    with open(path, "rb") as handle:
        yield f"/dev/fd/{handle.fileno()}"


def order_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file in place, so that equal contents give equal bits. The library
    writes them in any order.
    """
    with open(path, "rb+") as handle:
        length = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(length))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = utf8(json.dumps(header, ensure_ascii=False, separators=(",", ":"))).ljust(length)
        if len(text) == length:
            handle.seek(8)
            handle.write(text)


def write_parquet(path: Path, table: pa.Table | Iterator[pa.Table], **options: Any) -> None:
    """Write a table atomically, or several of one schema, one after the other. `options` are those of
    pyarrow's ParquetWriter.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = iter((table,)) if isinstance(table, pa.Table) else table
    first = next(tables)
    with (
        atomic(path) as temporary,
        open(temporary, "wb") as handle,  # pyarrow takes no path that is not UTF-8
        pq.ParquetWriter(handle, first.schema, **options) as writer,
    ):
        writer.write_table(first)
        for some in tables:
            writer.write_table(some)


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The table in a parquet file, or some of its columns.

    Read without pyarrow's threads: a command that ends while these begin is aborted by them.
    """
    import pyarrow.parquet as pq

    with open(path, "rb") as handle:
        file = pq.ParquetFile(handle, pre_buffer=False)
        table = file.read(None if columns is None else list(columns), use_threads=False)
    return table if columns is None else table.select(list(columns))


def to_json(value: Any) -> str:
    """JSON text of `value`, which may hold numpy numbers and arrays. NaN and infinity are written as null."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, as `to_json` gives it."""
    write_text(path, to_json(value) + "\n")


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises UsageError that names the file where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from None


def plain(value: Any) -> Any:
    """`value` made of what JSON knows: numpy numbers and arrays, paths and tuples become plain values."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value
