"""Checks what is sent to the leaderboard: a result that its predictions give, on the faces of its protocol, and no more."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dfad_bench import registry
from dfad_bench.config import file_sha256
from dfad_bench.errors import DataError, DfadError, shorten
from dfad_bench.publish import leaderboard
from dfad_bench.publish.sendable import SENT, unsafe_predictions, unsafe_texts
from dfad_bench.records.predictions import VAL, Predictions, read_predictions
from dfad_bench.records.protocol import Protocol, load_protocol
from dfad_bench.records.results import Result, read_result, same_score
from dfad_bench.scoring.score import Options, score

OnProgress = Callable[[int, int | None], None]

RESULT, PREDICTIONS = "result.json", "predictions.parquet"
_DEEPEST = 20
"""Brackets within brackets; a result has six."""
LEADERBOARD = Options()
"""How every result of the leaderboard is scored."""
_MOST_TOLD = 5
_LAST_BITS = 1e-9


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a file may not stand on the leaderboard as it is, and what to do about it."""

    path: Path
    told: str

    def __str__(self) -> str:
        """Return one line that names the file."""
        return f"{self.path}: {self.told}"


def predictions_beside(result: Path) -> Path:
    """Return where the predictions of a result lie: ``predictions.parquet`` of a run, ``<model>.parquet`` of a submission."""
    return result.with_name(PREDICTIONS) if result.name == RESULT else result.with_suffix(".parquet")


# --- recomputing ---------------------------------------------------------------------------------------------------


def recomputed(result: Result, predictions: Path, on_progress: OnProgress | None = None) -> list[str]:
    """Return in what a result differs from the scores that its predictions give, a line each; an empty list: in nothing.

    Raises DataError where the predictions cannot be trusted.
    """
    if file_sha256(predictions) != result.predictions.sha256:
        return [f"{predictions.name} is not the file that the result was computed from"]
    return _differences(result, read_predictions(predictions), predictions.name, on_progress)


def _differences(result: Result, predictions: Predictions, name: str, on_progress: OnProgress | None) -> list[str]:
    recorded = result.scoring
    options = Options(recorded.resamples, recorded.cluster_by, recorded.pooling, recorded.seed)
    report = score(predictions, options, on_progress)
    differing = [
        f"{one.task} {one.metric} of {one.subset} {one.group} ({one.level}, {one.unit}) is {one.value}, "
        f"recomputed from {name} it is {again.value}"
        for one, again in zip(result.scores, report.scores, strict=False)
        if not same_score(one, again)
    ]
    if len(report.scores) != len(result.scores):
        differing.append(f"it holds {len(result.scores)} scores, recomputed from {name} there are {len(report.scores)}")
    for what, one, again in (
        ("how it was scored", recorded, report.scoring),
        ("its confusion matrices and curves", result.details, report.details),
    ):
        if not _same(one.model_dump(), again.model_dump()):
            differing.append(f"{what} is recorded otherwise than recomputed from {name}")
    return differing


def _same(one: Any, other: Any) -> bool:
    """Return whether two records are the same but for the last bits of their numbers."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= _LAST_BITS
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


# --- checking ------------------------------------------------------------------------------------------------------


def check_submission(
    files: Sequence[Path], on_progress: OnProgress | None = None, results: Path | None = None
) -> list[Problem]:
    """Return everything that keeps results, and the predictions beside them, from the leaderboard.

    files: ``<protocol>/<model>.json`` and ``<protocol>/<model>.parquet``, in any number; either stands for both. results:
    the results they are to join, None for the folder that they lie in. Every score is computed again, where there are
    predictions; ``not_recomputed`` says where there are none. Nothing that a file holds is run or followed, and nothing
    that is wrong with one raises.
    """
    found = []
    wanted: dict[Path, None] = {}
    for path in files:
        if path.suffix not in (".json", ".parquet"):
            found.append(Problem(path, "is neither a result nor its predictions: take it away"))
        elif path.suffix == ".parquet" and not path.with_suffix(".json").is_file():
            found.append(Problem(path, f"has no {path.stem}.json beside it: send the result too, or take it away"))
        else:
            wanted[path.with_suffix(".json")] = None
    for path in wanted:
        found += [Problem(path, told) for told in _problems(path, results or path.parent.parent, on_progress)]
    return found


def not_recomputed(files: Sequence[Path]) -> list[Path]:
    """Return the results among files that have no predictions beside them, as ``leaderboard add`` leaves its own.

    What they say of themselves is checked, and that their faces and protocol are those of the others; their scores are not.
    """
    results = {path.with_suffix(".json") for path in files if path.suffix in (".json", ".parquet")}
    return sorted(path for path in results if path.is_file() and not predictions_beside(path).is_file())


def lost_predictions(files: Sequence[Path], before: Path) -> list[Problem]:
    """Return the results that had predictions in the results ``before`` and have none now: they could be recomputed once."""
    return [
        Problem(
            path, f"{predictions_beside(path).name} is gone, which its scores were recomputed from: send the new run's"
        )
        for path in not_recomputed(files)
        if predictions_beside(before / path.parent.name / path.name).is_file()
    ]


def _problems(path: Path, results: Path, on_progress: OnProgress | None) -> Iterator[str]:
    predictions = predictions_beside(path)
    linked = [each for each in (path.parent, path, predictions) if each.is_symlink()]
    if linked:
        yield f"{linked[0].name} is a link: put the file itself there"
        return
    try:
        result = read_strictly(path)
        with tempfile.TemporaryDirectory() as folder:
            leaderboard.place(path, Path(folder))
    except (DfadError, OSError) as error:
        yield _told(error, path)
        return
    expected = Path(result.protocol.name, f"{result.model.name}.json")
    if path.parts[-2:] != expected.parts:
        yield f"holds {result.model.name} on {result.protocol.name}, so it must be called {expected}"
    yield from ineligible(result)
    scored_otherwise = _scored_otherwise(result)
    yield from scored_otherwise
    yield from unsafe_texts(_leaves(result.model_dump(mode="json")))
    protocol, told = _registered(result)
    yield from told
    yield from _other_faces(result, path, results)
    if not predictions.is_file():
        return  # see not_recomputed
    unsafe = list(unsafe_predictions(predictions))
    yield from unsafe
    if unsafe:
        return
    try:
        read = read_predictions(predictions)
        yield from _contradictions(result, read, protocol)
        yield from _other_labels(result, predictions, path, results)
        if file_sha256(predictions) != result.predictions.sha256:
            yield f"{predictions.name} is not the file that it was computed from: its sha256 is another"
        elif not scored_otherwise:
            yield from _shortened(_differences(result, read, predictions.name, on_progress))
    except (DfadError, OSError, RecursionError) as error:
        yield _told(error, predictions)


def _told(error: Exception, path: Path) -> str:
    """Return what an error says without the path that a problem names already."""
    return " ".join(str(error).split()).removeprefix(str(path)).lstrip(": ")


def _shortened(told: Sequence[str]) -> list[str]:
    rest = len(told) - _MOST_TOLD
    return [*told[:_MOST_TOLD], *([f"and {rest} more numbers are not as recomputed"] if rest > 0 else [])]


def read_strictly(path: Path) -> Result:
    """Return a result; raise DataError for what JSON leaves open, too: a key that is there twice, NaN, endless nesting."""

    def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) < len(keys):
            raise DataError(f"{path} says {next(key for key in keys if keys.count(key) > 1)!r} twice.")
        return dict(pairs)

    def refuse(constant: str) -> None:
        raise DataError(f"{path} holds {constant}, which is no number of JSON.")

    if not path.is_file():
        raise DataError(f"{path} is not there.")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    except (RecursionError, ValueError) as error:
        raise DataError(f"{path} is not valid JSON: {error}.") from None
    if any(isinstance(each, float) and not math.isfinite(each) for each in _leaves(stored)):
        raise DataError(f"{path} holds a number that is not finite.")
    return read_result(path)


def _leaves(stored: Any, depth: int = 0) -> Iterator[Any]:
    """Yield every key of parsed JSON, and every value that holds no others; raise DataError for a tower of brackets."""
    if depth > _DEEPEST:
        raise DataError(f"It is nested more than {_DEEPEST} deep.")
    if isinstance(stored, dict):
        yield from stored
        stored = list(stored.values())
    if isinstance(stored, list):
        for each in stored:
            yield from _leaves(each, depth + 1)
    else:
        yield stored


def ineligible(result: Result) -> list[str]:
    """Return why a result may not stand on the leaderboard: what it says itself, and what its other entries say."""
    found = [f"it may not stand on the leaderboard: {reason}" for reason in result.ineligible]
    if found:
        return found
    limit, skipped = result.config.get("limit"), result.counts.skipped
    derived = {
        "the code had changes that are not committed: commit them and run it again": bool(result.code.dirty),
        f"it was limited to {limit} faces per generator: run it without --limit": limit is not None,
        "it is incomplete: faces were left out": bool(skipped) or result.counts.evaluated < result.counts.declared,
        "its faces were perturbed": result.perturbation is not None,
        "its numbers were reported, not measured": result.origin != "measured",
        "its model is a local file: register the model first": " (file sha256:" in result.model.origin,
    }
    return [reason for reason, holds in derived.items() if holds]


def _scored_otherwise(result: Result) -> list[str]:
    """Return where intervals were not computed as those of all others: seed and clusters can be chosen to please."""
    return [
        f"it was scored with {name.replace('_', ' ')} {getattr(result.scoring, name)}, the leaderboard's is "
        f"{getattr(LEADERBOARD, name)}: send what 'dfad-bench run' wrote"
        for name in ("resamples", "cluster_by", "seed")
        if getattr(result.scoring, name) != getattr(LEADERBOARD, name)
    ]


def _registered(result: Result) -> tuple[Protocol | None, list[str]]:
    """Return the registered protocol of a result, None where there is not this one, and in what the two disagree."""
    told = result.protocol
    if told.name not in registry.entries("protocols"):
        return None, [f"its protocol {told.name} is not registered: add protocols/{told.name}.yaml first"]
    protocol = load_protocol(told.name)
    if protocol.version != told.version:
        return None, [
            f"it is of version {told.version} of {told.name}, which is at version {protocol.version}: run it again"
        ]
    differing = [name for name in ("origin", "warning") if getattr(protocol, name) != getattr(told, name)]
    found = [f"its {' and '.join(differing)} are not those of protocol {told.name}: run it again"] if differing else []
    if protocol.expect.fingerprint not in (None, told.fingerprint):
        found.append(
            f"its faces are not those that {told.name} was published with: {told.fingerprint} where "
            f"{protocol.expect.fingerprint} is expected"
        )
    return protocol, found


def _siblings(path: Path, result: Result, results: Path) -> Iterator[tuple[Path, Result]]:
    """Yield the other results of the same version of a protocol that can be read."""
    for other in sorted((results / result.protocol.name).glob("*.json")):
        if other.name == path.name or other.is_symlink():
            continue
        try:
            read = read_strictly(other)
        except (DfadError, OSError):
            continue  # no witness: `leaderboard build` refuses it, whatever this check says
        if (read.protocol.name, read.protocol.version) == (result.protocol.name, result.protocol.version):
            yield other, read


def _other_faces(result: Result, path: Path, results: Path) -> Iterator[str]:
    mine = result.protocol.fingerprint
    others = [other.stem for other, read in _siblings(path, result, results) if read.protocol.fingerprint != mine]
    if others:
        yield (
            f"its faces are not those of {shorten(others)} on {result.protocol.name} v{result.protocol.version} "
            f"(its fingerprint is {mine}): prepare the data as they did, or run them again too"
        )


def _other_labels(result: Result, predictions: Path, path: Path, results: Path) -> Iterator[str]:
    """Yield where faces or labels differ from those of another result on the same faces: a label decides what is right."""
    mine = _labels(predictions)
    for other, read in _siblings(path, result, results):
        theirs = predictions_beside(other)
        if read.protocol.fingerprint != result.protocol.fingerprint or theirs.is_symlink() or not theirs.is_file():
            continue
        if file_sha256(theirs) != read.predictions.sha256:
            continue
        if not mine.equals(_labels(theirs)):
            yield f"{predictions.name} names other faces than {theirs.name} does, or labels them otherwise"
        return  # all others agree with this one, or were refused


def _labels(predictions: Path) -> pa.Table:
    names = [name for name in SENT if name not in ("fake_score", "logits")]
    return pq.read_table(predictions, columns=names).sort_by([("id", "ascending"), ("subset", "ascending")])


def _contradictions(result: Result, predictions: Predictions, protocol: Protocol | None) -> Iterator[str]:
    """Yield in what a result, its predictions and its protocol disagree."""
    context, counts = predictions.context, result.counts
    tested = int((~predictions.subset.is_(VAL)).sum())
    pairs = {
        "model": (context.model, result.model.name),
        "seed": (context.seed, result.seed),
        "protocol": (context.protocol, result.protocol.name),
        "version of the protocol": (context.protocol_version, result.protocol.version),
        "fingerprint": (context.protocol_fingerprint, result.protocol.fingerprint),
        "warning": (context.protocol_warning, result.protocol.warning),
        "perturbation": (context.perturbation, result.perturbation),
        "number of declared faces": (context.declared, counts.declared),
        "faces left out": (context.skipped, counts.skipped),
        "number of rows": (len(predictions), result.predictions.rows),
        "number of tested faces": (tested, counts.evaluated),
    }
    for what, (in_predictions, in_result) in pairs.items():
        if in_predictions != in_result:
            yield f"its {what} is {in_result}, that of its predictions {in_predictions}"
    if protocol is None:
        return
    if differing := [name for name, rule in _rules(protocol).items() if getattr(context, name) != rule]:
        yield f"its predictions were scored by other rules than protocol {protocol.name} has: {', '.join(differing)}"
    if result.scoring.pooling != protocol.detection.pooling:
        yield f"videos were pooled by {result.scoring.pooling}, protocol {protocol.name} says {protocol.detection.pooling}"


def _rules(protocol: Protocol) -> dict[str, Any]:
    """Return what a protocol says that the footer of predictions repeats."""
    return {
        "levels": protocol.attribution.levels,
        "assume": protocol.attribution.assume,
        "reals": protocol.detection.reals,
        "pooling": protocol.detection.pooling,
        "subsets": {name: subset.report_by for name, subset in protocol.test.items()},
    }
