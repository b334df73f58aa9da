from __future__ import annotations

import torch
from torch.nn import functional as F

from dfad_bench.modelling.nn import Standardize, TwoHeads, classifier_output, detection_loss
from dfad_bench.types import Batch


def test_the_fake_score_is_one_minus_the_probability_of_real() -> None:
    logits = torch.randn(50, 4) * 3
    output = classifier_output(logits)
    torch.testing.assert_close(output.fake_score, 1 - logits.softmax(dim=1)[:, 0])
    assert float(output.fake_score.max()) <= 1


def test_sure_reals_do_not_tie() -> None:
    scores = classifier_output(torch.tensor([[30.0, 0.0], [40.0, 0.0], [50.0, 0.0]])).fake_score
    assert scores[0] > scores[1] > scores[2] > 0


def test_half_precision_logits_are_scored_in_single_precision() -> None:
    output = classifier_output(torch.randn(3, 4, dtype=torch.bfloat16))
    assert output.fake_score.dtype == torch.float32


def test_standardised_features_have_mean_zero_and_deviation_one() -> None:
    features = torch.randn(400, 3) * torch.tensor([1.0, 20.0, 0.5]) + torch.tensor([5.0, -3.0, 0.0])
    layer = Standardize(3)
    for batch in features.split(37):
        layer(batch)
    torch.testing.assert_close(layer.mean, features.mean(dim=0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(layer.variance, features.var(dim=0, correction=0), atol=1e-4, rtol=1e-4)
    scaled = layer.eval()(features)
    torch.testing.assert_close(scaled.mean(dim=0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std(dim=0, correction=0), torch.ones(3), atol=1e-4, rtol=0)


def test_what_was_measured_does_not_change_in_evaluation() -> None:
    layer = Standardize(2).eval()
    features = torch.randn(5, 2) * 9
    assert torch.equal(layer(features), features)


def test_a_batch_of_one_can_be_standardised_in_training() -> None:
    layer = Standardize(1)
    layer(torch.tensor([[1.0]]))
    layer(torch.tensor([[3.0]]))
    assert (float(layer.mean), float(layer.variance)) == (2.0, 1.0)


def test_a_feature_that_never_moved_in_training_stays_bounded_when_it_does() -> None:
    layer = Standardize(1)
    layer(torch.full((8, 1), 3.0))
    assert float(layer.eval()(torch.tensor([[3.5]])).abs()) <= 0.5 / 0.01 + 1e-3


def test_a_detector_of_its_own_answers_apart_from_the_leaf_classes() -> None:
    heads = TwoHeads(8, 3)
    embedding = torch.randn(5, 8)
    output = heads(embedding)
    assert output.logits is not None and output.logits.shape == (5, 3)
    torch.testing.assert_close(output.fake_score, heads.detector(embedding).squeeze(1).sigmoid())
    torch.testing.assert_close(output.embedding, embedding)
    target = torch.tensor([0, 1, 2, 0, 1])
    batch = Batch(5, target=target)
    fake = (target > 0).float()
    expected = F.cross_entropy(output.logits, target) + F.binary_cross_entropy(output.fake_score, fake)
    torch.testing.assert_close(heads.loss(embedding, batch), expected)


def test_a_sure_and_wrong_detector_has_a_finite_loss() -> None:
    loss = detection_loss(torch.tensor([200.0, -200.0]), Batch(2, target=torch.tensor([0, 2])))
    torch.testing.assert_close(loss, torch.tensor(200.0))
