"""Images as columns of a Parquet file, as Hugging Face ``datasets`` has them: bytes and a path, and a note in the schema."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa

IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
IMAGES = {"image": "file_name", "gaze_map": "gaze_file_name"}
"""The columns of images, and the manifest's columns that name their files."""
ROWS_PER_GROUP = 100
"""Few enough that one row of images can be read without many others."""


def with_images(labels: Sequence[pa.Field]) -> pa.Schema:
    """Return the schema of images and labels; it tells ``datasets`` which columns are images."""
    features = {"info": {"features": {name: {"_type": "Image"} for name in IMAGES}}}
    fields = [*(pa.field(name, IMAGE) for name in IMAGES), *labels]
    return pa.schema(fields, metadata={"huggingface": json.dumps(features)})
