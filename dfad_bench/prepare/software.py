"""Names the versions that decide what is computed."""

from __future__ import annotations

import importlib.metadata

import cv2


def software(*distributions: str) -> dict[str, str]:
    """Return the versions of OpenCV, of dfad-bench and of the named distributions, by name."""
    # asked of the module: several distributions bring it
    versions = {"opencv": cv2.__version__}
    return versions | {name: importlib.metadata.version(name) for name in ("dfad-bench", *distributions)}
