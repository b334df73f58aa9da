"""Holds plugins against their contracts and files against their promises; each check returns what is wrong, line by line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dfad_bench import registry
from dfad_bench.errors import DfadError, UsageError
from dfad_bench.interfaces import Engine

Bar = Callable[[int, int | None], None]


def _model(target: str, root: Path | None, data: Path, bar: Bar, engine: Engine) -> list[str]:
    from dfad_bench.testing import check_model

    return _broken(lambda: check_model(registry.get("models", target)))


def _perturbation(target: str, root: Path | None, data: Path, bar: Bar, engine: Engine) -> list[str]:
    from dfad_bench.testing import check_perturbation

    return _broken(lambda: check_perturbation(registry.get("perturbations", target)))


def _metric(target: str, root: Path | None, data: Path, bar: Bar, engine: Engine) -> list[str]:
    from dfad_bench.testing import check_metric

    return _broken(lambda: check_metric(registry.get("metrics", target)))


def _source(target: str, root: Path | None, data: Path, bar: Bar, engine: Engine) -> list[str]:
    from dfad_bench.prepare.options import build_source, check_root
    from dfad_bench.testing import check_source

    source = build_source(target, [])
    check_root(source, root)
    return _broken(lambda: check_source(source, root))


def _protocol(target: str, root: Path | None, data: Path, bar: Bar, engine: Engine) -> list[str]:
    """A protocol that cannot be read is a problem; where its sources are prepared, its faces are selected too."""
    from dfad_bench.records.protocol import load_protocol
    from dfad_bench.records.selection import open_manifests, resolve

    def select() -> None:
        protocol = load_protocol(target)
        if all((data / name / "metadata.parquet").is_file() for name in protocol.sources):
            resolve(protocol, open_manifests(protocol, data))

    return _broken(select)


def _manifest(target: str, root: Path | None, data: Path, bar: Bar, engine: Engine) -> list[str]:
    from dfad_bench.prepare.verify import verify_manifest

    return verify_manifest(data / target if (data / target).is_dir() else Path(target), bar, engine)


def _predictions(target: str, root: Path | None, data: Path, bar: Bar, engine: Engine) -> list[str]:
    from dfad_bench.records.predictions import read_predictions

    return _broken(lambda: read_predictions(Path(target)))


def _result(target: str, root: Path | None, data: Path, bar: Bar, engine: Engine) -> list[str]:
    """Recompute a result's scores from the predictions beside it."""
    from dfad_bench.publish.submission import predictions_beside, recomputed
    from dfad_bench.records.results import read_result

    path = Path(target)
    result, predictions = read_result(path), predictions_beside(path)
    if not predictions.is_file():
        raise UsageError(f"{path} has no {predictions.name} beside it to recompute its scores from.")
    return recomputed(result, predictions, bar)


def _broken(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except (AssertionError, DfadError) as error:
        return [str(error)]
    return []


CHECKS: dict[str, Callable[[str, Path | None, Path, Bar, Engine], list[str]]] = {
    "model": _model,
    "perturbation": _perturbation,
    "metric": _metric,
    "source": _source,
    "protocol": _protocol,
    "manifest": _manifest,
    "predictions": _predictions,
    "result": _result,
}
"""Each takes a target, a source's root, the data folder, a progress function and the engine that does what takes long."""
