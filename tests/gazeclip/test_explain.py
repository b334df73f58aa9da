from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dfad_bench import registry
from dfad_bench.errors import DataError, UsageError
from dfad_bench.modelling.weights import save_weights
from dfad_bench.types import Batch
from gazeclip import explain as explaining
from gazeclip.cli import app
from gazeclip.spec import configure_tiny
from tests.gazeclip.builders import CLASSES


def _weights(folder: Path, **options: object) -> Path:
    """Write the weights of a tiny GazeCLIP that has learned something, as a run leaves them."""
    torch.manual_seed(0)
    module = configure_tiny(**options).build(CLASSES)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.5)
    path = folder / "model.safetensors"
    told = {"model": {"name": "gazeclip_tiny", "options": options}, "classes": [asdict(leaf) for leaf in CLASSES]}
    save_weights(module, path, told)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "face.png"
    cv2.imwrite(str(path), cv2.GaussianBlur(rng.integers(0, 256, (256, 256, 3), np.uint8), (0, 0), 4))
    return path


def _run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["explain", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_an_explanation_says_what_the_model_says(tmp_path: Path, image: Path) -> None:
    trained = explaining.load(_weights(tmp_path))
    face, gaze_map = explaining.find_face(image, "whole_image")
    assert face.shape == (256, 256, 3)
    told = explaining.explain(trained, face, gaze_map)
    assert trained.spec.preprocess is not None
    batch_image = torch.from_numpy(trained.spec.preprocess(face, None))[None]
    with torch.no_grad():
        output = trained.module(Batch(1, image=batch_image))
    assert told.fake_score == pytest.approx(output.fake_score.item())
    np.testing.assert_allclose(told.probabilities, output.logits.softmax(1)[0], rtol=1e-5)
    assert told.looked_at is not None and told.looked_at.shape == (6, 6)
    assert told.looked_at.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(told.seen, face[80:176, 80:176])
    best = CLASSES[int(told.probabilities.argmax())]
    first = " ".join(word for word, _ in told.words[0])
    assert first == f"a photo of a {'real' if best.name == 'real' else 'fake'} face"
    for sentence in told.words:
        assert np.mean([importance for _, importance in sentence]) == pytest.approx(1, abs=1e-5)


def test_parts_that_are_switched_off_are_not_drawn(tmp_path: Path, image: Path) -> None:
    trained = explaining.load(_weights(tmp_path, injector=False, aws=False))
    told = explaining.explain(trained, *explaining.find_face(image, "whole_image"))
    assert told.looked_at is None and told.words == ()
    explaining.draw(told, tmp_path / "plain.png")
    assert cv2.imread(str(tmp_path / "plain.png")) is not None


def test_a_gaze_map_is_read_where_the_model_reads_one(tmp_path: Path, image: Path) -> None:
    trained = explaining.load(_weights(tmp_path, gaze_map=True))
    face, _ = explaining.find_face(image, "whole_image")
    left, right = np.zeros((2, 72, 120, 3), np.uint8)
    left[:, :60], right[:, 60:] = 255, 255
    one, other = explaining.explain(trained, face, left), explaining.explain(trained, face, right)
    assert not np.allclose(one.probabilities, other.probabilities)


def test_the_command_writes_a_figure_and_says_the_answer(tmp_path: Path, image: Path) -> None:
    weights, output = _weights(tmp_path), tmp_path / "figures" / "why.svg"
    code, out, _ = _run(image, "--weights", weights, "--output", output, "--face-detector", "whole_image")
    assert code == 0 and out.startswith("P(fake) ")
    svg = output.read_text(encoding="utf-8")
    assert all(leaf.name in svg for leaf in CLASSES) and "gaze injector, most" in svg
    assert {"photo", "face"} <= set(re.findall(r">(\w+)</text>", svg))
    again = tmp_path / "again.svg"
    _run(image, "--weights", weights, "--output", again, "--face-detector", "whole_image")
    assert again.read_bytes() == output.read_bytes()
    code, out, _ = _run(
        image, "--weights", weights, "--output", output, "--face-detector", "whole_image", "--format", "json"
    )
    told = json.loads(out)
    assert sum(told["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert np.shape(told["looked_at"]) == (6, 6)
    is_real = max(told["probabilities"], key=told["probabilities"].get) == "real"
    assert len(told["words"]) == (1 if is_real else 4)


def test_what_is_wrong_is_said_in_a_line(tmp_path: Path, image: Path) -> None:
    weights = _weights(tmp_path)
    broken = tmp_path / "broken.png"
    broken.write_bytes(image.read_bytes()[:200])
    for arguments, why in (
        ((broken, "--weights", weights, "--face-detector", "whole_image"), "broken.png: "),
        ((tmp_path / "none.png", "--weights", weights, "--face-detector", "whole_image"), "none.png: missing"),
        ((image, "--weights", image, "--face-detector", "whole_image"), "cannot be read as safetensors"),
        ((image, "--weights", weights, "--face-detector", "nobody"), "No face detector is named 'nobody'"),
        ((image, "--weights", weights, "--face-detector", "whole_image", "--output", "x.txt"), "x.txt: a figure"),
    ):
        code, _, err = _run(*arguments)
        assert code != 0 and err.startswith("Error: ") and why in err, (arguments, err)
        assert len(err.strip().splitlines()) == 1, err


def test_weights_of_another_model_and_weights_without_a_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    leaves = [asdict(leaf) for leaf in CLASSES]
    module = registry.get("models", "chance").build(CLASSES)
    save_weights(module, path, {"model": {"name": "chance", "options": {}}, "classes": leaves})
    with pytest.raises(UsageError, match="holds chance, and only GazeCLIP"):
        explaining.load(path)
    save_weights(module, path, {"classes": leaves})
    with pytest.raises(DataError, match="does not say which model it is of"):
        explaining.load(path)
    save_weights(module, path, {"model": {"name": "gazeclip_tiny"}, "classes": [{"nom": "real"}]})
    with pytest.raises(DataError, match="names its classes in a way"):
        explaining.load(path)
