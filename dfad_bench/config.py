"""Where things lie on this machine, and how a configuration file is read: strictly, safely, with one-line errors."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from dfad_bench.errors import DataError, UsageError

_OURS = "DFAD_BENCH_"
"""What the names of this package's environment variables begin with."""
OFFLINE = "DFAD_BENCH_OFFLINE"
"""The one of them that is no path: set to anything, nothing is downloaded."""


class Strict(BaseModel):
    """Base of everything read from disk: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=BaseModel)


def data_dir() -> Path:
    """Return the folder of prepared manifests: ``DFAD_BENCH_DATA`` or ``./data``."""
    return Path(os.environ.get("DFAD_BENCH_DATA") or "data")


def home_dir() -> Path:
    """Return the cache folder: ``DFAD_BENCH_HOME`` or ``~/.cache/dfad-bench``."""
    return Path(os.environ.get("DFAD_BENCH_HOME") or Path.home() / ".cache" / "dfad-bench")


def weights_dir() -> Path | None:
    """Return the user's folder of weights files, ``DFAD_BENCH_WEIGHTS``, or None."""
    return Path(os.environ["DFAD_BENCH_WEIGHTS"]) if os.environ.get("DFAD_BENCH_WEIGHTS") else None


def variables() -> dict[str, str]:
    """Return this package's environment variables as another process needs them, wherever it runs: paths are absolute."""
    named = {name: value for name, value in os.environ.items() if name.startswith(_OURS) and value}
    return {name: value if name == OFFLINE else str(Path(value).absolute()) for name, value in named.items()}


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a repeated key, which YAML would silently overwrite."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # as composed, not as constructed: by then ``<<: *other`` has put the other mapping's keys among these
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                name = self.construct_object(key)
                if name in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"repeated key '{name}'", key.start_mark)
                seen.add(name)
        return node


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
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # PyYAML lets the errors of int(), of a date or of too deep a nesting through as they are
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
    told = "; ".join(complaints) + (f"; and {rest} more" if rest > 0 else "") + "."
    return " ".join(told.split())  # a key may hold a line break


def file_sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
