"""How far is each generator's gaze from real gaze, and how sure is that? The paper's figure 1 as a measurement.

The distance is that of Heusel et al. (2017) between Gaussians, here of gaze and not of image features; null, correction,
interval and tests are in ``two_samples``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from dfad_bench.analysis.gaze_preservation import Preservation, preservation
from dfad_bench.analysis.gaze_samples import UNITS, GazeFaces, Measuring, Sides, Space, choose_sides, real_domains
from dfad_bench.analysis.two_samples import RealNull, TwoSample, compare_samples, real_null
from dfad_bench.errors import DataError
from dfad_bench.records.categorical import Rows
from dfad_bench.records.gaze_fid import (
    DistanceRecord,
    DomainRow,
    FamilyDifferenceRow,
    GazeFidReport,
    GeneratorRow,
    MeasuringRecord,
    PreservationRow,
)
from dfad_bench.types import REAL

OnProgress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class GazeFidOptions:
    """What to measure and how: the space, at most how many faces a side, reals of the same domain or all, resamples, seed."""

    space: Space = "angles"
    most: int = 10_000
    every_domain: bool = False
    resamples: int = 1000
    seed: int = 0


def gaze_fid(
    faces: GazeFaces, generators: Sequence[str], options: GazeFidOptions, on_progress: OnProgress | None = None
) -> tuple[GazeFidReport, dict[str, Sides]]:
    """Measure each generator against reals, and the reals of every two domains against each other.

    Also returned: which faces stood on the two sides of each generator, for pictures. A generator that cannot be measured
    has a reason instead of a distance. The same faces give the same numbers in any order.
    """
    chosen: dict[str, Sides] = {}
    nulls: dict[tuple[object, ...], RealNull] = {}
    rows = []
    for done, generator in enumerate(generators):
        if on_progress is not None:
            on_progress(done, len(generators))
        family, forgery_type = faces.labels[generator]
        labels = {"generator": generator, "family": family, "forgery_type": forgery_type}
        try:
            sides = choose_sides(
                faces, generator, most=options.most, seed=options.seed, every_domain=options.every_domain
            )
            _check_enough(faces, sides, generator, options.space)
            chosen[generator] = sides
            distance = _compare(faces, sides.real, sides.fake, options, _null(faces, sides, options, nulls))
        except DataError as error:
            rows.append(GeneratorRow(**labels, reason=str(error)))
            continue
        rows.append(
            GeneratorRow(
                **labels,
                domains=list(sides.domains),
                measuring=_record(sides.measuring),
                fakes_without_gaze=sides.fakes_without_gaze,
                reals_without_gaze=sides.reals_without_gaze,
                distance=distance,
            )
        )
    kept = preservation(faces, generators, resamples=options.resamples, seed=options.seed)
    report = GazeFidReport(
        space=options.space,
        unit=UNITS[options.space],
        sources=[manifest.name for manifest in faces.manifests],
        reals="all" if options.every_domain else "same_domain",
        most=options.most,
        resamples=options.resamples,
        seed=options.seed,
        generators=rows,
        domains=list(_between_domains(faces, options)),
        preserved=[_preserved(name, faces.labels[name][0], each) for name, each in kept.generators.items()],
        preserved_by_family=[_preserved(name, name, each) for name, each in kept.families.items()],
        family_differences=[FamilyDifferenceRow(**asdict(each)) for each in kept.differences],
    )
    return report, chosen


def _check_enough(faces: GazeFaces, sides: Sides, generator: str, space: Space) -> None:
    """Raise DataError where a side has no more faces than the space has numbers: a covariance would be singular."""
    numbers = faces.values(space, sides.fake[:1]).shape[1]
    if len(sides.fake) <= numbers:
        raise DataError(
            f"{generator}: {len(sides.fake)} faces a side in a space of {numbers} numbers; more faces than numbers are needed."
        )


def _compare(
    faces: GazeFaces, real: Rows, fake: Rows, options: GazeFidOptions, null: RealNull | None
) -> DistanceRecord:
    found: TwoSample = compare_samples(
        faces.values(options.space, real),
        faces.values(options.space, fake),
        faces.cluster[real],
        faces.cluster[fake],
        resamples=options.resamples,
        seed=options.seed,
        null=null,
    )
    values = asdict(found)
    return DistanceRecord(**{**values, "flags": list(found.flags)})


def _null(
    faces: GazeFaces, sides: Sides, options: GazeFidOptions, nulls: dict[tuple[object, ...], RealNull]
) -> RealNull:
    """Return how far halves of the reals of these domains lie apart; the same for all generators of as many faces."""
    key = (sides.domains, sides.measuring, len(sides.fake))
    if key not in nulls:
        measuring = faces.measurings.index(sides.measuring)
        wanted = np.isin(
            faces.domain.code,
            [faces.domain.values.index(name) for name in sides.domains if name in faces.domain.values],
        )
        reals = np.flatnonzero(faces.generator.is_(REAL) & wanted & (faces.measuring == measuring) & faces.has_gaze)
        nulls[key] = real_null(
            faces.values(options.space, reals),
            faces.cluster[reals],
            len(sides.fake),
            resamples=options.resamples,
            seed=options.seed,
        )
    return nulls[key]


def _between_domains(faces: GazeFaces, options: GazeFidOptions) -> list[DomainRow]:
    rows = []
    for domain, other, measuring, first, second in real_domains(faces, most=options.most, seed=options.seed):
        where = {"domain": domain, "other": other, "measuring": _record(measuring)}
        try:
            rows.append(DomainRow(**where, distance=_compare(faces, first, second, options, None)))
        except DataError as error:
            rows.append(DomainRow(**where, reason=str(error)))
    return rows


def _record(measuring: Measuring) -> MeasuringRecord:
    return MeasuringRecord(**asdict(measuring))


def _preserved(name: str, family: str, found: Preservation) -> PreservationRow:
    return PreservationRow(name=name, family=family, **asdict(found))
