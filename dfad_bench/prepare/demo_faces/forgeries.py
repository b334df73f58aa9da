"""Imitations of what five families of generators do to pixels, one function each.

Their fingerprints come from the mechanism, not from a mark: nothing is drawn that only says which generator it was.
They are caricatures for showing the tool, and prove nothing about real generators. What each does to gaze is decided in
``casting``, where the ground truth is; here are the pixels.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from dfad_bench.prepare.demo_faces.camera import Pixels, develop, photograph, to_bytes
from dfad_bench.prepare.demo_faces.canvas import Raster, cloudy, filled, soften, stroked, thrice, white_noise
from dfad_bench.prepare.demo_faces.draws import stream
from dfad_bench.prepare.demo_faces.geometry import EYE_Y, MOUTH_Y, Head, Points
from dfad_bench.prepare.demo_faces.renderer import Rendering, render
from dfad_bench.prepare.demo_faces.scene import CROP, Scene

_LENS = 0.6
"""Blur of the photographs that a generator learned from, standard deviation in px."""

_UPSAMPLING = np.outer([0.25, 0.75, 0.735, 0.265], [0.245, 0.745, 0.765, 0.245]).astype(np.float32)
"""A 4 × 4 kernel near the bilinear one, as training leaves it: its four phases do not sum to the same value."""


def pristine(scene: Scene) -> Pixels:
    """Return the uint8 picture [H, W, 3] that the camera takes of a scene."""
    return photograph(render(scene).image, scene.photo)


def synthesise_gan(scene: Scene) -> Pixels:
    """Imitate a convolutional GAN: decode from a quarter of the size by zero insertion and a learned kernel, twice.

    The kernel's phases do not match, so a constant area becomes a checkerboard and the spectrum has peaks at half and at
    the whole of the Nyquist frequency (Odena, Dumoulin & Olah, Distill 2016; Durall, Keuper & Keuper, CVPR 2020). Noise
    injected between the stages gives it back some texture, as in StyleGAN (Karras et al., CVPR 2019).
    """
    rng = stream(scene.photo.name, "gan")
    return to_bytes(_decoded(soften(develop(render(scene).image), _LENS), rng))


def synthesise_diffusion(scene: Scene) -> Pixels:
    """Imitate latent diffusion: the decoder does not bring back the highest frequencies, and a little noise remains.

    Loss of high frequencies: Corvi et al., CVPR Workshops 2023; Ricker et al., VISAPP 2024. The blur is followed by
    sharpening of what is left, which gives crisp edges without texture; the noise that denoising left over is coarser
    than a sensor's.
    """
    rng = stream(scene.photo.name, "diffusion")
    image = soften(develop(render(scene).image), 1.35)
    image += np.float32(0.7) * (image - soften(image, 2.2))
    height, width = image.shape[:2]
    residue = soften(white_noise(rng, (height, width)), 1.3) * np.float32(4.0)
    image += thrice(residue)
    return to_bytes(soften(image, 0.5))


def synthesise_flow(scene: Scene) -> Pixels:
    """Imitate a flow model solved in few steps: areas flow together, edges stay, and skin turns to wax.

    Straight paths solved coarsely land between modes (Liu, Gong & Liu, ICLR 2023), which averages texture away within
    areas of one colour: here, repeated edge-preserving averaging (Tomasi & Manduchi, ICCV 1998).
    """
    image = to_bytes(soften(develop(render(scene).image), _LENS))
    for spread in (30, 24):
        image = cv2.bilateralFilter(image, 5, spread, 2.5)
    return image


def swap(target: Scene, inner: Scene) -> Pixels:
    """Imitate an autoencoder's face swap: ``inner`` (the source's face on the target's head) pasted into a photograph.

    The decoder works at half the size, the colours of the pasted face are moved to those of the target (Reinhard et
    al., IEEE CG&A 2001), and a feathered mask hides the seam, which is what Face X-ray looks for (Li et al., CVPR 2020).
    """
    photo = pristine(target)
    window, inner = _close_up(inner)
    around = photo[window].astype(np.float32)
    mask = thrice(soften(_inner_face(Head(inner), around.shape), 4.0))
    face = soften(develop(render(inner).image), _LENS)
    face = _enlarged(cv2.resize(face, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), around.shape)
    inside = mask[..., 0] > 0.5
    for channel in range(3):
        given, wanted = face[..., channel][inside], around[..., channel][inside]
        ratio = float(np.clip(wanted.std() / max(float(given.std()), 1.0), 0.7, 1.4))
        face[..., channel] = (face[..., channel] - given.mean()) * np.float32(ratio) + wanted.mean()
    photo[window] = to_bytes(around + (face - around) * mask)
    return photo


def edit(original: Scene, edited: Scene, attribute: str) -> Pixels:
    """Imitate an attribute edit: one region of a photograph is made anew by a GAN, the rest keeps the camera's pixels.

    As in editors that blend the edited region back into the input (STGAN, Liu et al., CVPR 2019; MaskFaceGAN, Pernuš
    et al., IEEE TIP 2023).
    """
    photo = pristine(original)
    window, edited = (np.s_[:, :], edited) if attribute == "hair" else _close_up(edited)
    around = photo[window].astype(np.float32)
    after = render(edited)
    made = _decoded(soften(develop(after.image), _LENS), stream(original.photo.name, "edit"))
    photo[window] = to_bytes(around + (made - around) * thrice(region(edited, attribute, after)))
    return photo


def _close_up(scene: Scene) -> tuple[tuple[slice, slice], Scene]:
    """Return the rows and columns of a scene's crop, and the scene on a canvas of that size: the face and no more."""
    photo = scene.photo
    window = slice(photo.top, photo.top + CROP), slice(photo.left, photo.left + CROP)
    return window, replace(scene, photo=replace(photo, left=0, top=0, width=CROP, height=CROP))


def region(scene: Scene, attribute: str, rendering: Rendering) -> Raster:
    """Return where an edit may change pixels: [H, W] in 0..1, exactly 0 outside, feathered over a few pixels.

    attribute: ``hair``, ``mouth``, ``eyes`` (age around the eyes) or ``glasses``.
    """
    shape, head = rendering.hair.shape, Head(scene)
    eyes = _oval(head, 0, EYE_Y + 1, 58, 25)
    if attribute == "hair":
        mask = rendering.hair * (1 - filled(shape, eyes))
    elif attribute == "mouth":
        mask = filled(shape, _oval(head, 0, MOUTH_Y + 2, 36, 22))
    elif attribute == "eyes":
        mask = filled(shape, eyes)
    else:
        mask = np.maximum(filled(shape, _oval(head, 0, EYE_Y + 2, 64, 28)), _temples(head, shape))
    # What a Gaussian leaves far away is cut off, so that outside the region every pixel is the camera's.
    feathered: Raster = np.clip((soften(mask, 2.5) - np.float32(0.02)) * np.float32(1 / 0.96), 0, 1)
    return feathered


def _decoded(image: Raster, rng: np.random.Generator) -> Raster:
    """Return an image [H, W, 3] in 0..255 after it went down to a quarter of its size and up again, with new texture."""
    quarter = cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    # Skip paths carry detail past the narrowest layer; what they carry is what that layer's upsampling missed.
    coarse = _upsampled(quarter, half.shape)
    half = half + np.float32(0.35) * (coarse - _enlarged(quarter, half.shape))
    half += thrice(soften(white_noise(rng, half.shape), 0.6) * np.float32(3.0) + cloudy(rng, half.shape, 3))
    return _upsampled(half, image.shape) + np.float32(0.35) * (image - _enlarged(half, image.shape))


def _upsampled(image: Raster, shape: tuple[int, ...]) -> Raster:
    """Return an image at twice its size: zeros between its pixels, then the learned kernel (transposed convolution)."""
    spread = np.zeros((image.shape[0] * 2, image.shape[1] * 2, 3), np.float32)
    spread[::2, ::2] = image
    large = cv2.filter2D(spread, -1, _UPSAMPLING, borderType=cv2.BORDER_REFLECT_101)
    return _fitted(large, shape)


def _fitted(image: Raster, shape: tuple[int, ...]) -> Raster:
    """Cut an image, or repeat its border, to the height and width of ``shape``: sides may not divide by four."""
    more_rows, more_columns = max(shape[0] - image.shape[0], 0), max(shape[1] - image.shape[1], 0)
    if more_rows or more_columns:
        image = cv2.copyMakeBorder(image, 0, more_rows, 0, more_columns, cv2.BORDER_REPLICATE)
    return image[: shape[0], : shape[1]]


def _enlarged(image: Raster, shape: tuple[int, ...]) -> Raster:
    return cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


def _oval(head: Head, x: float, y: float, half_width: float, half_height: float) -> Points:
    angle = np.linspace(0, 2 * np.pi, 41)
    return head.on_skin(x + half_width * np.cos(angle), y + half_height * np.sin(angle), 4)


def _inner_face(head: Head, shape: tuple[int, ...]) -> Raster:
    """Return the mask [H, W] from the brows to below the mouth that a face swap replaces."""
    angle = np.linspace(0, 2 * np.pi, 61)
    across, down = np.cos(angle), np.sin(angle)
    return filled(shape, head.on_skin(54 * across * (1 - 0.16 * down), 29 + 60 * down, 2))


def _temples(head: Head, shape: tuple[int, ...]) -> Raster:
    sides = [
        head.project(np.array([[s * 52, EYE_Y, 62], [s * 74, EYE_Y - 1, 20], [s * 76, EYE_Y, -8]])) for s in (-1, 1)
    ]
    return stroked(shape, sides, 9)
