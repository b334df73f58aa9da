"""Published weights files: fetches them once, believes none whose sha256 is not the published one, and lists them all."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dfad_bench import registry
from dfad_bench.config import OFFLINE, file_sha256, home_dir, weights_dir
from dfad_bench.errors import DataError, DfadError, WeightsMissing
from dfad_bench.types import WeightsFile

_CHUNK = 1 << 20
_TIMEOUT = 30.0
"""Seconds without a byte after which a download is given up."""
_MOST = 4 << 30
"""Bytes after which a download of unpublished size is given up."""

OnBytes = Callable[[int, int | None], None]
"""Called with the bytes that have arrived and those expected, None where the size is not published."""


def _silently(label: str) -> AbstractContextManager[OnBytes]:
    return nullcontext(lambda arrived, total: None)


_report: Callable[[str], AbstractContextManager[OnBytes]] = _silently


def report_downloads(report: Callable[[str], AbstractContextManager[OnBytes]]) -> None:
    """Let every download of this process that is not watched otherwise show its progress: ``report(label)`` opens a bar."""
    global _report
    _report = report


def forbid_downloads() -> None:
    """Let no fetch in this process, or in one that it starts, go to the network."""
    os.environ[OFFLINE] = "1"
    os.environ["HF_HUB_OFFLINE"] = "1"


def find(weights: WeightsFile) -> Path | None:
    """Return where a file of that name lies on this machine, unverified: in DFAD_BENCH_WEIGHTS, then in the cache."""
    for folder in (weights_dir(), _cache()):
        if folder is not None and (folder / weights.name).is_file():
            return folder / weights.name
    return None


def fetch(weights: WeightsFile, offline: bool = False, on_progress: OnBytes | None = None) -> Path:
    """Return the path of a published weights file whose sha256 is verified, downloading it if need be.

    It is looked for by name in the folder that DFAD_BENCH_WEIGHTS names, then in the cache; ``offline``, or the
    environment variable DFAD_BENCH_OFFLINE, stops there. Raises DataError, in one line that says what to do, for a file
    that is not the published one and for one that cannot be had.
    """
    found, cache = find(weights), _cache()
    if found is not None:
        return _verified(found, weights)
    if offline or os.environ.get(OFFLINE):
        raise _unavailable(weights, cache, "it is not on this machine and downloads are off")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{weights.name}.", suffix=".part", dir=cache)
    except OSError as error:
        raise DataError(
            f"{cache.absolute()} cannot be written ({error.strerror}), so {weights.name} cannot be kept. "
            "Let the environment variable DFAD_BENCH_HOME name a folder that can."
        ) from None
    os.close(descriptor)
    part = Path(name)
    try:
        with _report(f"downloading {weights.name}") if on_progress is None else nullcontext(on_progress) as watch:
            _download(weights, part, cache, watch)
        _verified(part, weights)
        part.chmod(0o644)  # a temporary file is its maker's alone, a cache may be shared
        part.replace(cache / weights.name)
    finally:
        part.unlink(missing_ok=True)
    return cache / weights.name


def fetch_any(choices: Sequence[WeightsFile]) -> tuple[Path, WeightsFile]:
    """Return the first of several interchangeable files that is on this machine, or else fetch the first of them."""
    chosen = next((weights for weights in choices if find(weights) is not None), choices[0])
    return fetch(chosen), chosen


def joint_sha256(weights: Sequence[WeightsFile]) -> str:
    """Return one hash for files that are used together: the file's own, or the sha256 of their hashes, one a line."""
    if len(weights) == 1:
        return weights[0].sha256
    return hashlib.sha256("\n".join(each.sha256 for each in weights).encode()).hexdigest()


def _cache() -> Path:
    return home_dir() / "weights"


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only; urllib's own would also go to ftp."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.HTTPError(req.full_url, code, f"it redirects to {newurl!r}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(weights: WeightsFile, part: Path, cache: Path, on_progress: OnBytes) -> None:
    if urlsplit(weights.url).scheme not in ("http", "https"):
        raise DataError(f"{weights.name}: {weights.url!r} is not an http or https address.")
    arrived, most = 0, _MOST if weights.bytes is None else weights.bytes
    try:
        with (
            urllib.request.build_opener(_WebOnly).open(weights.url, timeout=_TIMEOUT) as response,
            part.open("wb") as file,
        ):
            promised = weights.bytes if weights.bytes is not None else response.length
            while arrived <= most and (chunk := response.read(_CHUNK)):
                file.write(chunk)
                arrived += len(chunk)
                on_progress(arrived, promised)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise _unavailable(weights, cache, " ".join(str(error).split()) or type(error).__name__) from None
    if arrived > most or arrived < (promised or 0):
        more = "more than" if arrived > most else f"{arrived} of"
        raise _unavailable(weights, cache, f"{more} {most if arrived > most else promised} bytes arrived")


def _unavailable(weights: WeightsFile, cache: Path, why: str) -> WeightsMissing:
    return WeightsMissing(
        f"{weights.name} could not be downloaded ({why}). Get it from {weights.url} and put it in {cache.absolute()}, "
        "or in the folder that the environment variable DFAD_BENCH_WEIGHTS names."
    )


def _verified(path: Path, weights: WeightsFile) -> Path:
    found = file_sha256(path)
    if found != weights.sha256:
        where = f"What {weights.url} sent" if path.suffix == ".part" else str(path)
        known = next((reason for start, reason in weights.refused.items() if found.startswith(start)), None)
        told = f"it is refused: {known}" if known else f"its sha256 is {found}, expected {weights.sha256}"
        raise DataError(
            f"{where} is not the published {weights.name}: {told}. Remove it, and get the file from {weights.url}."
        )
    return path


# --- what there is -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Published:
    """A weights file and the plugin that uses it; ``problem`` instead of a file where the plugin cannot be imported."""

    kind: str
    plugin: str
    weights: WeightsFile | None
    problem: str | None = None


def published() -> list[Published]:
    """Return every weights file that a registered plugin names. Unlike other listings this imports the plugins."""
    found = []
    for kind in ("face_detectors", "gaze_estimators", "models"):
        for name in registry.entries(kind):
            singular = registry.KINDS[kind].singular
            try:
                files = list(_files_of(registry.get(kind, name)))
            except (ImportError, DfadError) as error:
                found.append(Published(singular, name, None, " ".join(str(error).split())))
                continue
            found += [Published(singular, name, weights) for weights in files]
    return found


def _files_of(plugin: Any) -> Iterator[WeightsFile]:
    yield from getattr(plugin, "weights", ())  # of a detector or an estimator
    yield from getattr(plugin, "backbone_weights", {}).values()  # of a model
