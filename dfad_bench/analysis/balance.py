"""Counts what a manifest holds and what it lost, by generator, and tells where generators differ from reals in it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import sqrt

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dfad_bench.analysis.shortcut import MIN_FACES
from dfad_bench.config import Strict
from dfad_bench.errors import DataError, shorten
from dfad_bench.records.manifest import SKIPPED, Manifest
from dfad_bench.types import REAL

SKIPPED_SHARE = 0.1
"""A generator that lost this share of its inputs is pointed out: what is left may be the easy part."""
DIFFERENT_SHARE = 0.1
"""Shares of a generator and of the reals that lie this far apart, beyond chance, are pointed out."""
BEYOND_CHANCE = 4.0
"""Standard errors by which two shares must differ: of hundreds of comparisons none then does so by chance."""
LOPSIDED = 10
"""A split with so many times more of reals or of fakes is pointed out."""
SHARPER = 2.0
"""A generator whose median sharpness is so many times that of the reals, or so many times less, is pointed out."""
CUT_OFF = 0.05
"""A face counts as cut off where more of its box than this lies outside the image."""
NO_SPLIT = "no split"


class GeneratorBalance(Strict):
    """How many faces a generator has, in each split of the source, and what is the matter with some.

    ``enlarged``: crop_scale > 1, so that the face's pixels are interpolated; ``cut_off``: more of the face lies outside the
    image than CUT_OFF; ``gaze_flags``: faces without gaze by the reason given; ``skipped``: inputs without a face, by
    reason; ``sharpness``: the median of the column, None without faces.
    """

    generator: str
    faces: int
    by_split: dict[str, int]
    enlarged: int
    cut_off: int
    without_gaze: int
    without_identity: int
    gaze_flags: dict[str, int]
    sharpness: float | None
    skipped: dict[str, int]

    @property
    def inputs(self) -> int:
        """Faces and what was skipped."""
        return self.faces + sum(self.skipped.values())


def read_skipped(manifest: Manifest) -> dict[str, Counter[str]]:
    """Return {generator: {reason: inputs}} from the table beside the manifest; nothing where there is none.

    Raises DataError where it cannot be read.
    """
    path = manifest.root / SKIPPED
    if not path.is_file():
        return {}
    skipped: dict[str, Counter[str]] = defaultdict(Counter)
    try:
        rows = pq.read_table(path, columns=["generator", "reason"]).group_by(["generator", "reason"])
        for row in rows.aggregate([([], "count_all")]).to_pylist():
            skipped[row["generator"]][row["reason"]] = row["count_all"]
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error}). Prepare the source again.") from None
    return skipped


def count_balance(table: pa.Table, skipped: Mapping[str, Mapping[str, int]]) -> list[GeneratorBalance]:
    """Count faces by generator, reals first; a generator whose every input was skipped is counted too."""
    flags = pa.table(
        {
            "generator": table["generator"],
            "split": pc.fill_null(table["source_split"], NO_SPLIT),
            "enlarged": pc.cast(pc.greater(table["crop_scale"], 1.0), pa.int64()),
            "cut_off": pc.cast(pc.greater(table["cut_off"], CUT_OFF), pa.int64()),
            "gaze": pc.cast(pc.or_(table["gaze_pitch"].is_null(), table["gaze_yaw"].is_null()), pa.int64()),
            "identity": pc.cast(pc.equal(pc.list_value_length(table["identities"]), 0), pa.int64()),
        }
    )
    sums = [(name, "sum") for name in ("enlarged", "cut_off", "gaze", "identity")]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    splits: dict[str, dict[str, int]] = defaultdict(dict)
    for row in flags.group_by(["generator", "split"]).aggregate([([], "count_all"), *sums]).to_pylist():
        generator = row.pop("generator")
        splits[generator][row.pop("split")] = row["count_all"]
        counts[generator].update(row)
    gaze: dict[str, dict[str, int]] = defaultdict(dict)
    flagged = table.select(["generator", "gaze_flag"]).filter(table["gaze_flag"].is_valid())
    for row in flagged.group_by(["generator", "gaze_flag"]).aggregate([([], "count_all")]).to_pylist():
        gaze[row["generator"]][row["gaze_flag"]] = row["count_all"]
    sharpness = {
        name: float(pc.quantile(table.filter(pc.equal(table["generator"], name))["sharpness"], 0.5)[0].as_py())
        for name in counts
    }
    return [
        GeneratorBalance(
            generator=name,
            faces=counts[name]["count_all"],
            by_split=dict(sorted(splits[name].items())),
            enlarged=counts[name]["enlarged_sum"],
            cut_off=counts[name]["cut_off_sum"],
            without_gaze=counts[name]["gaze_sum"],
            without_identity=counts[name]["identity_sum"],
            gaze_flags=dict(sorted(gaze[name].items())),
            sharpness=sharpness.get(name),
            skipped=dict(sorted(skipped.get(name, {}).items())),
        )
        for name in sorted({*counts, *skipped}, key=lambda name: (name != REAL, name))
    ]


# --- what is the matter? -------------------------------------------------------------------------------------------


def balance_warnings(balance: Sequence[GeneratorBalance], splits: Sequence[str]) -> list[str]:
    """Return what a reader of scores must know of the numbers of faces, one sentence each."""
    found = []
    enlarged = sum(each.enlarged for each in balance)
    if enlarged:
        share = {each.generator: each.enlarged / each.faces for each in balance if each.faces}
        least, most = min(share, key=share.__getitem__), max(share, key=share.__getitem__)
        found.append(
            f"{enlarged} of {sum(each.faces for each in balance)} faces were enlarged, so their pixels are interpolated: "
            f"from {share[least]:.0%} of {least} to {share[most]:.0%} of {most}. What differs here is a shortcut too."
        )
    few = [f"{each.generator} ({each.faces})" for each in balance if each.faces < MIN_FACES]
    if few:
        found.append(f"Fewer than {MIN_FACES} faces: {shorten(few)}. Scores on so few say little.")
    lossy = [
        f"{each.generator} {each.inputs - each.faces} of {each.inputs}"
        for each in balance
        if each.inputs > each.faces and each.inputs - each.faces >= SKIPPED_SHARE * each.inputs
    ]
    if lossy:
        found.append(f"Many inputs gave no face: {shorten(lossy)}. What is left may be the easy part.")
    if not any(each.generator == REAL and each.faces for each in balance):
        found.append("There are no real faces, so nothing here can be tested for detection.")
    return [*found, *_split_warnings(balance, splits), *_selection_warnings(balance)]


def _split_warnings(balance: Sequence[GeneratorBalance], splits: Sequence[str]) -> list[str]:
    found = []
    absent = [
        f"{each.generator} ({', '.join(missing)})"
        for each in balance
        if each.generator != REAL and (missing := [name for name in splits if not each.by_split.get(name)])
    ]
    if len(splits) > 1 and absent:
        found.append(f"Generators without a face in a split that others have: {shorten(absent)}.")
    lopsided = []
    for split in splits:
        counts = [each.by_split.get(split, 0) for each in balance]
        reals = sum(count for count, each in zip(counts, balance, strict=True) if each.generator == REAL)
        fakes = sum(counts) - reals
        if max(reals, fakes) >= LOPSIDED * min(reals, fakes) and max(reals, fakes) >= MIN_FACES:
            lopsided.append(f"{split} ({reals} real, {fakes} fake)")
    if lopsided:
        found.append(f"Splits of very unequal numbers of reals and fakes: {shorten(lopsided)}.")
    return found


def _selection_warnings(balance: Sequence[GeneratorBalance]) -> list[str]:
    """Return where the faces of a generator were chosen, cut or measured otherwise than the reals."""
    found = []
    for sentence, of in _SHARES.items():
        named = _differing(balance, of)
        if named:
            found.append(sentence.format(shorten(named)))
    real = next((each for each in balance if each.generator == REAL), None)
    if real is None or not real.sharpness or real.faces < MIN_FACES:
        return found
    unlike = [
        f"{each.generator} {each.sharpness:.1f}"
        for each in balance
        if each.sharpness is not None
        and each.faces >= MIN_FACES
        and not 1 / SHARPER < each.sharpness / real.sharpness < SHARPER
    ]
    if unlike:
        found.append(f"Median sharpness unlike that of the reals ({real.sharpness:.1f}): {shorten(unlike)}.")
    return found


_SHARES: dict[str, Callable[[GeneratorBalance], tuple[int, int]]] = {
    "Prepare left out another share of these inputs than of the reals: {}. The faces that are left were chosen by that.": (
        lambda each: (each.inputs - each.faces, each.inputs)
    ),
    "Gaze is missing for another share of these faces than of the reals: {}. That it is missing tells the class.": (
        lambda each: (each.without_gaze, each.faces)
    ),
    "Another share of these faces than of the reals is cut off by the image's border: {}.": (
        lambda each: (each.cut_off, each.faces)
    ),
}


def _differing(balance: Sequence[GeneratorBalance], of: Callable[[GeneratorBalance], tuple[int, int]]) -> list[str]:
    """Name the generators whose share differs from that of the reals by DIFFERENT_SHARE and beyond chance."""
    counts = {each.generator: of(each) for each in balance}
    part, whole = counts.pop(REAL, (0, 0))
    if whole < MIN_FACES:
        return []
    named = []
    for name, (some, all_) in counts.items():
        if all_ < MIN_FACES:
            continue
        pooled = (part + some) / (whole + all_)
        error = sqrt(pooled * (1 - pooled) * (1 / whole + 1 / all_))
        if abs(some / all_ - part / whole) >= max(DIFFERENT_SHARE, BEYOND_CHANCE * error):
            named.append(f"{name} {some} of {all_}")
    return [*named, f"against {part} of {whole} real"] if named else []


# --- for the console -----------------------------------------------------------------------------------------------


def balance_columns(splits: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns of ``balance_rows``."""
    shown = [*splits, NO_SPLIT] if splits else []
    return ("generator", "faces", *shown, "enlarged", "cut off", "sharpness", "no gaze", "no identity", "skipped")


def balance_rows(balance: Sequence[GeneratorBalance], splits: Sequence[str]) -> list[tuple[object, ...]]:
    """Return one row per generator for a table."""
    shown = [*splits, NO_SPLIT] if splits else []
    return [
        (
            each.generator,
            each.faces,
            *(each.by_split.get(split, 0) for split in shown),
            each.enlarged,
            each.cut_off,
            "–" if each.sharpness is None else f"{each.sharpness:.1f}",
            _told(each.without_gaze, each.gaze_flags),
            each.without_identity,
            ", ".join(f"{count} {reason}" for reason, count in each.skipped.items()) or "none",
        )
        for each in balance
    ]


def _told(count: int, reasons: Mapping[str, int]) -> object:
    named = ", ".join(f"{number} {reason}" for reason, number in reasons.items())
    return f"{count} ({named})" if named else count
