"""Measures how well a classifier tells fakes from reals by a few numbers of each file, and what chance alone would reach."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score

from dfad_bench.records.sampling import order_key
from dfad_bench.types import REAL

FOLDS = 5
CONFIDENCE = 0.95
"""With no information in any header, so many audits find no shortcut in any of their generators."""

MOST_TABLES = 16
"""So many of the commonest JPEG quantisation tables are told apart; the others count as one."""


def cross_validated_scores(
    header: NDArray[np.float32],
    label: NDArray[np.object_],
    group: NDArray[np.object_],
    seed: int,
    tables: NDArray[np.object_] | None = None,
) -> NDArray[np.float64]:
    """Return for each file the fake score of a random forest that saw no file of its group.

    header [N, F]; label [N]: ``real`` or the generator; group [N]: what must not be divided, FOLDS or more on each
    side; tables [N]: the name of each file's JPEG tables, None where it has none. Scores [N] in 0..1.
    """
    folds = deal_folds(group, label != REAL, seed)
    scores = np.empty(len(label), dtype=np.float64)
    for fold in range(FOLDS):
        train, test = folds != fold, folds == fold
        # Without bootstrap and with weights balanced in each training part, a header that says nothing scores exactly
        # 0.5 in every fold; else a fold's share of fakes would leak into the pooled AUC. One job: threads add up
        # votes in the order they finish.
        forest = RandomForestClassifier(
            30, max_depth=8, min_samples_leaf=5, bootstrap=False, random_state=seed, n_jobs=1
        )
        features = header
        if tables is not None:
            features = np.hstack([header, tables[:, None] == commonest(tables[train])], dtype=np.float32)
        forest.fit(features[train], label[train] != REAL, sample_weight=balanced_weights(label[train]))
        scores[test] = forest.predict_proba(features[test])[:, 1]
    return np.round(scores, 9)  # what differs by rounding alone is a tie


def commonest(tables: NDArray[np.object_]) -> NDArray[np.object_]:
    """Return the MOST_TABLES names that occur most often, of equally common ones the first by name."""
    counts = Counter(each for each in tables if each is not None)
    names = sorted(counts, key=lambda name: (-counts[name], name))[:MOST_TABLES]
    return np.asarray(names, dtype=object)


def deal_folds(group: NDArray[np.object_], fake: NDArray[np.bool_], seed: int) -> NDArray[np.int64]:
    """Return for each of N faces its fold, whole groups being dealt like cards so that folds are alike.

    Groups that hold only reals come first, then mixed ones, then fakes; the larger before the smaller, then by hash.
    So reals lie in as many folds as they can, and fakes too. (scikit-learn's StratifiedGroupKFold does the same, in
    seconds where this takes milliseconds.)
    """
    names, inverse = np.unique(group.astype(str), return_inverse=True)
    size = np.bincount(inverse)
    fakes = np.bincount(inverse, weights=fake)
    kind = (fakes > 0).astype(int) + (fakes == size)
    keys = [order_key(seed, name) for name in names]
    order = sorted(range(len(names)), key=lambda each: (kind[each], -size[each], keys[each]))
    fold_of_group = np.empty(len(names), dtype=np.int64)
    fold_of_group[order] = np.arange(len(names)) % FOLDS
    return fold_of_group[inverse]


def balanced_weights(label: NDArray[np.object_]) -> NDArray[np.float64]:
    """Return [N] weights under which reals weigh as much as all fakes, and each generator as much as another."""
    names, inverse, counts = np.unique(label.astype(str), return_inverse=True, return_counts=True)
    generators = max(1, len(names) - int(REAL in names))
    each = np.where(names == REAL, 1.0, 1.0 / generators) / counts
    return np.asarray(each[inverse] * len(label) / 2)


def mean_auc(scores: NDArray[np.float64], label: NDArray[np.object_]) -> float:
    """Return the mean over the generators in label [N] of the AUC of their scores against those of the reals."""
    real = scores[label == REAL]
    aucs = []
    for name in sorted(set(label) - {REAL}):
        fake = scores[label == name]
        truth = np.repeat([1, 0], [len(fake), len(real)])
        aucs.append(roc_auc_score(truth, np.concatenate([fake, real])))
    return float(np.mean(aucs))


def effective_size(weight: NDArray[np.float64], group: NDArray[np.object_]) -> float:
    """Return how many independent files weigh as much as these: Kish's (Σw)² / Σw² over whole groups.

    Frames of one video come out of one encoder, so that a thousand of them tell no more about headers than one.
    """
    total = np.bincount(np.unique(group.astype(str), return_inverse=True)[1], weights=weight)
    return float(total.sum() ** 2 / (total**2).sum())


def chance_bound(fakes: float, reals: float, tests: int = 1) -> float:
    """Return what a cross-validated AUC without information stays below, in ``tests`` tests together, with CONFIDENCE.

    Twice Mann and Whitney's variance (n1 + n0 + 1) / (12 n1 n0), normal approximation, Šidák's correction; at most 1.
    Twice, because each two folds meet twice: what they share by chance is learnt in one and rewarded in the other, then
    the other way round. (Simulated with this forest on noise: 1.3 to 1.4 times the standard deviation.)
    """
    sigma = np.sqrt(2 * (fakes + reals + 1) / (12 * fakes * reals))
    return float(min(1.0, 0.5 + norm.ppf(CONFIDENCE ** (1 / tests)) * sigma))
