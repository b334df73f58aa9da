"""Finds plugins by name: ours by file name, a third party's by entry point, a first try by the path of a file.

Listing imports no plugin: it reads file names and entry-point metadata. Only ``get`` imports, and only the one module.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from dfad_bench.errors import DataError, UnknownName, UsageError

BUILT_IN = "built-in"
_DISTRIBUTION = "dfad-bench"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of plugin: where ours lie, and the name of the object that a plugin module exposes."""

    name: str
    singular: str
    package: str
    attribute: str
    suffix: str = ".py"

    @property
    def group(self) -> str:
        """The entry-point group of third parties."""
        return f"dfad_bench.{self.name}"


KINDS = {
    kind.name: kind
    for kind in (
        Kind("models", "model", "dfad_bench.baselines", "MODEL"),
        Kind("protocols", "protocol", "dfad_bench.protocols", "PROTOCOL", ".yaml"),
        Kind("sources", "source", "dfad_bench.prepare.sources", "SOURCE"),
        Kind("face_detectors", "face detector", "dfad_bench.prepare.face_detectors", "FACE_DETECTOR"),
        Kind("gaze_estimators", "gaze estimator", "dfad_bench.prepare.gaze_estimators", "GAZE_ESTIMATOR"),
        Kind("perturbations", "perturbation", "dfad_bench.modelling.perturbations", "PERTURBATION"),
        Kind("metrics", "metric", "dfad_bench.scoring.metrics", "METRIC"),
    )
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered plugin: its name and where it comes from (``built-in`` or the distribution that brings it)."""

    name: str
    origin: str
    path: Path | None = None
    entry_point: EntryPoint | None = None

    @property
    def is_ours(self) -> bool:
        """Whether the plugin comes with dfad-bench: a file of its own packages, or a package that it brings."""
        return self.origin in (BUILT_IN, _DISTRIBUTION)

    @property
    def is_local_file(self) -> bool:
        """Whether the plugin was given by the path of a file, which no release and no commit vouches for."""
        return self.path is not None and self.origin != BUILT_IN

    @property
    def described(self) -> str:
        """The name, with the file's hash where a name alone does not say which code it stands for."""
        if not self.is_local_file:
            return self.name
        assert self.path is not None
        return f"{self.name} (file sha256:{hashlib.sha256(self.path.read_bytes()).hexdigest()})"


def entries(kind: str) -> dict[str, Entry]:
    """Return the registered plugins of a kind by name, sorted, importing none of them.

    Raises DataError when a third party takes a name that exists already.
    """
    what = KINDS[kind]
    spec = importlib.util.find_spec(what.package)
    found: dict[str, Entry] = {}
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder).glob(f"*{what.suffix}")):
            if not path.name.startswith("_"):
                found[path.stem] = Entry(path.stem, BUILT_IN, path=path)
    for point in entry_points(group=what.group):
        origin = point.dist.name if point.dist else "an unnamed distribution"
        if point.name in found and found[point.name].origin != origin:
            raise DataError(
                f"Two {what.name} are named {point.name!r}: {found[point.name].origin} and {origin}. Uninstall one of them."
            )
        found[point.name] = Entry(point.name, origin, entry_point=point)
    return dict(sorted(found.items()))


def find(kind: str, name: str) -> Entry:
    """Return the entry of that name, or of a file when ``name`` is a path; raise UnknownName with the nearest name."""
    what = KINDS[kind]
    if name.endswith(what.suffix) or "/" in name or "\\" in name:
        path = Path(name).expanduser()
        if not path.is_file():
            raise UsageError(
                f"There is no {what.singular} file {name!r}. Give the path of an existing {what.suffix} file."
            )
        # not resolve(): a link's own name is the plugin's name, whatever the file it leads to is called
        return Entry(path.stem, str(path), path=path.absolute())
    known = entries(kind)
    if name not in known:
        raise UnknownName(what.singular, name, known, f"See 'dfad-bench list {what.name.replace('_', '-')}'.")
    return known[name]


def get(kind: str, name: str) -> Any:
    """Import the plugin of that name, or of a file, and return the object it exposes; raises as ``find`` and ``load`` do."""
    return load(kind, find(kind, name))


def load(kind: str, entry: Entry) -> Any:
    """Import one plugin and return the object it exposes (for a protocol file: its path).

    Where several are wanted, ``entries`` and this look for plugins once, ``get`` once for each.
    """
    what = KINDS[kind]
    if entry.entry_point is not None:
        loaded = entry.entry_point.load()
    elif what.suffix != ".py":
        return entry.path
    elif entry.origin == BUILT_IN:
        loaded = importlib.import_module(f"{what.package}.{entry.name}")
    else:
        assert entry.path is not None
        loaded = _import_file(entry.path)
    if not isinstance(loaded, ModuleType):
        return loaded
    if not hasattr(loaded, what.attribute):
        name = entry.origin if entry.is_local_file else entry.name
        raise UsageError(f"{name}: a {what.singular} file must expose {what.attribute}. See CONTRIBUTING.md.")
    return getattr(loaded, what.attribute)


PLUGIN_MODULE = "dfad_bench_plugin_"
"""How the module of a local file begins: it can be imported in this process alone."""


def _import_file(path: Path) -> ModuleType:
    module_name = f"{PLUGIN_MODULE}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported as Python.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module
