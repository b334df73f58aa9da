"""Makes ``import torchvision`` work where its compiled operators cannot load, such as its CUDA wheel beside a CPU torch."""

from __future__ import annotations

import sys

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
"""Copied from torchvision/csrc/ops/nms.cpp (BSD-3-Clause): those that torchvision's Python registers a fake kernel for."""

_declared: list[torch.library.Library] = []
"""Kept alive: a Library that is collected takes its declarations with it."""


def declare_missing_operators() -> bool:
    """Import torchvision, declaring the operators whose absence would stop the import.

    Nothing is declared where they exist; returns whether anything was. Call it before the first import of torchvision
    or of a package that imports it; a second call changes nothing. Only the schemas are declared: networks work, while
    calling ``nms`` raises NotImplementedError. Raises ImportError where torchvision is not installed.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if _declared or "operator torchvision::" not in str(error):
            raise
        # The submodules that did load would be reused without being attached to the package that is imported next.
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for schema in _SCHEMAS:
            library.define(schema)  # type: ignore[no-untyped-call]
        _declared.append(library)
        import torchvision  # noqa: F401
    return bool(_declared)
