"""A program: one machine at a list of cells, which writes down every run that it did not find finished.

Given a place for them, a model's name and a number of seeds; ``hang`` stops for ever in the first run, its claim held.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from dfad_bench import cell_work
from dfad_bench.dispatch import Dispatch, run_cells
from dfad_bench.planning import Request, silently
from dfad_bench.stores import Store
from dfad_bench.work_list import plan_cells


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("url", "data", "log", "models"):
        parser.add_argument(name)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--stale", type=float, default=600.0)
    parser.add_argument("--hang", action="store_true")
    given = parser.parse_args()
    run_planned, log = cell_work.run_planned, Path(given.log)

    def told(run: Any, progress: Any) -> Any:
        if given.hang:
            log.write_text("hangs\n", encoding="utf-8")
            time.sleep(600)
        outcome = run_planned(run, progress)
        if not outcome.finished_before:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{run.name} {run.request.seed}\n")
        return outcome

    cell_work.run_planned = told  # type: ignore[assignment]
    store = Store(given.url)
    request = Request("", "demo", Path(given.data), store.folder, device="cpu")
    how = Dispatch(store, pause=0.3, stale=given.stale)
    cells = plan_cells(request, given.models.split(","), ["demo"], range(given.seeds), [], silently, store=store)
    done = list(run_cells(cells, how, silently, print))
    print(" ".join(sorted(f"{cell.name}:{cell.request.seed}:{cell.state}" for cell in done)))


if __name__ == "__main__":
    main()
