"""What the models that can be trained here reach, over three seeds where two cores allow it: keeps a protocol's ``seeds.json``.

The runs themselves are the command's own: ``dfad-bench run --model A,B --protocol P --seeds 3``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from measure import RESULTS, record

from dfad_bench.records.results import read_result
from dfad_bench.scoring.seeds import over_seeds


def main() -> None:
    """Record what all finished runs of a protocol say, beside what other protocols' do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="the folder of one protocol's runs, such as runs/demo")
    folder: Path = parser.parse_args().runs
    results = [read_result(path) for path in sorted(folder.glob("*/seed-*/result.json"))]
    found = json.loads(over_seeds(results).model_dump_json())
    kept = RESULTS / "models.json"
    earlier = json.loads(kept.read_text(encoding="utf-8"))["rows"] if kept.is_file() else []
    others = [row for row in earlier if row["protocol"]["name"] != found["protocol"]["name"]]
    record("models", [*others, found])


if __name__ == "__main__":
    main()
