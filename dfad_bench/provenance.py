"""Says which code and which libraries a result came from."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from pathlib import Path

from dfad_bench.records.results import CodeRecord

_LIBRARIES = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "numpy",
    "opencv-python",
    "scikit-learn",
    "pyarrow",
    "safetensors",
)
_CODE = ("dfad_bench", "baselines", "gazeclip", "protocols", "pyproject.toml")
_REDIRECTIONS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")


@cache
def code() -> CodeRecord:
    """Return the package's version and, where it runs from its own checkout, the commit and whether files changed since.

    An installed wheel has no commit; a checkout of something else that merely contains the installed package is not
    mistaken for ours.
    """
    version = importlib.metadata.version("dfad-bench")
    package = Path(__file__).resolve().parent
    top = _git(package, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() / "dfad_bench" != package:
        return CodeRecord(version=version, commit=None, dirty=None)
    changes = _git(package.parent, "status", "--porcelain", "--", *_CODE)
    return CodeRecord(version=version, commit=_git(package, "rev-parse", "HEAD"), dirty=changes != "")


def _git(folder: Path, *arguments: str) -> str | None:
    """Return git's answer without its last newline, or None where git or a repository is absent."""
    # a git hook's GIT_DIR would speak for the repository of the hook, wherever the folder lies
    environment = {name: value for name, value in os.environ.items() if name not in _REDIRECTIONS}
    command = ["git", "-C", str(folder), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.rstrip("\n")


def environment() -> dict[str, str]:
    """Return the versions of Python, the platform and the libraries that a number may depend on."""
    versions = {name: _version(name) for name in _LIBRARIES}
    system = f"{platform.system()} {platform.machine()}"  # no more: a kernel's name says whose machine it is
    return {"python": platform.python_version(), "platform": system, **versions}


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:  # such as opencv-python, where its headless twin is installed
        return "absent"
