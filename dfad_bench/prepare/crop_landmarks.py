"""Says where a face's landmarks lie in its crop, from what its manifest's row tells of the original.

The cut is repeated on paper: its side is the crop's over ``crop_scale``, its place the box's, and a crop that was turned
was turned by its landmarks. Rows hold boxes as float32, and a cut begins at whole pixels; so that a box of decimals is not
rounded to the other side, each number is taken for the shortest decimal that its float32 stands for. That gives the numbers
that the estimator was given while preparing, bit by bit, unless a box has digits beyond float32 and its cut begins within
1e-4 px of half a pixel: landmarks are then one pixel of the original away.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dfad_bench.prepare.crop import (
    from_original,
    in_reduced,
    map_points,
    square_corner,
    square_matrix,
    upright_matrix,
)
from dfad_bench.records.manifest import PrepareRecipe


def landmarks_in_crop(
    recipe: PrepareRecipe,
    box: Sequence[float],
    landmarks: Sequence[float] | None,
    crop_scale: float,
    decode_reduction: int,
) -> NDArray[np.float32]:
    """Return the landmarks [5, 2] of a manifest's row in crop pixels, NaN where the row has none.

    box (x0, y0, x1, y1) and landmarks (x, y five times) in pixels of the original; crop_scale: crop pixels per original
    pixel; decode_reduction: 1, 2, 4 or 8.
    """
    if landmarks is None:
        return np.full((5, 2), np.nan, np.float32)
    points = np.asarray(landmarks, np.float32).reshape(5, 2)
    if recipe.align:
        matrix = upright_matrix(in_reduced(points, decode_reduction), recipe.margin, recipe.size)
    else:
        side = round(recipe.size / (crop_scale * decode_reduction))
        x0, y0, x1, y1 = (float(str(np.float32(value))) / decode_reduction for value in box)
        matrix = square_matrix(*square_corner((x0, y0, x1, y1), side), side, recipe.size)
    if decode_reduction != 1:
        matrix = from_original(matrix, decode_reduction)
    return map_points(matrix, points)
