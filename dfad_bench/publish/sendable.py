"""What a result and its predictions may hold to be sent: ids, labels and scores, and no more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dfad_bench.errors import shorten
from dfad_bench.records.predictions import COLUMNS

SENT = [name for name in COLUMNS.names if name != "embedding"]
"""The columns that are sent. An embedding is not: from some a face can be drawn again."""
_FOOTERS = {b"dfad_bench", b"ARROW:schema"}
_LONGEST = 1000
"""Characters of a text; a longer one is no name, and could be a picture."""
_MACHINE = r"^(/|~/|[A-Za-z]:[\\/]|\\\\|file:)|(^|/)\.\.(/|$)|[^\w./-]/(home|Users|root|mnt|media|scratch|tmp|var)/"
"""A path of somebody's machine, as a whole text or within one; a path below a root of a dataset is an id, and may stand."""


def unsafe_texts(stored: Iterable[Any]) -> Iterator[str]:
    """Yield what the keys and values of a result hold that nobody is to read: paths of a machine, and what is no name."""
    yield from _unsafe(pa.array([each for each in stored if isinstance(each, str)], pa.string()), "it")


def unsafe_predictions(predictions: Path) -> Iterator[str]:
    """Yield what a predictions file holds beside ids, labels and scores."""
    try:
        with pq.ParquetFile(predictions) as file:
            strangers = [name for name in file.schema_arrow.names if name not in COLUMNS.names]
            if strangers:
                yield f"{predictions.name} holds more than ids and scores: take away {shorten(map(repr, strangers))}"
            if more := set(file.metadata.metadata or {}) - _FOOTERS:
                yield f"{predictions.name} holds more than ids and scores: {sorted(more)[0]!r} in its footer"
            if strangers or more or not file.schema_arrow.equals(COLUMNS, check_metadata=False):
                return  # that columns are missing, or of other types, is told by whoever reads them
            if file.schema_arrow.metadata:
                yield f"{predictions.name} holds more than ids and scores: metadata of its columns"
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, use_threads=False)
                rows.validate(full=True)
                if rows["embedding"].null_count < rows.num_rows:
                    yield f"{predictions.name} holds embeddings: leave them out, as 'dfad-bench leaderboard submit' does"
                    return
                texts = [name for name in rows.column_names if pa.types.is_string(rows.schema.field(name).type)]
                columns = {name: rows[name] for name in texts} | {"identities": pc.list_flatten(rows["identities"])}
                told = [each for name, column in columns.items() for each in _unsafe(column, f"column {name}")]
                if told:
                    yield f"{predictions.name}: {told[0]}"
                    return
    except (pa.ArrowException, OSError, ValueError) as error:
        yield f"{predictions.name} cannot be read as Parquet: {' '.join(str(error).split())}"


def _unsafe(texts: pa.Array, where: str) -> Iterator[str]:
    for reason, mask in (
        ("a path of a machine", pc.match_substring_regex(texts, _MACHINE)),
        (f"a text of more than {_LONGEST} characters", pc.greater(pc.utf8_length(texts), _LONGEST)),
    ):
        culprits = texts.filter(pc.fill_null(mask, False))
        if len(culprits):
            shown = culprits[0].as_py()
            yield f"{where} holds {reason}: {shown[:60]!r}{'…' if len(shown) > 60 else ''}"
