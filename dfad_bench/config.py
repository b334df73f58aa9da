"""Where things lie on this machine, and how a configuration file is read: strictly, safely, with one-line errors."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from dfad_bench.errors import DataError, UsageError


class Strict(BaseModel):
    """Base of everything read from disk: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=BaseModel)


def data_dir() -> Path:
    """Return the folder of prepared manifests: ``DFAD_BENCH_DATA`` or ``./data``."""
    return Path(os.environ.get("DFAD_BENCH_DATA", "data"))


def home_dir() -> Path:
    """Return the cache folder: ``DFAD_BENCH_HOME`` or ``~/.cache/dfad-bench``."""
    return Path(os.environ.get("DFAD_BENCH_HOME", Path.home() / ".cache" / "dfad-bench"))


def weights_dir() -> Path | None:
    """Return the user's folder of weights files, ``DFAD_BENCH_WEIGHTS``, or None."""
    return Path(os.environ["DFAD_BENCH_WEIGHTS"]) if os.environ.get("DFAD_BENCH_WEIGHTS") else None


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a repeated key, which YAML would silently overwrite."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = sorted({str(key) for key in keys if keys.count(key) > 1})
        if repeated:
            raise yaml.constructor.ConstructorError(None, None, f"repeated key {repeated[0]!r}", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, model: type[Model]) -> Model:
    """Read a YAML file into a pydantic model.

    Raises UsageError where the file is missing, DataError where it is not YAML or does not fit the model; each names
    the file and the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"There is no file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}.") from None
    try:
        loaded = _UniqueKeyLoader(text).get_single_data()
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    return validate(loaded, model, str(path))


def validate(loaded: Any, model: type[Model], where: str) -> Model:
    """Validate parsed data against a pydantic model, turning its complaint into one line that names ``where``."""
    try:
        return model.model_validate(loaded)
    except ValidationError as error:
        raise DataError(f"{where}: {one_line(error)}") from None


def one_line(error: ValidationError) -> str:
    """Return a pydantic error's first complaints as ``key: message`` joined by semicolons."""
    complaints = [f"{'.'.join(map(str, e['loc'])) or 'top level'}: {e['msg']}" for e in error.errors()[:3]]
    rest = len(error.errors()) - len(complaints)
    return "; ".join(complaints) + (f"; and {rest} more" if rest > 0 else "") + "."


def file_sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
