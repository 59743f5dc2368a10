"""Tables as they are read from their files, wherever these lie: csv and parquet, without the items in them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from itertools import islice

import pyarrow as pa
import pyarrow.csv

from regraft.data.addresses import Place, as_place, telling
from regraft.data.cells import is_content, table_handle
from regraft.data.kind import Kind
from regraft.data.rows import plainly

DELIMITERS = ",;\t|"
LOOKED_AT = 50  # records of a csv that are split by each delimiter to find its own
BLOCKS = (
    1 << 20,
    16 << 20,
    256 << 20,
)  # bytes that a csv is read by: a row has to lie in two of them at most
STRADDLES = "straddling"  # what pyarrow says of one that does not
COLUMNS = {  # what a column is called here, and the other names that certainly mean the same
    "path": ("file", "filename", "filepath"),  # and those that the modality names
    "label": (
        "labels",
        "class",
        "classname",
        "classlabel",
        "category",
        "categoryname",
        "labelname",
        "target",
    ),
    "split": ("set", "subset", "dataset", "partition", "phase", "usage"),
    "group": (),
    "weight": (),
}
DOCUMENTED = (*COLUMNS, "file", "filename")
HOLDING = ("bytes", "content", "data")  # what else a column of the bytes of files is called


def named_by(kinds: Sequence[Kind]) -> list[str]:
    """The names of the columns by which these kinds call their items."""
    return [name for kind in kinds for name in (*kind.columns, *kind.cells)]


def read_beginning(path: Place, kinds: Sequence[Kind]) -> pa.Table:
    """The first rows of a parquet table; of a csv all."""
    if path.suffix.lower() != ".parquet":
        return read_csv(path, named_by(kinds))
    import pyarrow.parquet as pq

    with telling(str(path)), table_handle(str(path)) as handle:
        file = pq.ParquetFile(handle)
        there = [field.name for field in file.schema_arrow if not is_content(field.type)]
        every = len(there) == len(file.schema_arrow)  # perhaps two of one name
        first = next(iter(file.iter_batches(LOOKED_AT, columns=None if every else there)), None)
        read = None if first is None else pa.Table.from_batches([first])
        return read if every and read is not None else _with_empty(file.schema_arrow, read)


def _with_empty(schema: pa.Schema, read: pa.Table | None) -> pa.Table:
    """The columns that were read, and the others with empty cells, in the order of the schema."""
    rows = 0 if read is None else read.num_rows
    columns = [
        read[field.name]
        if read is not None and field.name in read.column_names
        else pa.nulls(rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def read_parquet_table(path: Place, kind: Kind) -> pa.Table:
    """A parquet table whose items in cells are left out: their cells are empty. Where the Hugging Face
    libraries wrote it, classes that are numbers there have their names.
    """
    import pyarrow.parquet as pq

    with telling(str(path)), table_handle(str(path)) as handle:
        file = pq.ParquetFile(handle)
        schema = file.schema_arrow
        there = [f.name for f in schema if not is_content(f.type) and plainly(f.name) not in kind.cells]
        if len(there) == len(schema):  # perhaps two of one name
            table = file.read()
        elif there:
            table = _with_empty(schema, file.read(columns=there))
        else:
            table = pa.table([pa.nulls(file.metadata.num_rows, f.type) for f in schema], schema=schema)
    for name, names in _class_names(schema).items():
        cells = [names[n] if n is not None and 0 <= n < len(names) else None for n in table[name].to_pylist()]
        table = table.set_column(schema.get_field_index(name), name, pa.array(cells, pa.string()))
    return table


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of classes by column, as the Hugging Face libraries keep them in a table's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: [str(one) for one in about["names"]]
            for name, about in features.items()
            if about.get("_type") == "ClassLabel"
            and about.get("names")
            and name in schema.names
            and pa.types.is_integer(schema.field(name).type)
        }
    except (LookupError, ValueError, TypeError, AttributeError):
        return {}


def read_column(path: str, column: str) -> pa.Array:
    """The cells of one column of a csv. Raises OSError where it has no such column, or is none any more."""
    try:
        found = read_csv(as_place(path), [plainly(column)]).column(column).combine_chunks()
    except (pa.ArrowException, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise FileNotFoundError(2, f"it has no column {column!r} any more ({error})", path) from None
    return found.chunk(0) if isinstance(found, pa.ChunkedArray) else found


def read_csv(path: Place, names_of_items: Sequence[str]) -> pa.Table:
    """Every column as text: a class may be called 01 or NA. The items' column may have one of these names."""
    with table_handle(str(path)) as content, io.TextIOWrapper(content, "utf-8-sig", newline="") as handle:
        first = list(islice(handle, 4 * LOOKED_AT))  # records may have several lines
    take_long_cells()
    delimiter = _delimiter(first, names_of_items)
    names = next(csv.reader(first, delimiter=delimiter), [])
    for size in BLOCKS:
        with table_handle(str(path)) as content:  # pyarrow takes no path that is not UTF-8
            try:
                return pyarrow.csv.read_csv(
                    content,
                    pyarrow.csv.ReadOptions(block_size=size),
                    pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                    pyarrow.csv.ConvertOptions(
                        column_types=dict.fromkeys(names, pa.string()),
                        strings_can_be_null=True,
                        null_values=[""],
                    ),
                )
            except pa.ArrowInvalid as error:
                if STRADDLES not in str(error) or size == BLOCKS[-1]:
                    raise
    raise AssertionError("unreachable")


def take_long_cells() -> None:
    """Let the library take cells above 128 kB, which is not much of a text. The limit is the process's: who
    set it back would do so beside another thread that reads.
    """
    csv.field_size_limit(max(csv.field_size_limit(), BLOCKS[-1]))


def _delimiter(lines: list[str], names_of_items: Sequence[str]) -> str:
    """What separates the cells: by it the header has the columns that are needed, and the records have as
    many cells.
    """

    wanted = [("path", *COLUMNS["path"], *names_of_items)]
    wanted += [("label", *COLUMNS["label"])]

    def fits(mark: str) -> tuple[int, float, int]:
        records = [record for record in islice(csv.reader(lines, delimiter=mark), LOOKED_AT) if record]
        if not records or len(records[0]) < 2:
            return 0, 0.0, 0
        plain = {plainly(cell) for cell in records[0]}
        known = sum(not plain.isdisjoint(names) for names in wanted)
        return (
            known,
            sum(len(record) == len(records[0]) for record in records) / len(records),
            len(records[0]),
        )

    return max(DELIMITERS, key=fits)
