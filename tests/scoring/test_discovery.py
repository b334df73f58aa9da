"""Clusters are matched to generators as trying every matching would, and each face is clustered once."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfad_bench.records.predictions import VAL
from dfad_bench.records.results import Score
from dfad_bench.scoring import discovery
from dfad_bench.scoring.discovery import NOT_RESAMPLED, clustering_accuracy, discover
from dfad_bench.types import REAL
from tests.scoring.builders import Face, predictions

NOVEL = [Face("sd15", "unseen")] * 6 + [Face("flux", "unseen")] * 6


def found(faces: list[Face], embedding: Any) -> dict[tuple[str, str], Score]:
    made = replace(predictions(faces), embedding=np.asarray(embedding, np.float32))
    return {(each.group, each.metric): each for each in discover(made.in_order())}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=30))
def test_the_accuracy_is_that_of_the_best_of_all_matchings(pairs: list[tuple[int, int]]) -> None:
    true, cluster = np.asarray(pairs, np.intp).T
    best = max(sum(matching[c] == t for t, c in pairs) for matching in permutations([0, 1, 2, 3, -1], 5))
    assert clustering_accuracy(true, cluster) == pytest.approx(best / len(pairs))


def test_generators_apart_are_found_and_generators_in_one_place_are_not() -> None:
    apart = found(NOVEL, np.repeat([[0.0, 0.0], [9.0, 9.0]], 6, axis=0) + np.random.default_rng(0).normal(size=(12, 2)))
    for metric in ("clustering_accuracy", "nmi", "ari"):
        each = apart["novel", metric]
        assert (each.value, each.n, each.low, each.no_interval) == (pytest.approx(1), 12, None, NOT_RESAMPLED)
    mixed = found(NOVEL, np.tile([[0.0, 0.0], [9.0, 9.0]], (6, 1)) + np.random.default_rng(0).normal(size=(12, 2)))
    assert mixed["novel", "clustering_accuracy"].value == pytest.approx(0.5)
    assert mixed["novel", "ari"].value < 0.1  # type: ignore[operator]


def test_all_counts_reals_and_trained_generators_and_novel_does_not_and_val_is_neither() -> None:
    faces = [*NOVEL, Face(REAL), Face("ddpm"), Face("flux", VAL), Face(REAL, VAL)]
    scores = found(faces, np.random.default_rng(0).normal(size=(len(faces), 3)))
    assert (scores["novel", "nmi"].n, scores["all", "nmi"].n) == (12, 14)


def test_a_face_of_two_subsets_is_clustered_once() -> None:
    faces = [*NOVEL, Face("flux", "seen", id="f"), Face("flux", "unseen", id="f")]
    assert found(faces, np.random.default_rng(0).normal(size=(14, 3)))["novel", "nmi"].n == 13


@pytest.mark.parametrize(
    ("faces", "reason"), [([Face(REAL), Face("ddpm")], "no such face"), ([Face("flux")] * 3, "one generator only")]
)
def test_nothing_to_tell_apart_has_no_value_and_says_why(faces: list[Face], reason: str) -> None:
    assert {
        each.reason for (group, _), each in found(faces, np.zeros((len(faces), 2))).items() if group == "novel"
    } == {reason}


def test_embeddings_that_are_all_the_same_tell_nothing_and_warn_of_nothing() -> None:
    scores = found(NOVEL, np.zeros((12, 4)))
    assert scores["novel", "clustering_accuracy"].value == 0.5
    assert scores["novel", "ari"].value == 0


def test_a_model_without_embeddings_discovers_nothing() -> None:
    assert list(discover(predictions(NOVEL))) == []


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(random: Any) -> None:
    faces = [replace(face, id=f"{row:02d}") for row, face in enumerate(NOVEL)]
    table = np.random.default_rng(1).normal(size=(12, 3))
    order = list(range(12))
    random.shuffle(order)
    assert found([faces[row] for row in order], table[order]) == found(faces, table)


def test_of_very_many_faces_some_are_chosen_by_their_ids_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "MOST", 8)
    faces = [replace(face, id=f"{row:02d}") for row, face in enumerate(NOVEL)]
    table = np.random.default_rng(1).normal(size=(12, 3))
    scores = found(faces, table)
    assert scores["novel", "nmi"].n == 8
    assert found(faces[::-1], table[::-1]) == scores
