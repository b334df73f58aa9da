"""How long the table of Gaze-FID takes: 12 generators, 10,000 faces a side, 1,000 resamples, pitch and yaw."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from measure import record, timed

from dfad_bench.analysis.two_samples import compare_samples, real_null

FACES, GENERATORS, RESAMPLES = 10_000, 12, 1000
SD = np.array([12.0, 8.0])


def table(frames: int, shared: bool) -> dict[str, Any]:
    """Time the table with ``frames`` faces of each person; ``shared``: fakes show the persons that the reals show.

    The processor's seconds are kept beside the clock's, for a machine that others use too.
    """
    rng = np.random.default_rng(0)
    person = np.arange(2 * FACES) // frames
    # One null of 20,000 reals for all generators, as the command makes it.
    reals = rng.normal(size=(2 * FACES, 2)) * SD
    generators = [rng.normal(size=(FACES, 2)) * SD * (1 + 0.01 * number) for number in range(GENERATORS)]
    fake_person = person[:FACES] if shared else person[:FACES] + 2 * FACES
    used = time.process_time()
    null_seconds, null = timed(lambda: real_null(reals, person, FACES, resamples=RESAMPLES))
    seconds, found = timed(
        lambda: [
            compare_samples(reals[:FACES], fakes, person[:FACES], fake_person, resamples=RESAMPLES, null=null)
            for fakes in generators
        ]
    )
    return {
        "generators": GENERATORS,
        "faces": FACES,
        "resamples": RESAMPLES,
        "faces_a_person": frames,
        "same_people": shared,
        "p_method": found[0].p_method,
        "null_seconds": null_seconds,
        "seconds": null_seconds + seconds,
        "processor_seconds": time.process_time() - used,
    }


def main() -> None:
    """Measure and record."""
    record("gaze_fid", [table(1, shared=False), table(10, shared=False), table(10, shared=True)])


if __name__ == "__main__":
    main()
