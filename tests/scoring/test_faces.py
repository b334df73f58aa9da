"""Frames become videos as a dictionary of lists would make them, and each face or video is tested once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfad_bench.errors import UsageError
from dfad_bench.records.predictions import VAL, Predictions
from dfad_bench.scoring.faces import frames, videos
from dfad_bench.scoring.score import Options, score
from dfad_bench.types import REAL
from tests.scoring.builders import CLASSES, Face, pick, predictions, scores_of

POOLINGS = ["mean", "median", "top1", "top2", "top9"]
GENERATORS = (REAL, "ddpm", "flux")
VIDEOS = (None, "a", "b")  # each of them is the name of a video of every generator
LOGIT = st.lists(st.integers(-9, 9).map(float), min_size=len(CLASSES), max_size=len(CLASSES))


def clip(number: int, subset: str, fake_score: int) -> Face:
    """A face whose number alone says what it shows, in whatever subset it stands."""
    generator, video = GENERATORS[number % 3], VIDEOS[number // 3 % 3]
    return Face(generator, subset, fake_score=fake_score / 4, id=f"face/{number:02d}", video=video)


@st.composite
def answered(draw: st.DrawFn) -> Predictions:
    """Predictions in order, of few faces with any logits, some of them in several subsets."""
    one = st.builds(clip, st.integers(0, 17), st.sampled_from(["seen", "unseen", VAL]), st.integers(0, 4))
    faces = draw(st.lists(one, max_size=15, unique_by=lambda face: (face.id, face.subset)))
    logits = draw(st.lists(LOGIT, min_size=len(faces), max_size=len(faces)))
    table = np.asarray(logits, np.float32).reshape(-1, len(CLASSES))
    return replace(predictions(faces), logits=table).in_order()


def units(made: Predictions) -> dict[tuple[Any, ...], list[int]]:
    """The rows of each video, or face without one: videos first, by name, generator and subset."""
    found: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)
    columns = [made.id.to_pylist(), made.video.tolist(), made.subset.tolist(), made.generator.tolist()]
    for row, (name, video, subset, generator) in enumerate(zip(*columns, strict=True)):
        found[(video is None, video or name, generator, subset)].append(row)
    return dict(sorted(found.items()))


def naive(values: Any, fake_score: Any, pooling: str) -> Any:
    """Pool a list of numbers, or of lists of numbers, one of each frame."""
    if pooling == "mean":
        return np.mean(values, axis=0)
    if pooling == "median":
        return np.median(values, axis=0)
    best = sorted(range(len(values)), key=lambda row: -fake_score[row])[: int(pooling.removeprefix("top"))]
    return np.mean([values[row] for row in best], axis=0)


@settings(max_examples=80, deadline=None)
@given(answered(), st.sampled_from(POOLINGS))
def test_videos_are_pooled_as_a_dictionary_of_lists_would(made: Predictions, pooling: str) -> None:
    single = frames(made)
    pooled = videos(single, made.video, pooling)
    assert single.probabilities is not None and single.energy is not None
    assert pooled.probabilities is not None and pooled.energy is not None
    expected = units(made)
    assert len(pooled) == len(expected)
    for row, ((_, _, generator, subset), frame) in enumerate(expected.items()):
        assert (pooled.subset.tolist()[row], pooled.generator.tolist()[row]) == (subset, generator)
        assert pooled.cluster[row] == single.cluster[frame[0]]
        scores = made.fake_score[frame].tolist()
        assert pooled.fake_score[row] == pytest.approx(naive(scores, scores, pooling), abs=1e-12)
        assert pooled.energy[row] == pytest.approx(naive(single.energy[frame], scores, pooling), abs=1e-12)
        shares = naive(single.probabilities[frame], scores, pooling)
        assert pooled.probabilities[row] == pytest.approx(shares / shares.sum(), abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(answered())
def test_each_face_and_each_video_of_a_generator_is_tested_once_as_in_its_first_subset(made: Predictions) -> None:
    single = frames(made)
    pooled = videos(single, made.video, "mean")
    expected: dict[Any, str] = {}
    for *unit, subset in units(made):
        if subset != VAL:
            expected.setdefault(tuple(unit), subset)
    names = list(units(made))
    tested = [names[row] for row in pooled.tested()]
    assert {name[:3]: name[3] for name in tested} == expected
    assert len(tested) == len(expected)
    ids = [made.id[row].as_py() for row in single.tested()]
    in_test = zip(made.id.to_pylist(), made.subset.tolist(), strict=True)
    assert ids == sorted({name for name, subset in in_test if subset != VAL})


def test_a_video_with_real_and_fake_faces_is_one_video_of_each() -> None:
    faces = [Face(generator, fake_score=0.2 + 0.6 * (generator != REAL), video="talk") for generator in (REAL, "ddpm")]
    found = pick(scores_of(faces * 2), "auc", "ddpm", unit="video")
    assert (found.value, found.n) == (1, 2)


def test_a_video_that_stands_in_two_subsets_is_one_video() -> None:
    faces = [Face(REAL, subset, fake_score=0.2, video="talk", id="face/1") for subset in ("seen", "unseen")]
    assert pick(scores_of([*faces, Face("ddpm", fake_score=0.9, video="other")]), "auc", "ddpm", unit="video").n == 2


def test_faces_of_no_video_are_videos_of_one_frame() -> None:
    faces = [Face(REAL, fake_score=0.25), Face(REAL, fake_score=0.5), Face("ddpm", fake_score=0.75, says="ddpm")]
    scores = scores_of(faces)
    by_frame = [each.model_copy(update={"unit": "video"}) for each in scores if each.unit == "frame"]
    assert by_frame[: len(by_frame)] == [each for each in scores if each.unit == "video"]


def test_frames_pooled_give_other_numbers_than_frames() -> None:
    faces = [Face(REAL, fake_score=score, video="r") for score in (0.0, 0.0, 0.9)]
    faces += [Face("ddpm", fake_score=score, video="f") for score in (0.2, 0.5, 0.8)]
    scores = scores_of(faces)
    assert pick(scores, "auc", "ddpm").value == pytest.approx(6 / 9)
    assert pick(scores, "auc", "ddpm", unit="video").value == 1
    assert pick(scores, "auc", "ddpm", unit="video").n == 2
    assert pick(scores_of(faces, options=Options(0, pooling="top1")), "auc", "ddpm", unit="video").value == 0
    assert pick(scores_of(faces, pooling="top1"), "auc", "ddpm", unit="video").value == 0


def test_the_median_of_frames_that_are_sure_of_different_classes_is_a_probability() -> None:
    made = predictions([Face("ddpm", video="v")] * 3)
    logits = np.zeros((3, 4), np.float32)
    logits[[0, 1, 2], [1, 2, 3]] = 2000  # softmax gives exactly 1 and 0, and so the median nothing but 0
    pooled = videos(frames(replace(made, logits=logits)), made.video, "median")
    assert pooled.probabilities is not None
    assert pooled.probabilities.tolist() == [pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])]


@given(answered(), st.sampled_from(POOLINGS), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_the_order_of_frames_changes_no_bit(made: Predictions, pooling: str, random: Any) -> None:
    order = list(range(len(made)))
    random.shuffle(order)
    options = Options(resamples=10, pooling=pooling)
    assert score(made.take(np.asarray(order, np.intp)), options) == score(made, options)


@pytest.mark.parametrize("word", ["max", "top", "top0", "top-1", "mean ", "top01"])
def test_another_pooling_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match=r"mean, median or top<k>"):
        scores_of([Face(REAL)], options=Options(0, pooling=word))


def test_another_way_to_cluster_is_refused() -> None:
    with pytest.raises(UsageError, match="auto, identity, video, face"):
        scores_of([Face(REAL)], options=Options(0, cluster_by="person"))


# --- clusters ------------------------------------------------------------------------------------------------------

BOUND = [
    Face(REAL, id="a", identity="x", video="1"),
    Face(REAL, id="b", identity="x", video="2"),
    Face(REAL, id="c", identity="y", video="2"),
    Face(REAL, id="d"),
    Face(REAL, "unseen", id="d"),
    Face(REAL, id="e"),
]


@pytest.mark.parametrize(
    ("cluster_by", "together"),
    [
        ("auto", ["abc", "dd", "e"]),
        ("identity", ["ab", "c", "dd", "e"]),
        ("video", ["a", "bc", "dd", "e"]),
        ("face", ["a", "b", "c", "dd", "e"]),
    ],
)
def test_faces_are_bound_by_whom_they_show_by_their_video_or_not_at_all(cluster_by: str, together: list[str]) -> None:
    made = predictions(BOUND).in_order()
    cluster = frames(made, cluster_by).cluster
    names: defaultdict[int, str] = defaultdict(str)
    for name, number in zip(made.id.to_pylist(), cluster.tolist(), strict=True):
        names[number] += name
    assert sorted(names.values()) == together
    assert score(predictions(BOUND), Options(0, cluster_by=cluster_by)).scoring.clusters == len(together)
