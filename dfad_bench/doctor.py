"""Looks at this installation and says what works, what does not, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
from dataclasses import dataclass
from typing import Literal

from dfad_bench import config, registry
from dfad_bench.errors import DfadError

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: what, how it is, and a sentence."""

    what: str
    status: Status
    detail: str


def examine() -> list[Finding]:
    """Return everything found; importing torch and torchvision takes some seconds."""
    return [_python(), _opencv(), *_runtimes(), *_torch(), *_plugins(), *_folders()]


def _python() -> Finding:
    version = importlib.metadata.version("dfad-bench")
    return Finding("dfad-bench", "ok", f"{version} on Python {platform.python_version()}, {platform.platform()}")


def _opencv() -> Finding:
    wheels = _installed("opencv-")
    if len(wheels) > 1:
        return Finding("OpenCV", "problem", f"{' and '.join(wheels)} overwrite each other: keep opencv-python alone")
    try:
        import cv2
    except ImportError as error:
        return Finding("OpenCV", "problem", f"{error}. On Debian: apt-get install libgl1 libglib2.0-0")
    return Finding("OpenCV", "ok", cv2.__version__)


def _installed(prefix: str) -> list[str]:
    names = {dist.metadata["Name"] for dist in importlib.metadata.distributions()}
    return sorted(name for name in names if name.startswith(prefix))


def _runtimes() -> list[Finding]:
    """Return what detectors and estimators run on; a GPU that goes unused is the oldest complaint about them."""
    findings = [Finding("OpenVINO", "ok", f"{importlib.metadata.version('openvino')}, on the CPU")]
    wheels = [name for name in _installed("onnxruntime") if name in ("onnxruntime", "onnxruntime-gpu")]
    if not wheels:
        return [
            *findings,
            Finding("ONNX Runtime", "note", "not installed: retinaface, insightface, mobilegaze need it"),
        ]
    if len(wheels) > 1:
        told = f"{' and '.join(wheels)} overwrite each other: keep one"
        return [*findings, Finding("ONNX Runtime", "problem", told)]
    import onnxruntime

    providers = ", ".join(onnxruntime.get_available_providers())
    return [*findings, Finding("ONNX Runtime", "ok", f"{onnxruntime.__version__}, it can use {providers}")]


def _torch() -> list[Finding]:
    import torch

    from dfad_bench.modelling.torchvision_ops import declare_missing_operators

    cuda = torch.cuda.is_available()
    device = (
        f"CUDA {torch.version.cuda} on {torch.cuda.get_device_name()}"
        if cuda
        else "no GPU in use: models run on the CPU"
    )
    findings = [Finding("torch", "ok" if cuda else "note", f"{torch.__version__}, {device}")]
    declared = declare_missing_operators()
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:
        return [*findings, Finding("torchvision", "problem", f"cannot be imported: {error}")]
    shim = "; its compiled operators do not match this torch, models that use none of them work" if declared else ""
    return [*findings, Finding("torchvision", "note" if declared else "ok", f"{torchvision.__version__}{shim}")]


def _plugins() -> list[Finding]:
    findings = []
    for kind in registry.KINDS.values():
        broken = []
        names = registry.entries(kind.name)
        for name in names:
            try:
                registry.get(kind.name, name)
            except (ImportError, DfadError) as error:
                broken.append(f"{name}: {error}")
        status: Status = "problem" if broken else "ok"
        findings.append(Finding(kind.name.replace("_", " "), status, "; ".join(broken) or ", ".join(names)))
    return findings


def _folders() -> list[Finding]:
    data, weights = config.data_dir(), config.weights_dir()
    prepared = sorted(path.parent.name for path in data.glob("*/metadata.parquet"))
    free = shutil.disk_usage(data if data.is_dir() else ".").free / 2**30
    listed = f"prepared: {', '.join(prepared)}" if prepared else "nothing prepared yet"
    findings = [Finding("data", "ok", f"{data.resolve()}: {listed}; {free:.0f} GiB free")]
    if weights is not None and not weights.is_dir():
        findings.append(Finding("weights", "problem", f"DFAD_BENCH_WEIGHTS is {weights}, which is no folder"))
    else:
        findings.append(Finding("weights", "ok", f"{weights or 'no DFAD_BENCH_WEIGHTS'}; cache {config.home_dir()}"))
    return findings
