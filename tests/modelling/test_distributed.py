"""What each rank does, and what they tell each other: no face is left out, none is taken twice, no error is lost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dfad_bench.errors import UsageError
from dfad_bench.modelling import device as devices
from dfad_bench.modelling.data import Batches, FaceDataset
from dfad_bench.modelling.device import pick_device
from dfad_bench.modelling.distributed import Ranks, current, is_agreed, joined
from tests.modelling.builders import CLASSES, SHADE, make_faces
from tests.torchrun import torchrun

CPU = torch.device("cpu")


def batches_of(faces: int, batch_size: int) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    return np.array_split(np.arange(faces), -(-faces // batch_size))


def all_ranks(world_size: int) -> list[Ranks]:
    return [Ranks(rank, world_size) for rank in range(world_size)]


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 9))
def test_the_parts_of_a_batch_are_that_batch_and_differ_by_one_face_at_most(
    faces: int, batch_size: int, world_size: int
) -> None:
    batches = batches_of(faces, batch_size)
    parts = [ranks.part_of_each(batches) for ranks in all_ranks(world_size)]
    for batch, *shares in zip(batches, *parts, strict=True):
        assert np.array_equal(np.concatenate(shares), batch)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 9), st.booleans())
def test_every_whole_batch_is_one_ranks_whatever_the_numbers(
    faces: int, batch_size: int, world_size: int, padded: bool
) -> None:
    batches = batches_of(faces, batch_size)
    shares = {ranks: ranks.whole_ones(batches, padded) for ranks in all_ranks(world_size)}
    owned = {ranks: share[: ranks.owned(len(batches))] for ranks, share in shares.items()}
    in_turn = [owned[Ranks(place % world_size, world_size)][place // world_size] for place in range(len(batches))]
    assert [rows.tolist() for rows in in_turn] == [rows.tolist() for rows in batches]
    assert sum(map(len, owned.values())) == len(batches)
    rounds = {len(share) for share in shares.values()}
    assert rounds == {-(-len(batches) // world_size)} if padded else shares == owned


def test_ranks_together_load_the_very_faces_of_one_process_mirrored_alike(tmp_path: Path) -> None:
    faces = make_faces(tmp_path / "data", 5, generators=("real", "ddim", "stylegan3"), size=8)

    def loaded(ranks: Ranks) -> list[dict[int, bytes]]:
        dataset = FaceDataset(SHADE, faces, CLASSES, flip=True)
        found = Batches(dataset, 4, seed=3, workers=0, device=CPU, share=ranks.part_of_each).epoch(1)
        return [
            {row: image.numpy().tobytes() for row, image in zip(each.rows.tolist(), each.batch.image, strict=True)}
            for each in found
            if each.batch.image is not None
        ]

    one, three = loaded(Ranks()), [loaded(ranks) for ranks in all_ranks(3)]
    assert [len(batch) for batch in one] == [4, 4, 4, 3]
    assert one == [first | second | third for first, second, third in zip(*three, strict=True)]


def test_one_process_asks_nobody() -> None:
    alone = current()
    assert (alone, alone.is_first, alone.are_several) == (Ranks(), True, False)
    assert alone.first_says(lambda: 1) == alone.together(lambda: 1) == alone.first_then_others(lambda: 1) == 1
    assert alone.sum(0.1) == 0.1 and list(alone.in_order(iter("abc"), 3)) == ["a", "b", "c"]
    assert is_agreed(ValueError())
    with pytest.raises(RuntimeError, match="gloo/transport"), alone.watched(lambda: "go on"):
        raise RuntimeError("gloo/transport")


@pytest.mark.parametrize("environment", [{}, {"RANK": "0", "WORLD_SIZE": "1"}, {"RANK": "0", "WORLD_SIZE": "8"}])
def test_without_torchrun_nobody_is_waited_for(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with joined(lambda message: pytest.fail(message)) as ranks:
        assert ranks == Ranks()


def test_each_rank_of_a_machine_has_a_cuda_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert pick_device("cuda") == torch.device("cuda")
    monkeypatch.setattr(devices, "current", lambda: Ranks(5, 8, 1))
    assert pick_device("auto") == torch.device("cuda", 1)
    assert pick_device("cpu") == CPU
    monkeypatch.setattr(devices, "current", lambda: Ranks(2, 8, 2))
    with pytest.raises(UsageError, match=r"2 CUDA devices and more ranks.*--nproc-per-node"):
        pick_device("cuda")


TALK = """
import json, sys
import torch
from dfad_bench.errors import DfadError, UnknownName
from dfad_bench.modelling.distributed import current, is_agreed, joined

def error_of(do):
    try:
        do()
    except Exception as error:
        return [type(error).__name__, str(error), is_agreed(error), getattr(error, "exit_code", None)]

def fails(error):
    raise error

with joined(print) as ranks:
    mine = ranks.rank
    tensors = [torch.tensor(mine == 0), torch.full((2, 3), 1.5 - mine, dtype=torch.bfloat16), torch.tensor(7 + mine)]
    for tensor in tensors:
        ranks.copy_from_first(tensor)
    order = []
    told = {
        "first": ranks.first_says(lambda: {"from": mine}),
        "together": ranks.together(lambda: mine),
        "then": ranks.first_then_others(lambda: mine),
        "sum": ranks.sum(0.1 + mine),
        "in order": list(ranks.in_order(iter(f"batch {number} of {mine}" for number in range(mine, 5, 2)), 5)),
        "copied": [tensor.tolist() for tensor in tensors],
        "first's error": error_of(lambda: ranks.first_says(lambda: fails(UnknownName("model", "a", ["ab"], "See b.")))),
        "first's bug": error_of(lambda: ranks.first_says(lambda: fails(KeyError("no")))),
        "other's error": error_of(lambda: ranks.together(lambda: mine and fails(UnknownName("model", "a", [], "See.")))),
        "last": ranks.sum(1.0),
    }
    print(json.dumps(told))
"""


def test_every_rank_is_given_the_same_answers_and_the_same_errors(tmp_path: Path) -> None:
    said = torchrun(tmp_path / "logs", "-c", TALK).ranks
    first, second = (json.loads(each.stdout) for each in said)
    assert [each.stderr for each in said] == ["", ""]
    assert first.pop("in order") == ["batch 0 of 0", "batch 1 of 1", "batch 2 of 0", "batch 3 of 1", "batch 4 of 0"]
    assert second.pop("in order") == []
    assert (
        [told.pop("together") for told in (first, second)] == [told.pop("then") for told in (first, second)] == [0, 1]
    )
    assert first.pop("first's bug") == ["KeyError", "'no'", True, None]
    assert second.pop("first's bug") == ["DfadError", "KeyError: 'no'", True, 1]
    assert first == second
    assert first == {
        "first": {"from": 0},
        "sum": 1.2000000000000002,
        "copied": [True, [[1.5] * 3] * 2, 7],
        "first's error": ["UnknownName", "No model is named 'a'. Did you mean 'ab'? See b.", True, 2],
        "other's error": ["UnknownName", "No model is named 'a'. See.", True, 2],
        "last": 2.0,
    }
