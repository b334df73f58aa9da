"""Looks at this installation and says what works, what does not, and the one command that mends it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import platform
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dfad_bench import config, registry
from dfad_bench.errors import DfadError, WeightsMissing
from dfad_bench.types import ModelSpec, WeightsFile

Status = Literal["ok", "note", "problem"]
_DISTRIBUTION = "dfad-bench"
_RUN = ("models", "face_detectors", "gaze_estimators")
"""The kinds of plugins that may need weights or packages of their own."""
_ENOUGH, _TOO_LITTLE = 5.0, 0.5
"""GiB of free disk: below the first one dataset may fill it, below the second nothing can be kept."""
_IDENTITY = bytes.fromhex(
    "080812003a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a0808011204"
    "0a02080142040a00100d"
)
"""An ONNX graph, y = x: only a session that runs says which provider is in use."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: what, how it is, a sentence, and the command that mends it where there is one.

    status: ``note`` for what is missing and may stay so, such as weights that nobody asked for; ``problem`` for what is broken.
    """

    what: str
    status: Status
    detail: str
    mend: str | None = None


def examine(verify: bool = False, runs: Path = Path("runs")) -> list[Finding]:
    """Return everything found. Nothing is downloaded; importing torch and every plugin takes some seconds.

    verify: hash every published weights file that is here, which takes a second per GB; runs: where runs are kept.
    """
    loaded = {kind: _loaded(kind) for kind in registry.KINDS}
    return [
        *(_python(), _packages(), _opencv(), _openvino(), _onnx_runtime(), *_torch()),
        *(_summary(kind, plugins) for kind, plugins in loaded.items()),
        *_folders(runs),
        *_weights_files((each for kind in _RUN for each in loaded[kind].items()), verify),
        *(_can_run(kind, name, plugin) for kind in _RUN for name, plugin in loaded[kind].items()),
    ]


# --- packages and devices ------------------------------------------------------------------------------------------


def _python() -> Finding:
    version = importlib.metadata.version(_DISTRIBUTION)
    return Finding(_DISTRIBUTION, "ok", f"{version} on Python {platform.python_version()}, {platform.platform()}")


def _packages() -> Finding:
    """Return whether every package that is needed, or that an installed extra brings, is of a version that works."""
    from packaging.requirements import Requirement

    extras = set(importlib.metadata.metadata(_DISTRIBUTION).get_all("Provides-Extra") or ()) - {"dev"}
    wrong: dict[str, str] = {}
    counted = 0
    for text in importlib.metadata.requires(_DISTRIBUTION) or ():
        asked = Requirement(text)
        needed = asked.marker is None or asked.marker.evaluate({"extra": ""})
        if not needed and not any(asked.marker.evaluate({"extra": extra}) for extra in extras if asked.marker):
            continue
        version = _version(asked.name)
        if version is None and not needed:
            continue
        counted += 1
        if version is None:
            wrong[f"{asked.name}{asked.specifier}"] = f"{asked.name} is not installed"
        elif not asked.specifier.contains(version, prereleases=True):
            wrong[f"{asked.name}{asked.specifier}"] = f"{asked.name} is {version}, {asked.specifier} is needed"
    if wrong:
        return Finding("packages", "problem", "; ".join(wrong.values()), f"pip install {shlex.join(wrong)}")
    return Finding("packages", "ok", f"all {counted} are of versions that work")


def _version(package: str) -> str | None:
    """Return the version of a package, None where it is absent; of OpenCV's wheels any one is OpenCV."""
    wheels = _installed("opencv-") if package == "opencv-python" else [package]
    for wheel in wheels:
        try:
            return importlib.metadata.version(wheel)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _opencv() -> Finding:
    wheels = _installed("opencv-")
    if len(wheels) > 1:
        told = f"{' and '.join(wheels)} overwrite each other: keep opencv-python alone"
        return Finding("OpenCV", "problem", told, _keep("opencv-python", wheels))
    try:
        import cv2
    except ImportError as error:
        return Finding("OpenCV", "problem", f"{error}", "apt-get install libgl1 libglib2.0-0")
    return Finding("OpenCV", "ok", cv2.__version__)


def _installed(prefix: str) -> list[str]:
    names = {dist.metadata["Name"] for dist in importlib.metadata.distributions()}
    return sorted(name for name in names if name.startswith(prefix))


def _keep(wheel: str, wheels: Sequence[str]) -> str:
    """Return the command that leaves one of several wheels: what they share goes with any, so the one comes again."""
    return f"pip uninstall --yes {' '.join(wheels)} && pip install --no-deps {wheel}"


def _openvino() -> Finding:
    version = _version("openvino")
    if version is None:
        return Finding("OpenVINO", "problem", "not installed", "pip install openvino")
    try:
        import openvino

        core = openvino.Core()
        devices = [f"{name} ({core.get_property(name, 'FULL_DEVICE_NAME')})" for name in core.available_devices]
    except Exception as error:  # noqa: BLE001  # its library raises bare RuntimeErrors of many kinds
        return Finding(
            "OpenVINO", "problem", f"{version}: {_line(error)}", f"pip install --force-reinstall openvino=={version}"
        )
    return Finding("OpenVINO", "ok", f"{version}, it sees {', '.join(devices)}; detectors and estimators use the CPU")


def _onnx_runtime() -> Finding:
    """Return what ONNX Runtime is built for and what it starts: a GPU that goes unused is the oldest complaint about it."""
    wheels = [name for name in _installed("onnxruntime") if name in ("onnxruntime", "onnxruntime-gpu")]
    if not wheels:
        told = "not installed: retinaface, insightface, mobilegaze need it"
        return Finding("ONNX Runtime", "note", told, "pip install 'dfad-bench[onnx]'")
    if len(wheels) > 1:
        told = f"{' and '.join(wheels)} overwrite each other: keep one"
        return Finding("ONNX Runtime", "problem", told, _keep(wheels[-1], wheels))
    try:
        import onnxruntime

        offered = onnxruntime.get_available_providers()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what it cannot start is told below
        active = onnxruntime.InferenceSession(_IDENTITY, options, providers=offered).get_providers()
    except Exception as error:  # noqa: BLE001  # its library raises exceptions of its own that share no base
        return Finding("ONNX Runtime", "problem", _line(error), f"pip install --force-reinstall {wheels[0]}")
    told = f"{onnxruntime.__version__}, built for {', '.join(offered)}; it starts {', '.join(active)}"
    idle = "CUDAExecutionProvider" in offered and "CUDAExecutionProvider" not in active
    return Finding(
        "ONNX Runtime", "note" if idle else "ok", told, "pip install 'onnxruntime-gpu[cuda,cudnn]'" if idle else None
    )


def _torch() -> list[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library of CUDA's that is not there
        return [Finding("torch", "problem", f"cannot be imported: {error}", "pip install --force-reinstall torch")]

    from dfad_bench.modelling.torchvision_ops import declare_missing_operators

    findings = [_device(torch)]
    declared = declare_missing_operators()
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:
        mend = "pip install --force-reinstall torch torchvision"
        return [*findings, Finding("torchvision", "problem", f"cannot be imported: {error}", mend)]
    shim = "; its compiled operators do not match this torch, models that use none of them work" if declared else ""
    return [*findings, Finding("torchvision", "note" if declared else "ok", f"{torchvision.__version__}{shim}")]


def _device(torch: Any) -> Finding:
    if torch.cuda.is_available():
        seen = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        told = ", ".join(f"{each.name} ({each.total_memory / 2**30:.0f} GiB)" for each in seen)
        return Finding("torch", "ok", f"{torch.__version__}, CUDA {torch.version.cuda} on {told}")
    if torch.backends.mps.is_available():
        return Finding("torch", "ok", f"{torch.__version__}, Metal (--device mps)")
    if Path("/proc/driver/nvidia/version").is_file() and torch.version.cuda is None:
        told = f"{torch.__version__}, built without CUDA beside an NVIDIA driver: models run on the CPU"
        return Finding("torch", "note", told, "pip install --force-reinstall torch torchvision")
    return Finding("torch", "note", f"{torch.__version__}, no GPU in use: models run on the CPU")


# --- plugins -------------------------------------------------------------------------------------------------------


def _loaded(kind: str) -> dict[str, Any]:
    """Return the plugins of a kind by name; the error in place of one that cannot be imported."""
    found: dict[str, Any] = {}
    for name, entry in registry.entries(kind).items():
        try:
            found[name] = registry.load(kind, entry)
        except Exception as error:  # noqa: BLE001  # a third party's module may raise anything, and that is to be told
            found[name] = error
    return found


def _summary(kind: str, plugins: dict[str, Any]) -> Finding:
    broken = [f"{name}: {_line(plugin)}" for name, plugin in plugins.items() if isinstance(plugin, Exception)]
    return Finding(kind.replace("_", " "), "problem" if broken else "ok", "; ".join(broken) or ", ".join(plugins))


def _can_run(kind: str, name: str, plugin: Any) -> Finding:
    """Return whether a model, a face detector or a gaze estimator can be used now, as it is used by default."""
    what = f"{registry.KINDS[kind].singular} {name}"
    if isinstance(plugin, Exception):
        mend = _pip(str(plugin))
        if mend is None and isinstance(plugin, ModuleNotFoundError) and plugin.name:
            mend = f"pip install {shlex.quote(plugin.name.partition('.')[0])}"
        return Finding(what, "problem", f"cannot be imported: {_line(plugin)}", mend)
    return _model(what, name, plugin) if kind == "models" else _worker(what, plugin)


def _model(what: str, name: str, spec: ModelSpec) -> Finding:
    from dfad_bench import weights
    from dfad_bench.modelling.weights import find_backbone

    choice = spec.default_backbone_weights
    if choice == "none":
        return Finding(what, "ok", "can run, it needs no weights")
    try:
        file = find_backbone(name, spec, choice).file
    except WeightsMissing as error:
        mend = f"dfad-bench run --model {name} --protocol demo --backbone-weights FILE"
        return Finding(what, "note", _line(error), mend)
    except DfadError as error:
        return Finding(what, "problem", _line(error))
    if not isinstance(file, WeightsFile):
        return Finding(what, "ok", f"can run, from {file}")
    if weights.find(file) is None:
        told = f"its weights {file.name} are not here{_size([file])}; they are fetched when it is run"
        return Finding(what, "note", told, _fetching([file]))
    return Finding(what, "ok", f"can run, from {file.name}")


def _worker(what: str, plugin: Any) -> Finding:
    """Build a detector or an estimator as a worker does, without the network; that checks the hashes of its files too."""
    from dfad_bench import weights

    missing = [file for file in getattr(plugin, "weights", ()) if weights.find(file) is None]
    try:
        with _offline_and_quiet():
            plugin()
    except DfadError as error:
        mend = _pip(str(error))
        if mend is not None:
            return Finding(what, "note", _line(error), mend)
        if missing:
            names = ", ".join(file.name for file in missing)
            told = f"not here{_size(missing)}: {names}; fetched when it is used"
            return Finding(what, "note", told, _fetching(missing))
        wrong = [file for file in plugin.weights if config.file_sha256(_path(file)) != file.sha256]
        return Finding(what, "problem", _line(error), _fetching(wrong) if wrong else None)
    except Exception as error:  # noqa: BLE001  # whatever a network's library raises, it cannot run
        return Finding(what, "problem", f"{type(error).__name__}: {_line(error)}")
    return Finding(what, "ok", "can run")


def _pip(told: str) -> str | None:
    """Return the command that an error gives for a package that is missing: the plugin knows best which one."""
    found = re.search(r"pip install '[^']+'", told)
    return found[0] if found else None


@contextmanager
def _offline_and_quiet() -> Iterator[None]:
    """Let what is built here fetch nothing and log nothing, and leave the process as it was."""
    before, level = os.environ.get(config.OFFLINE), logging.root.manager.disable
    os.environ[config.OFFLINE] = "1"
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
        os.environ.pop(config.OFFLINE) if before is None else os.environ.update({config.OFFLINE: before})


# --- files and folders ---------------------------------------------------------------------------------------------


def _weights_files(plugins: Iterable[tuple[str, Any]], verify: bool) -> Iterator[Finding]:
    """Yield each published file once, with those that use it."""
    from dfad_bench import weights

    users: dict[str, list[str]] = {}
    files: dict[str, WeightsFile] = {}
    for name, plugin in plugins:
        of_worker, of_model = getattr(plugin, "weights", ()), getattr(plugin, "backbone_weights", {})
        for file in (*of_worker, *of_model.values()):
            files[file.sha256] = file
            users.setdefault(file.sha256, []).append(name)
    for sha256, file in sorted(files.items(), key=lambda item: item[1].name):
        used = f"of {', '.join(users[sha256])}"
        path, what = weights.find(file), f"weights file {file.name}"
        if path is None:
            yield Finding(what, "note", f"{used}: not here{_size([file])}", _fetching([file]))
            continue
        wrong = _wrong(path, file, verify)
        if wrong is not None:
            yield Finding(what, "problem", f"{used}: {path} is not the published file: {wrong}", _fetching([file]))
        else:
            yield Finding(what, "ok", f"{used}: {path}, sha256 {'verified' if verify else 'not verified'}")


def _wrong(path: Path, file: WeightsFile, verify: bool) -> str | None:
    size = path.stat().st_size
    if file.bytes not in (None, size):
        return f"it has {size:,} bytes, expected {file.bytes:,}"
    if not verify:
        return None
    found = config.file_sha256(path)
    if found == file.sha256:
        return None
    known = next((reason for start, reason in file.refused.items() if found.startswith(start)), None)
    return known or f"its sha256 is {found}, expected {file.sha256}"


def _fetching(files: Sequence[WeightsFile]) -> str:
    """Return the one command that puts files where they are looked for: over a wrong one, else into the cache."""
    parts = [part for file in files for part in ("--output", str(_path(file)), file.url)]
    return shlex.join(["curl", "--fail", "--location", "--create-dirs", *parts])


def _path(file: WeightsFile) -> Path:
    from dfad_bench import weights

    return weights.find(file) or config.home_dir().absolute() / "weights" / file.name


def _size(files: Iterable[WeightsFile]) -> str:
    sizes = [file.bytes for file in files]
    return "" if None in sizes else f" ({sum(size or 0 for size in sizes) / 1e6:.1f} MB)"


def _folders(runs: Path) -> list[Finding]:
    data, home, given = config.data_dir(), config.home_dir(), config.weights_dir()
    prepared = sorted(path.parent.name for path in data.glob("*/metadata.parquet"))
    listed = f"prepared: {', '.join(prepared)}" if prepared else "nothing prepared yet"
    findings = [
        _folder("data", data, listed, "export DFAD_BENCH_DATA=FOLDER"),
        _folder("cache", home, "weights that are fetched", "export DFAD_BENCH_HOME=FOLDER"),
        _folder("runs", runs, "results, predictions, weights that are trained", "dfad-bench run --runs FOLDER"),
    ]
    if given is not None and not given.is_dir():
        told, mend = f"DFAD_BENCH_WEIGHTS is {given}, which is no folder", f"mkdir -p {shlex.quote(str(given))}"
        return [*findings, Finding("weights", "problem", told, mend)]
    return [*findings, Finding("weights", "ok", f"{given or 'no DFAD_BENCH_WEIGHTS'}; cache {home}")]


def _folder(what: str, folder: Path, holds: str, elsewhere: str) -> Finding:
    """Return whether a folder, or where it will be made, can be written and has room."""
    path = folder.absolute()
    there = next(each for each in (path, *path.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        return Finding(what, "problem", f"{path}: {there} cannot be written", elsewhere)
    free = shutil.disk_usage(there).free / 2**30
    status: Status = "problem" if free < _TOO_LITTLE else "note" if free < _ENOUGH else "ok"
    told = f"{path}: {holds}; {free:.1f} GiB free"
    return Finding(what, status, told, None if status == "ok" else elsewhere)


def _line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
