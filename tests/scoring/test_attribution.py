"""At each level the truth is what training calls it, and the answer is the most probable of training's values."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfad_bench.records.predictions import VAL
from dfad_bench.scoring.attribution import LevelAnswer, level_answers
from dfad_bench.scoring.faces import frames
from dfad_bench.scoring.questions import NO_SUCH_CLASS
from dfad_bench.types import REAL
from tests.scoring.builders import CLASSES, KNOWN, Face, pick, predictions, scores_of

FACES = st.builds(
    Face,
    generator=st.sampled_from(sorted(KNOWN)),
    subset=st.sampled_from(["seen", "unseen", VAL]),
    says=st.sampled_from([leaf.name for leaf in CLASSES]),
)
ASSUME = {"family": {"flow": "diffusion"}}
LEVELS = ("forgery_type", "family", "generator")


def value_at(level: str, generator: str) -> str:
    leaf = KNOWN[generator]
    return {"generator": generator, "family": leaf.family, "forgery_type": leaf.forgery_type}[level]


def answers(faces: list[Face], **given_: Any) -> dict[str, LevelAnswer]:
    made = predictions(faces, **given_).in_order()
    return {each.level: each for each in level_answers(frames(made), made.classes, made.context)}


def test_truth_and_answer_are_indices_of_trainings_values_and_what_it_lacks_is_minus_one() -> None:
    faces = [Face(name, says="stylegan3", id=name) for name in sorted(KNOWN)]  # ddpm flux real sd15 simswap stylegan3
    found = answers(faces)
    assert found["family"].values == (REAL, "diffusion", "gan")
    assert found["family"].true.tolist() == [1, -1, 0, 1, 2, 2]
    assert found["family"].predicted.tolist() == [2] * 6
    assert found["generator"].true.tolist() == [1, -1, 0, -1, 2, 3]
    assert answers(faces, assume=ASSUME)["family"].true.tolist() == [1, 1, 0, 1, 2, 2]
    assert answers(faces, assume=ASSUME)["generator"].true.tolist() == [1, -1, 0, -1, 2, 3]


def test_a_view_shares_the_probabilities_of_all_faces_and_leaves_out_the_unknown() -> None:
    found = answers([Face(name, id=name) for name in sorted(KNOWN)])["generator"]
    view = found.view(np.asarray([4, 1, 0], np.intp))
    assert view.table is found.probabilities
    assert view.true.tolist() == [1, 2]
    assert view.probabilities.tolist() == found.probabilities[[0, 4]].tolist()


@settings(max_examples=40)
@given(st.lists(FACES, max_size=20), st.booleans())
def test_accuracies_are_those_of_counting(faces: list[Face], assumes: bool) -> None:
    assume = ASSUME if assumes else {}
    scores = scores_of(faces, assume=assume)
    for level in LEVELS:
        trained = {value_at(level, leaf.name) for leaf in CLASSES}
        for subset in ("seen", "unseen"):
            right: Counter[str] = Counter()
            known: Counter[str] = Counter()
            everyone = [face for face in faces if face.subset == subset]
            for face in everyone:
                value = value_at(level, face.generator)
                true = value if value in trained else assume.get(level, {}).get(value)
                known[face.generator] += true in trained
                right[face.generator] += true == value_at(level, face.says)
            groups = Counter(face.generator for face in everyone)
            for group, size in groups.items():
                found = pick(scores, "accuracy", group, subset=subset, level=level)
                expected = right[group] / known[group] if known[group] else None
                assert (found.value, found.n, found.unknown) == (expected, known[group], size - known[group])
                assert found.reason == (None if known[group] else NO_SUCH_CLASS)
            some = any(known[group] for group in groups if group != REAL)
            pooled, mean = (pick(scores, "accuracy", group, subset=subset, level=level) for group in ("pooled", "mean"))
            if some:
                shares = [right[group] / known[group] for group in groups if known[group]]
                assert pooled.value == pytest.approx(sum(right.values()) / sum(known.values()))
                assert (mean.value, mean.n) == (pytest.approx(np.mean(shares)), len(shares))
                assert pooled.unknown == mean.unknown == len(everyone) - sum(known.values())
            else:
                assert pooled.value is None and mean.value is None


def test_what_only_all_faces_can_answer_has_no_groups() -> None:
    scores = scores_of([Face(REAL), Face("ddpm", says="ddpm"), Face("simswap", says="ddpm")])
    for metric in ("balanced_accuracy", "macro_f1", "ovr_auc"):
        groups = {each.group for each in scores if each.task == "attribution" and each.metric == metric}
        assert groups == {"pooled"}
    assert {each.level for each in scores if each.metric == "top_3_accuracy"} == {"generator"}
