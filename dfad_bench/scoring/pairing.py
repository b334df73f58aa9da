"""Two models' predictions laid side by side: the faces that both have, row by row, and nothing else that differs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfad_bench.errors import DataError, UsageError, shorten
from dfad_bench.records.categorical import Categorical, Rows
from dfad_bench.records.predictions import Context, Predictions

_LABELS = ("generator", "family", "forgery_type", "domain", "video", "identity")


@dataclass(frozen=True, eq=False)
class Paired:
    """Predictions of two models whose row i is the same face, and shares its labels.

    left_out_a, left_out_b: faces that only one of the two files has, by subset. Where one model has no logits, both are
    without.
    """

    a: Predictions
    b: Predictions
    left_out_a: dict[str, int]
    left_out_b: dict[str, int]

    @classmethod
    def of(cls, a: Predictions, b: Predictions) -> Paired:
        """Lay two predictions side by side, whatever the order of their rows.

        Raises UsageError where they are not answers to the same question, or have no face in common; DataError where
        they contradict each other about a face.
        """
        check_comparable(a.context, b.context)
        a, b = (replace(each, embedding=None).in_order() for each in (a, b))
        rows_a, rows_b = _common(a, b)
        if not len(rows_a):
            raise UsageError("The two runs have no face in common, so there is nothing to compare.")
        left_out_a, left_out_b = _others(a, rows_a), _others(b, rows_b)
        a, b = _taken(a, rows_a), _taken(b, rows_b)
        for column in _LABELS:
            _check_same(column, a, b)
        # One column for both: what two files agree on is kept once, and coded alike.
        shared = {name: getattr(a, name) for name in ("id", "subset", *_LABELS)}
        if a.logits is None or b.logits is None:
            a, b = replace(a, logits=None), replace(b, logits=None)
        return cls(a, replace(b, **shared), left_out_a, left_out_b)


def check_comparable(a: Context, b: Context) -> None:
    """Raise UsageError, saying what to do, unless two runs were asked the same of the same selection of faces."""
    rules = "Run both models on one version of the protocol."
    asked: tuple[tuple[str, Callable[[Context], object], str], ...] = (
        ("protocol", lambda c: f"{c.protocol} v{c.protocol_version}", "Run both models on the same protocol."),
        ("selection of faces", lambda c: c.protocol_fingerprint, "Run both models on the same prepared sources."),
        ("classes", lambda c: shorten(leaf.name for leaf in c.classes), "Train both models on the same classes."),
        ("families and forgery types of the classes", lambda c: [leaf.model_dump() for leaf in c.classes], rules),
        ("levels", lambda c: ", ".join(c.levels), rules),
        ("assumed values (assume)", lambda c: c.assume, rules),
        ("choice of reals", lambda c: c.reals, rules),
        ("pooling of frames", lambda c: c.pooling, rules),
        ("test subsets", lambda c: c.subsets, rules),
        (
            "perturbation",
            lambda c: "none" if c.perturbation is None else f"{c.perturbation.name} {c.perturbation.severity}",
            "Compare runs that were disturbed alike.",
        ),
        ("strength of the perturbation", lambda c: c.perturbation and c.perturbation.strength, "Run both again."),
    )
    for what, of, advice in asked:
        if of(a) != of(b):
            raise UsageError(f"The two runs differ in their {what}: {of(a)} and {of(b)}. {advice}")
    if a.classes != b.classes:
        raise UsageError("The two runs differ in their classes. Train both models on the same classes.")


def _common(a: Predictions, b: Predictions) -> tuple[Rows, Rows]:
    """Return the rows of both, ascending, that are the same face in the same subset."""
    if a.id.equals(b.id) and a.subset.values == b.subset.values and (a.subset.code == b.subset.code).all():
        everyone = np.arange(len(a))
        return everyone, everyone
    place = pc.index_in(_keys(a), value_set=_keys(b))
    rows_a = np.flatnonzero(place.is_valid().to_numpy(zero_copy_only=False))
    return rows_a, place.drop_null().to_numpy().astype(np.intp)


def _keys(predictions: Predictions) -> pa.Array:
    subset = pa.array(predictions.subset.values, pa.string()).take(pa.array(predictions.subset.code))
    return pc.binary_join_element_wise(subset, predictions.id, "\0")


def _others(predictions: Predictions, rows: Rows) -> dict[str, int]:
    """Return how many rows are not among the given ones, by subset."""
    left = np.ones(len(predictions), bool)
    left[rows] = False
    counts = np.bincount(predictions.subset.code[left], minlength=len(predictions.subset.values))
    return {name: int(count) for name, count in zip(predictions.subset.values, counts, strict=True) if count}


def _taken(predictions: Predictions, rows: Rows) -> Predictions:
    return predictions if len(rows) == len(predictions) else predictions.take(rows)


def _check_same(column: str, a: Predictions, b: Predictions) -> None:
    """Raise DataError, naming the first face, where two files give a face different labels."""
    one: Categorical = getattr(a, column)
    other: Categorical = getattr(b, column)
    code = {value: index for index, value in enumerate(one.values)}
    translated = np.asarray([*(code.get(value, -2) for value in other.values), -1], np.int32)[other.code]
    differing = np.flatnonzero(translated != one.code)
    if len(differing):
        row = differing[:1]
        told = " and ".join(repr(side.take(row).tolist()[0]) for side in (one, other))
        raise DataError(
            f"The two files contradict each other about {a.id[int(row[0])].as_py()}: its {column} is {told}. "
            "Run both models on the same prepared sources."
        )
