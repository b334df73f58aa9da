"""New classes found without labels: test faces clustered by their embeddings, held against who made them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dfad_bench.records.predictions import VAL, Predictions
from dfad_bench.records.results import EVERY_SUBSET, Score
from dfad_bench.types import REAL

MOST = 10_000
"""Faces that are clustered, chosen by hash: k-means over more changes little and takes long."""
NOVEL, ALL = "novel", "all"
NOT_RESAMPLED = "clustering is not repeated in resamples"


def discover(predictions: Predictions) -> Iterator[Score]:
    """Yield ACC, NMI and ARI of clustering the test faces, as OW-DFA scores them (Sun et al., ICCV 2023, section 4.1).

    ``novel``: the fakes of generators that training lacks, k-means with as many clusters as there are such generators;
    ``all``: every test face, k being the number of generators and one for real. ACC is the share of faces in the cluster
    that an optimal one-to-one matching (Hungarian) gives to their generator. Nothing for a model without embeddings.
    """
    if predictions.embedding is None:
        return
    tested = ~predictions.subset.is_(VAL)
    seen = {leaf.name for leaf in predictions.classes}
    unseen = np.asarray([name not in seen and name != REAL for name in predictions.generator.values], bool)
    for group, wanted in ((NOVEL, unseen[predictions.generator.code]), (ALL, np.ones(len(predictions), bool))):
        rows = _at_most(predictions, np.flatnonzero(tested & wanted))
        yield from _scores(group, predictions.embedding[rows], predictions.generator.code[rows])


def _at_most(predictions: Predictions, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return each face once, and at most MOST of them, by hash of their ids."""
    ids = predictions.id.take(rows).to_pylist()
    chosen = dict(zip(reversed(ids), rows[::-1].tolist(), strict=True))
    if len(chosen) > MOST:
        first = sorted(chosen, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:MOST]
        chosen = {name: chosen[name] for name in first}
    return np.sort(np.fromiter(chosen.values(), np.intp, len(chosen)))


def _scores(group: str, embedding: NDArray[np.float32], generator: NDArray[np.int32]) -> Iterator[Score]:
    # Here, since most predictions hold no embedding, and these take as long to import as 100,000 faces to score.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    classes, true = np.unique(generator, return_inverse=True)
    reason = None if len(classes) > 1 else "one generator only" if len(classes) else "no such face"
    values: dict[str, float | None] = dict.fromkeys(("clustering_accuracy", "nmi", "ari"))
    if reason is None:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", ConvergenceWarning
            )  # fewer distinct embeddings than clusters: some stay empty
            found = KMeans(len(classes), n_init=10, random_state=0).fit_predict(embedding.astype(np.float64))
        values = {
            "clustering_accuracy": clustering_accuracy(true, found),
            "nmi": float(normalized_mutual_info_score(true, found)),
            "ari": float(adjusted_rand_score(true, found)),
        }
    for metric, value in values.items():
        yield Score(
            task="discovery",
            metric=metric,
            level="generator",
            subset=EVERY_SUBSET,
            group=group,
            value=value,
            n=len(generator),
            reason=reason,
            no_interval=None if value is None else NOT_RESAMPLED,
        )


def clustering_accuracy(true: NDArray[np.intp], found: NDArray[np.intp]) -> float:
    """Return the share of faces [N] whose cluster is matched to their class by the best one-to-one matching, in 0..1."""
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((true.max() + 1, found.max() + 1), np.int64)
    np.add.at(counts, (true, found), 1)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return float(counts[rows, columns].sum() / len(true))
