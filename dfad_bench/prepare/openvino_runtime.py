"""Reads published graphs and compiles them for one thread of the CPU, alike on every processor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from dfad_bench.errors import DataError


@cache
def _core() -> Any:
    """Return OpenVINO's core, one for the whole process.

    Each core gives the process a stack for signals and takes it back when it goes, so that with several of them the next
    signal, be it Ctrl-C, finds none and the process dies (seen with OpenVINO 2026.4).
    """
    import openvino  # 0.3 s, and not needed to list what there is

    return openvino.Core()


def read_graph(*files: Path) -> Any:
    """Return an OpenVINO model from an ONNX file or from a pair of .xml and .bin; raise DataError where it is none."""
    try:
        return _core().read_model(*map(str, files))
    except RuntimeError as error:
        told = " ".join(str(error).split())[:200]
        raise DataError(f"OpenVINO cannot read {files[0]}: {told}") from None


def compile_graph(graph: Any, *shapes: Sequence[int]) -> Any:
    """Return a callable network whose inputs have these shapes (-1 is any number), for one thread.

    Threads of several workers would fight for the same cores, and bfloat16, which some processors choose by themselves,
    would give other numbers than the rest. Raises DataError where the graph cannot take the shapes.
    """
    settings = {
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # every worker would be pinned to the same core
        "INFERENCE_PRECISION_HINT": "f32",
    }
    reshaped = graph.clone()
    try:
        reshaped.reshape(dict(enumerate(shapes)))
        return _core().compile_model(reshaped, "CPU", settings)
    except RuntimeError as error:
        told = " ".join(str(error).split())[:200]
        raise DataError(f"OpenVINO cannot run {graph.get_friendly_name()} at {shapes}: {told}") from None
