"""Zero-shot CLIP compares faces with the sentences of four levels, encoded by the tower that it has now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dfad_bench.baselines.clip_zero_shot import MODEL, configure, load_backbone
from safetensors.torch import save_file
from torch.nn import functional as F

from dfad_bench.errors import DataError, UsageError
from dfad_bench.modelling.clip import TINY, Towers, tokenize
from dfad_bench.modelling.device import seed_everything
from dfad_bench.modelling.predict import predict
from dfad_bench.modelling.prompts import prompts
from dfad_bench.modelling.weights import find_backbone, load_weights, save_weights
from dfad_bench.testing import check_model
from dfad_bench.types import Batch
from tests.modelling.builders import CLASSES, make_faces

SMALL = replace(configure(backbone=TINY), configure=None)
CPU = torch.device("cpu")


def _module(seed: int = 0) -> Any:
    seed_everything(seed, CPU)
    return SMALL.build(CLASSES).eval()


def _faces(faces: int = 3) -> Batch:
    torch.manual_seed(3)
    return Batch(faces, image=torch.randn(faces, 3, 96, 96))


def _answers(module: Any) -> torch.Tensor:
    output = module(_faces())
    return torch.cat([output.logits, output.fake_score[:, None]], dim=1)


def _published(seed: int = 7) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return Towers(TINY).state_dict()


def test_it_keeps_the_contract() -> None:
    check_model(SMALL)


def _by_hand(module: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and fake scores, a sentence at a time."""
    image = F.normalize(module.visual(batch.image), dim=1)
    levels = prompts(CLASSES)
    sentences = sorted({one for level in levels for several in level.sentences for one in several})
    ids = tokenize(sentences, 48)[0]
    text = module.texts.text(F.pad(ids, (0, 48 - ids.shape[1])))
    told = {sentence: vector / vector.norm() for sentence, vector in zip(sentences, text, strict=True)}
    logits, fake = torch.zeros(batch.size, len(CLASSES)), torch.zeros(batch.size)
    for level in levels:
        cosines = []
        for several in level.sentences:
            mean = torch.stack([told[sentence] for sentence in several]).mean(dim=0)
            cosines.append(image @ (mean / mean.norm()))
        for row, value in enumerate(level.value_of):
            logits[:, row] += 100 * cosines[value] / 4
        if level.level == "authenticity":
            assert level.values == ("real", "fake")
            fake = (100 * (cosines[1] - cosines[0])).sigmoid()
    return logits, fake


@torch.no_grad()
def test_logits_are_mean_cosines_over_four_levels_and_the_score_hears_real_and_fake_alone() -> None:
    module, batch = _module(), _faces()
    output = module(batch)
    logits, fake = _by_hand(module, batch)
    torch.testing.assert_close(output.logits, logits, atol=1e-3, rtol=0)
    torch.testing.assert_close(output.fake_score, fake, atol=1e-4, rtol=0)
    assert len(set(output.logits[0].tolist())) == len(CLASSES), "each class is described otherwise"


def test_a_face_that_looks_like_a_sentence_is_said_to_be_that() -> None:
    module = _module()
    of_classes, of_authenticity = module.texts()
    seen = torch.stack([of_authenticity[1], of_authenticity[0], of_classes[2] - of_classes[1]])
    module.visual = torch.nn.Identity()
    output = module(Batch(3, image=seen))
    assert output.fake_score[0] > 0.5 > output.fake_score[1]
    assert output.logits[2].argmax() == 2


# --- the sentences are those of the tower's weights ----------------------------------------------------------------


def _count_encodings(module: Any) -> list[int]:
    calls: list[int] = []
    module.texts.text.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_the_sentences_are_encoded_once_for_any_number_of_faces(tmp_path: Path) -> None:
    module = _module()
    calls = _count_encodings(module)
    table = make_faces(tmp_path, 3, size=96)
    answers = list(predict(module, SMALL, table, batch_size=4, device=CPU))
    assert [len(answer.fake_score) for answer in answers] == [3, 3, 3]
    assert len(calls) == 1
    assert torch.equal(_answers(module), _answers(module)) and len(calls) == 1, "not even in another mode of autograd"


@pytest.mark.parametrize("way", ["load_backbone", "load_weights", "in place", "another precision"])
def test_sentences_never_outlive_the_weights_that_encoded_them(way: str, tmp_path: Path) -> None:
    module = _module()
    calls = _count_encodings(module)
    with torch.inference_mode():
        before = _answers(module)
    other = _module(seed=1)
    if way == "load_backbone":
        save_file(_published(), tmp_path / "clip.safetensors")
        load_backbone(module, tmp_path / "clip.safetensors")
        load_backbone(other, tmp_path / "clip.safetensors")
    elif way == "load_weights":
        save_weights(other, tmp_path / "model.safetensors", {})
        load_weights(module, tmp_path / "model.safetensors")
    elif way == "in place":
        with torch.no_grad():
            for own, theirs in zip(module.parameters(), other.parameters(), strict=True):
                own.copy_(theirs)
    else:
        module.texts.text.to(torch.float64)
        other = _module()
        other.texts.text.to(torch.float64)
    after = _answers(module)
    assert len(calls) == 2
    assert torch.equal(after, _answers(other)), "as if it had never had other weights"
    assert not torch.equal(after, before)


def test_the_texts_survive_saving_and_are_those_of_the_classes_not_of_the_file(tmp_path: Path) -> None:
    module = _module()
    answers = _answers(module)
    save_weights(module, tmp_path / "model.safetensors", {})
    other = _module(seed=5)
    _answers(other)
    load_weights(other, tmp_path / "model.safetensors")
    assert torch.equal(_answers(other), answers)
    fewer: Any = SMALL.build(CLASSES[:2]).eval()
    load_weights(fewer, tmp_path / "model.safetensors")
    assert fewer(_faces()).logits.shape == (3, 2)


# --- weights and options -------------------------------------------------------------------------------------------


def test_published_weights_fill_both_towers_and_a_missing_key_is_refused(tmp_path: Path) -> None:
    published = _published()
    save_file(published, tmp_path / "clip.safetensors")
    module = _module()
    load_backbone(module, tmp_path / "clip.safetensors")
    for tower, own in (("visual", module.visual), ("text", module.texts.text)):
        assert all(torch.equal(tensor, published[f"{tower}.{key}"]) for key, tensor in own.state_dict().items())
    del published["text.text_projection"]
    save_file(published, tmp_path / "cut.safetensors")
    with pytest.raises(DataError, match=r"missing text\.text_projection"):
        load_backbone(module, tmp_path / "cut.safetensors")


def test_nothing_of_it_can_be_trained() -> None:
    module = _module()
    assert not hasattr(module, "loss")
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_it_starts_from_openais_vit_b16_unless_told_otherwise() -> None:
    assert find_backbone("clip_zero_shot", MODEL, MODEL.default_backbone_weights).name == "ViT-B-16.pt"
    assert configure(backbone="ViT-B-16").default_backbone_weights == "published", "it was trained by others"
    assert configure(backbone=TINY).default_backbone_weights == "none"
    with pytest.raises(UsageError, match="ResNet"):
        configure(backbone="RN50")
