"""Shows what a trained GazeCLIP made of one image: class probabilities, where it looked for gaze, which words it weighed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from dfad_bench import registry
from dfad_bench.errors import DataError, UsageError, shorten
from dfad_bench.modelling import clip
from dfad_bench.modelling.weights import load_weights, read_metadata
from dfad_bench.prepare.faces import CropRecipe, FaceMaker
from dfad_bench.prepare.gaze_map import HEIGHT, WIDTH
from dfad_bench.prepare.payloads import FilePayload
from dfad_bench.types import Batch, Leaf, ModelSpec, RawImage
from gazeclip.model import GazeCLIP

_CROP_SIZE = 256
_DIM = 0.3
"""Light that is left where the gaze injector does not look."""
_LETTER, _ASPECT = 9.0, 0.602
"""Points of a letter, and its width over its height in Matplotlib's monospaced font."""
_STYLE: dict[Any, Any] = {"font.size": 9, "svg.hashsalt": "gazeclip", "svg.fonttype": "none"}


@dataclass(frozen=True, slots=True)
class Trained:
    """A model from a weights file: the module in evaluation mode, its spec, its leaf classes."""

    module: GazeCLIP
    spec: ModelSpec
    classes: tuple[Leaf, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one face says to a model.

    seen [h, w, 3] uint8 RGB: what the model saw of the face; probabilities [C] over the classes; fake_score in 0..1;
    looked_at [h, w]: share of the gaze injector's attention on each cell, None without an injector; words: per level the
    sentence of the most probable class, word by word with AWS's importance (mean 1), empty without AWS.
    """

    seen: NDArray[np.uint8]
    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    fake_score: float
    looked_at: NDArray[np.float32] | None
    words: tuple[tuple[tuple[str, float], ...], ...]


def load(weights: Path) -> Trained:
    """Rebuild the model that a run of dfad_bench trained.

    Raises DataError for a file that is not one, UsageError for weights of another model than GazeCLIP.
    """
    told = read_metadata(weights)
    model, leaves = told.get("model"), told.get("classes")
    if not isinstance(model, dict) or not isinstance(leaves, list):
        raise DataError(f"{weights} does not say which model it is of. Give the model.safetensors of a run.")
    spec: ModelSpec = registry.get("models", str(model.get("name")))
    if model.get("options"):
        if spec.configure is None:
            raise DataError(f"{weights} names options of {model['name']}, which has none.")
        spec = spec.configure(**model["options"])
    try:
        classes = tuple(Leaf(**leaf) for leaf in leaves)
    except TypeError:
        raise DataError(f"{weights} names its classes in a way that this version does not know.") from None
    module = spec.build(classes)
    if not isinstance(module, GazeCLIP):
        raise UsageError(f"{weights} holds {model['name']}, and only GazeCLIP can be explained here.")
    load_weights(module, weights)
    return Trained(module.eval(), spec, classes)


def find_face(image: Path, detector: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Return the face crop [256, 256, 3] uint8 RGB of an image, cut as ``prepare`` cuts it, and its gaze map or None.

    Raises UsageError where the image has no face that is surely meant, or cannot be read.
    """
    margin: float = registry.get("face_detectors", detector).default_margin
    maker = FaceMaker("explained", CropRecipe(detector, "gradient", margin, _CROP_SIZE))
    payload = FilePayload(image.absolute().parent, image.name)
    raw = RawImage(image.stem, "real", "real", "real", "unknown", "unknown", payload)  # labels that nothing here reads
    for faces, skips in maker.make([raw]):
        for skip in skips:
            raise UsageError(
                f"{image}: {skip.reason} ({skip.detail}). Give an image with one face, or --face-detector whole_image."
            )
        face = faces[0]
        return _decoded(face.png), None if face.gaze_png is None else _decoded(face.gaze_png)
    raise AssertionError("an image becomes a face or a skip")


def explain(trained: Trained, face: NDArray[np.uint8], gaze_map: NDArray[np.uint8] | None = None) -> Explanation:
    """Return what a model makes of a face crop [S, S, 3] uint8 RGB and, where it reads one, a gaze map [72, 120, 3] uint8."""
    module, spec = trained.module, trained.spec
    assert spec.preprocess is not None
    image = torch.from_numpy(spec.preprocess(face, None))[None]
    if gaze_map is None:
        gaze_map = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    discs = torch.from_numpy(gaze_map[..., :2].transpose(2, 0, 1).astype(np.float32) / 255)[None]
    batch = Batch(1, image=image, gaze_map=discs if "gaze_map" in spec.inputs else None)
    with torch.inference_mode():
        seen = module.see(batch)
        logits, fake = module.head(seen.features)
        probabilities = logits.softmax(dim=1)[0].numpy()
        looked_at: NDArray[np.float32] | None = None
        if seen.gaze is not None and len(module.gie.injectors):
            rows, columns = seen.gaze.grid
            shares = module.gie.looked_at(seen.patches, seen.gaze.tokens)[0, : rows * columns]
            looked_at = shares.reshape(rows, columns).numpy()
        words = _words(module, int(probabilities.argmax()))
    names = tuple(leaf.name for leaf in trained.classes)
    return Explanation(_pixels(image[0]), names, probabilities, float(fake.sigmoid()), looked_at, words)


def _words(module: GazeCLIP, leaf: int) -> tuple[tuple[tuple[str, float], ...], ...]:
    """Return the first sentence that each level says of a class, as words and their importances."""
    importance = None if module.lre is None else module.lre().importance
    if module.lre is None or importance is None:
        return ()
    told = {}
    for level in module.lre.prompts:
        sentence = level.sentences[level.value_of[leaf]][0]
        row = module.lre.sentences.index(sentence)
        told[sentence] = tuple(zip(module.lre.words[row], importance[row].tolist(), strict=False))
    return tuple(told.values())


def _pixels(image: torch.Tensor) -> NDArray[np.uint8]:
    """Return an image [3, h, w] that was normalised for CLIP as pixels."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (clip.MEAN, clip.STD))
    pixels: NDArray[np.uint8] = ((image * std + mean) * 255).round().clamp(0, 255).permute(1, 2, 0).byte().numpy()
    return pixels


def _decoded(png: bytes) -> NDArray[np.uint8]:
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert pixels is not None, "our own PNG"
    return pixels.astype(np.uint8, copy=False)


# --- the picture ---------------------------------------------------------------------------------------------------


def draw(explanation: Explanation, path: Path) -> None:
    """Write the explanation as a figure; the suffix of ``path`` is .png, .svg or .pdf, else UsageError.

    Greys only. In a sentence a darker box is a more important word (the paper's figure 5 has brighter ones, on black).
    """
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise UsageError(f"{path}: a figure is written as .png, .svg or .pdf.")
    panels = 3 if explanation.looked_at is not None else 2
    lines = len(explanation.words)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(
            figsize=(3.1 * panels, 3.4 + 0.32 * lines), layout=ConstrainedLayoutEngine(h_pad=0.09, w_pad=0.09)
        )
        parts: Any = figure.subfigures(2, 1, height_ratios=(3.4, 0.32 * lines)) if lines else (figure,)
        upper = parts[0]
        axes: list[Axes] = list(np.atleast_1d(upper.subplots(1, panels)))
        axes[0].imshow(explanation.seen)
        axes[0].set_title(f"P(fake) = {explanation.fake_score:.3f}")
        if explanation.looked_at is not None:
            _draw_attention(axes[1], explanation)
        _draw_probabilities(axes[-1], explanation)
        for each in axes[:-1]:
            each.set_axis_off()
        if lines:
            _draw_words(parts[1].subplots(), explanation.words, 0.95 * figure.get_figwidth())
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_attention(axes: Axes, explanation: Explanation) -> None:
    """Dim what was looked at less."""
    assert explanation.looked_at is not None
    side = explanation.seen.shape[:2]
    large = cv2.resize(explanation.looked_at, side[::-1], interpolation=cv2.INTER_CUBIC)
    light = _DIM + (1 - _DIM) * np.clip(large / max(float(large.max()), 1e-12), 0, 1)
    axes.imshow(np.rint(explanation.seen * light[..., None]).astype(np.uint8))
    share = float(explanation.looked_at.max()) * explanation.looked_at.size
    axes.set_title(f"gaze injector, most: {share:.1f} × the mean")


def _draw_probabilities(axes: Axes, explanation: Explanation) -> None:
    order = np.argsort(explanation.probabilities)[::-1][:8][::-1]
    names = [explanation.classes[index] for index in order]
    bars = axes.barh(names, explanation.probabilities[order], color="0.6", edgecolor="black", linewidth=0.5)
    axes.bar_label(bars, [f"{explanation.probabilities[index]:.2f}" for index in order], padding=2)
    axes.set_xlim(0, 1.15)
    axes.set_xlabel("probability")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _draw_words(axes: Axes, sentences: Sequence[Sequence[tuple[str, float]]], width: float) -> None:
    """Write sentences into axes ``width`` inches wide, in letters that let the longest one fit."""
    axes.set_axis_off()
    axes.set_ylim(len(sentences) - 0.5, -0.5)
    most = max(importance for sentence in sentences for _, importance in sentence)
    least = min(importance for sentence in sentences for _, importance in sentence)
    longest = max(sum(len(word) + 1.5 for word, _ in sentence) for sentence in sentences)
    size = min(_LETTER, 72 * width / (_ASPECT * longest))
    axes.set_xlim(0, 72 * width / (_ASPECT * size))
    for line, sentence in enumerate(sentences):
        place = 0.0
        for word, importance in sentence:
            grey = 1 - 0.45 * (importance - least) / max(most - least, 1e-6)
            box = {"facecolor": str(grey), "edgecolor": "0.6", "linewidth": 0.3, "boxstyle": "square,pad=0.2"}
            axes.text(place, line, word, family="monospace", fontsize=size, va="center", bbox=box, parse_math=False)
            place += len(word) + 1.5
    axes.set_title(f"AWS: importance of words, {least:.3f} (white) to {most:.3f} (grey)", loc="left", fontsize=8)


def described(explanation: Explanation) -> dict[str, Any]:
    """Return the explanation as plain data for JSON."""
    return {
        "fake_score": explanation.fake_score,
        "probabilities": dict(zip(explanation.classes, explanation.probabilities.tolist(), strict=True)),
        "looked_at": None if explanation.looked_at is None else explanation.looked_at.tolist(),
        "words": [[list(pair) for pair in sentence] for sentence in explanation.words],
    }


def summary(explanation: Explanation) -> str:
    """Return one line: the most probable classes and the fake score."""
    order = np.argsort(explanation.probabilities)[::-1]
    told = [f"{explanation.classes[index]} {explanation.probabilities[index]:.2f}" for index in order]
    return f"P(fake) {explanation.fake_score:.3f}; {shorten(told, 3)}"
