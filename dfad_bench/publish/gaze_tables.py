"""Gaze-FID as tables of plain cells, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from dfad_bench.publish.tables import NONE, Notes, Table
from dfad_bench.records.gaze_fid import DistanceRecord, GazeFidReport, MeasuringRecord, PreservationRow

SIGNIFICANT = 0.05


def gaze_tables(report: GazeFidReport) -> list[Table]:
    """Return the distance of each generator, of real domains from each other, and how well targets' gaze is kept."""
    tables = [_generators(report)]
    if report.domains:
        tables.append(_domains(report))
    if report.preserved:
        tables.append(_preserved(report))
    return tables


def _generators(report: GazeFidReport) -> Table:
    notes = Notes()
    rows = []
    for each in report.generators:
        names = (each.generator, f"{each.forgery_type} {each.family}")
        if each.distance is None:
            rows.append((*names, f"{NONE} {notes.mark((each.reason or 'undefined').rstrip('.'))}", *[NONE] * 9))
            continue
        found = each.distance
        rows.append((*names, *_numbers(found, notes), _left_out(each.fakes_without_gaze, each.reals_without_gaze)))
    unit = report.unit if report.unit != "1" else "no unit"
    against = "reals of the same domains" if report.reals == "same_domain" else "all reals"
    meaning = [
        f"FID: Fréchet distance of gaze ({report.space}) from {against}, as many on both sides, chosen by hash; in {unit}.",
        "corrected: less what samples of this size add, about 0 (also below) where nothing differs; its 95 % interval is of "
        "the distance between the populations. null 95 %: the real-versus-real distance that 1 of 20 exceeds.",
        "p: by permutation of people and videos, or by resamples where those of the two sides are too unlike. KID has no "
        "unit; energy is in the unit of the gaze.",
        *_measured_by([each.measuring for each in report.generators if each.measuring is not None]),
    ]
    columns = (
        *("generator", "kind", "FID", "corrected [95 %]", "null 95 %", "p", "KID (p)", "energy (p)"),
        *("N each", "clusters real, fake", "limits", "without gaze fake, real"),
    )
    return Table(f"gaze-FID, {report.space}", columns, tuple(rows), (*notes.lines(), *meaning))


def _numbers(found: DistanceRecord, notes: Notes) -> tuple[str, ...]:
    limits = " ".join(notes.mark(flag) for flag in found.flags)
    return (
        _short(found.frechet),
        f"{_short(found.corrected)} [{_short(found.low)}, {_short(found.high)}]",
        _short(found.null_p95),
        f"{found.p:.3f}",
        f"{found.kid:.2f} ({found.kid_p:.3f})",
        f"{_short(found.energy)} ({found.energy_p:.3f})",
        f"{found.candidate_faces:,}",
        f"{found.reference_clusters:,}, {found.candidate_clusters:,}",
        limits or NONE,
    )


def _short(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"


def _left_out(fakes: int, reals: int) -> str:
    return f"{fakes:,}, {reals:,}"


def _measured_by(found: Sequence[MeasuringRecord]) -> list[str]:
    told = dict.fromkeys(
        f"Gaze by {m.estimator}{f' ({m.estimator_sha256[:12]})' if m.estimator_sha256 else ''}, faces by {m.face_detector}, "
        f"crops of {m.size} px, margin {m.margin:g}{', aligned' if m.align else ''}."
        for m in found
    )
    more = ["Values that were measured differently are not to be compared."] if len(told) > 1 else []
    return [*told, *more]


def _domains(report: GazeFidReport) -> Table:
    notes = Notes()
    rows = []
    for each in report.domains:
        if each.distance is None:
            why = notes.mark((each.reason or "undefined").rstrip("."))
            rows.append((each.domain, each.other, f"{NONE} {why}", *[NONE] * 8))
        else:
            rows.append((each.domain, each.other, *_numbers(each.distance, notes)))
    columns = (
        *("domain", "other", "FID", "corrected [95 %]", "null 95 %", "p", "KID (p)", "energy (p)"),
        *("N each", "clusters", "limits"),
    )
    meaning = "Real faces of one domain against those of another: photographs may differ as much as fakes do."
    return Table("real against real, between domains", columns, tuple(rows), (*notes.lines(), meaning))


def _preserved(report: GazeFidReport) -> Table:
    notes = Notes()
    rows = [(each.name, each.family, *_deviation(each, notes)) for each in report.preserved]
    rows += [("all of the family", each.family, *_deviation(each, notes)) for each in report.preserved_by_family]
    told = [
        f"{each.family} − {each.other}: {each.difference:+.1f}°"
        + (
            f" [{each.low:+.1f}, {each.high:+.1f}]."
            if each.low is not None and each.high is not None
            else ", no interval."
        )
        for each in report.family_differences
    ]
    columns = ("generator", "family", "median deviation ° [95 %]", "by chance °", "pairs", "clusters", "unpaired")
    meaning = (
        "The angle between a fake's gaze and that of the real face it was made from (same person, same frame). by chance: "
        "between fakes and the reals that others were made from."
    )
    return Table("gaze kept from the target", columns, tuple(rows), (*notes.lines(), meaning, *told))


def _deviation(each: PreservationRow, notes: Notes) -> tuple[str, ...]:
    interval = f" {notes.mark(f'no interval: {each.no_interval}')}" if each.no_interval else ""
    if each.low is not None and each.high is not None:
        interval = f" [{each.low:.1f}, {each.high:.1f}]"
    return (
        f"{each.median:.1f}{interval}",
        f"{each.by_chance:.1f}",
        str(each.pairs),
        str(each.clusters),
        str(each.unpaired),
    )


def gaze_csv(report: GazeFidReport) -> str:
    """Return one line per generator with every number; what there is not is empty."""
    numbers = [name for name in DistanceRecord.model_fields if name != "flags"]
    columns = ["generator", "forgery_type", "family", "domains", "space", "unit", "estimator", "estimator_sha256"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, "fakes_without_gaze", "reals_without_gaze", *numbers, "flags", "reason"])
    for each in report.generators:
        found, how = each.distance, each.measuring
        writer.writerow(
            [
                *(each.generator, each.forgery_type, each.family, " ".join(each.domains), report.space, report.unit),
                *(("", "") if how is None else (how.estimator, how.estimator_sha256 or "")),
                *(each.fakes_without_gaze, each.reals_without_gaze),
                *("" if found is None else getattr(found, name) for name in numbers),
                "" if found is None else "; ".join(found.flags),
                each.reason or "",
            ]
        )
    return text.getvalue()
