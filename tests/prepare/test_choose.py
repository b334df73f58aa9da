from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfad_bench.prepare.choose import SAME_PERSON, Box, choose, cut_off, overlap
from dfad_bench.types import Detection

WIDTH, HEIGHT = 120, 80


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x, y = draw(st.floats(-20, 110)), draw(st.floats(-20, 70))
    return x, y, x + draw(st.floats(1, 60)), y + draw(st.floats(1, 60))


FACES = st.lists(st.builds(Detection, boxes(), st.floats(0, 1)), min_size=1, max_size=6)
MASKS = st.builds(
    lambda box: painted(tuple(max(round(edge), 0) for edge in box)),
    boxes(),
)


def painted(box: tuple[int, ...], brightness: int = 255) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = brightness
    return mask


def area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


@given(FACES, st.none() | boxes(), st.none() | MASKS, st.randoms())
def test_the_order_of_faces_does_not_matter(faces, previous, mask, random) -> None:
    shuffled = list(faces)
    random.shuffle(shuffled)
    assert choose(shuffled, previous, mask).box == choose(faces, previous, mask).box


@given(FACES)
def test_without_mask_or_history_it_is_the_largest(faces) -> None:
    assert area(choose(faces, None, None).box) == max(area(face.box) for face in faces)


@given(FACES, boxes())
def test_a_face_far_from_the_previous_one_is_chosen_only_for_its_size(faces, previous) -> None:
    chosen = choose(faces, previous, None)
    best = max(overlap(face.box, previous) for face in faces)
    if best >= SAME_PERSON:
        assert overlap(chosen.box, previous) == best
    else:
        assert area(chosen.box) == max(area(face.box) for face in faces)


@given(
    st.lists(st.tuples(st.floats(26, 36), st.floats(26, 36), st.floats(-2, 2)), min_size=1, max_size=20),
    st.randoms(),
)
def test_a_clip_stays_with_one_person_when_two_alternate_in_size(frames, random) -> None:
    previous = None
    chosen = []
    for left_side, right_side, shift in frames:
        pair = [
            Detection((30 + shift - left_side / 2, 40 - left_side / 2, 30 + shift + left_side / 2, 40 + left_side / 2)),
            Detection(
                (90 + shift - right_side / 2, 40 - right_side / 2, 90 + shift + right_side / 2, 40 + right_side / 2)
            ),
        ]
        random.shuffle(pair)
        previous = choose(pair, previous, None).box
        chosen.append(previous[0] < 60)
    assert len(set(chosen)) == 1


def test_the_masked_face_is_chosen_before_the_larger_and_the_previous_one() -> None:
    small, large = Detection((80, 10, 100, 30)), Detection((5, 5, 65, 75))
    assert choose([small, large], large.box, painted((82, 12, 98, 28))) is small
    assert choose([small, large], large.box, painted((82, 12, 98, 28), brightness=40)) is small


def test_neither_a_box_around_everything_nor_a_speck_wins_the_mask() -> None:
    face = Detection((40, 20, 80, 60))
    everything, speck = Detection((0, 0, 120, 80)), Detection((55, 35, 60, 40))
    assert choose([everything, speck, face], None, painted((44, 22, 76, 60))) is face


def test_a_dark_mask_decides_nothing() -> None:
    small, large = Detection((80, 10, 100, 30)), Detection((5, 5, 65, 75))
    assert choose([small, large], None, painted((0, 0, 0, 0))) is large
    assert choose([small, large], small.box, painted((110, 70, 120, 80))) is small


@given(boxes())
def test_the_share_outside_is_a_fraction_and_none_for_a_box_inside(box) -> None:
    share = cut_off(box, WIDTH, HEIGHT)
    assert 0 <= share <= 1
    if box[0] >= 0 and box[1] >= 0 and box[2] <= WIDTH and box[3] <= HEIGHT:
        assert share == 0


@pytest.mark.parametrize(
    ("box", "share"), [((-10, 10, 10, 30), 0.5), ((-10, -10, 10, 10), 0.75), ((130, 10, 140, 20), 1)]
)
def test_the_share_outside_is_known_for_simple_boxes(box, share) -> None:
    assert cut_off(box, WIDTH, HEIGHT) == pytest.approx(share)


@given(boxes(), boxes())
def test_overlap_is_symmetric_and_one_only_for_itself(one, other) -> None:
    assert overlap(one, other) == pytest.approx(overlap(other, one))
    assert 0 <= overlap(one, other) <= 1
    assert overlap(one, one) == pytest.approx(1)
