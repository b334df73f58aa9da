"""Puts the measured figures into the READMEs, between their markers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from measure import RESULTS

from dfad_bench.publish.seeds import seeds_table
from dfad_bench.publish.tables import markdown
from dfad_bench.records.seeds import SeedsRecord

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
MAP = re.compile(r"\[`(.+?)`\]\((\w+\.py)#L(\d+)\)")
"""Code, file and line in the map from formulas to lines of GazeCLIP's README."""
BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"


def rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of one benchmark's result."""
    kept: list[dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["rows"]
    return kept


def lines() -> list[str]:
    """Return the table, a line each."""
    told = ["| what | measured | against |", "|---|---|---|"]
    for row in rows("startup")[1:]:
        share = f"{row['share_of_torch']:.0%} of importing torch"
        told.append(f"| `{row['command']}` | {row['seconds']:.2f} s | {share} |")
    for row in rows("prepare"):
        speed = f"{row['faces_per_second']:.0f} faces/s" if "faces_per_second" in row else f"{row['seconds']:.2f} s"
        memory = f", {row['peak_mib']:.0f} MiB at most in any process" if "peak_mib" in row else ""
        ratio = f"{row['speed_over_bare_loop']:.2f} × the bare loop" if "speed_over_bare_loop" in row else ""
        if row.get("speed_over_one_worker", 1) != 1:
            ratio += f", {row['speed_over_one_worker']:.2f} × one worker"
        told.append(f"| prepare: {row['what']} | {speed}{memory} | {ratio} |")
    told += [f"| prepare, 100,000 faces: {row['what']} | {row['seconds']:.2f} s |  |" for row in rows("resume")[1:]]
    for row in rows("audit"):
        ratio = f"{row['speed']:.0f} × comparing all pairs" if "speed" in row else ""
        told.append(f"| audit: {row['what']}, {row['faces']:,} faces | {row['seconds']:.1f} s | {ratio} |")
    told += [*scoring_lines(), *gaze_fid_lines()]
    told += ["", *face_lines(), "", *gaze_lines(), "", *coverage_lines(), "", *calibration_lines(), "", *power_lines()]
    told += ["", *perturbation_lines()]
    machine = json.loads((RESULTS / "prepare.json").read_text(encoding="utf-8"))["machine"]
    return [*told, "", f"On {machine['cores']} cores, Python {machine['python']}, {machine['platform']}."]


def scoring_lines() -> list[str]:
    """Return the rows of reading and scoring a predictions file, and of resampling it."""
    told = []
    for row in rows("scoring"):
        if row["what"] == "report":
            asked = f"{row['resamples']:,} resamples" if row["resamples"] else "no intervals"
            ratio = f"{row['speed_per_number']:.0f} × a script, per number" if "speed_per_number" in row else ""
            told.append(
                f"| read and score {row['frames']:,} frames, {row['numbers']} numbers, {asked} "
                f"| {row['seconds']:.1f} s, {row['peak_mib']:.0f} MiB | {ratio} |"
            )
        elif "clusters" in row:
            told.append(
                f"| {row['what']} over {row['frames']:,} frames in {row['clusters']:,} clusters | {row['seconds']:.1f} s "
                f"| {row['speed']:.0f} × calling scikit-learn as often |"
            )
    return told


def gaze_fid_lines() -> list[str]:
    """Return the rows of the whole table of gaze-FID and of the Fréchet distance alone."""
    told = []
    for row in rows("gaze_fid"):
        faces = f"{row['generators']} generators, {row['faces']:,} faces a side, {row['resamples']:,} resamples"
        persons = ", the same in reals and fakes" if row["same_people"] else ""
        told.append(f"| gaze-FID: {faces}; {frames(row['faces_a_person'])}{persons} | {row['seconds']:.1f} s |  |")
    for row in rows("frechet"):
        ratio = f"{row['speed']:.2g} × SciPy's `sqrtm`"
        told.append(f"| Fréchet distance, {row['dimensions']} dimensions | {row['seconds']:.3f} s | {ratio} |")
    return told


def frames(of_a_person: int) -> str:
    """Return how many faces of each person there are, in words."""
    return "a face a person" if of_a_person == 1 else f"{of_a_person} faces a person"


def calibration_lines() -> list[str]:
    """Return the table of how gaze-FID's p-values and intervals behave where reals and fakes do not differ."""
    chosen = [row for row in rows("gaze_fid_calibration") if row["what"] == "no difference"]
    setting = f"{chosen[0]['simulations']} simulations of {chosen[0]['faces']} faces a side"
    told = [
        f"| gaze-FID where nothing differs, {setting} | p ≤ 0.05: Fréchet, KID, energy | p uniform? Kolmogorov-Smirnov's p "
        "| the 95 % interval holds 0 |",
        "|---|---|---|---|",
    ]
    meaning = {
        "independent": "a face a person",
        "clustered": "10 faces a person, other people in the fakes",
        "shared": "10 faces a person, the same people in the fakes",
        "unlike": "10 faces a person in the reals, one in the fakes",
    }
    for row in chosen:
        shares = ", ".join(f"{row[f'{test}_up_to_0.05']:.1%}" for test in ("p", "kid_p", "energy_p"))
        uniform = ", ".join(f"{row[f'{test}_ks']:.2f}" for test in ("p", "kid_p", "energy_p"))
        told.append(f"| {meaning[row['scenario']]} | {shares} | {uniform} | {row['interval_covers_0']:.1%} |")
    return told


def power_lines() -> list[str]:
    """Return the table of how often gaze-FID's tests see a small difference."""
    chosen = [row for row in rows("gaze_fid_calibration") if row["what"] == "power"]
    sizes = sorted({row["faces"] for row in chosen})
    told = [
        f"| differences seen at p ≤ 0.05 by Fréchet, KID, energy; {chosen[0]['simulations']} simulations, a face a person "
        f"| {' | '.join(f'{size:,} faces a side' for size in sizes)} |",
        "|---|" + "---|" * len(sizes),
    ]
    for difference in sorted({row["difference"] for row in chosen}):
        seen = {row["faces"]: row for row in chosen if row["difference"] == difference}
        cells = [", ".join(f"{seen[size][test]:.0%}" for test in ("frechet", "kid", "energy")) for size in sizes]
        told.append(f"| {difference} ({seen[sizes[0]]['truth']:.2f} deg²) | {' | '.join(cells)} |")
    return told


def coverage_lines() -> list[str]:
    """Return the table of how often 95 % intervals hold the truth, on simulated faces that come in clusters."""
    told = [
        "| 95 % intervals that hold the truth, 2,000 simulations | clusters of 20 faces | frame by frame "
        "| DeLong, clustered | percentile bootstrap | **ours: clustered BCa** |",
        "|---|---|---|---|---|---|",
    ]
    meaning = {
        "separate": "AUC, a cluster is real or fake",
        "mixed": "AUC, a cluster holds both",
        "accuracy": "ACC (naive: binomial)",
    }
    for row in rows("coverage"):
        if "scenario" in row:
            cells = (row.get(name) for name in ("naive", "clustered_delong", "percentile", "bca"))
            shown = " | ".join("–" if share is None else f"{share:.1%}" for share in cells)
            told.append(f"| {meaning[row['scenario']]} | {row['clusters']} | {shown} |")
    return told


def perturbation_lines() -> list[str]:
    """Return the table of what a perturbation costs."""
    told = ["| perturbation, severity 3, a 256 px face | ms on one core | of decoding its PNG |", "|---|---|---|"]
    told += [
        f"| `{row['what'].removesuffix(':3')}` | {row['ms']:.2f} | {row['times_decoding']:.1f} × |"
        for row in rows("perturbations")[1:]
    ]
    return told


def face_lines() -> list[str]:
    """Return the table of finding and cropping faces, one core, from a JPEG on disk to a PNG crop."""
    told = [
        "| frames with one face, one core | read, detect, crop, write | dlib HOG, as DeepfakeBench crops | ratio |",
        "|---|---|---|---|",
    ]
    for row in rows("faces"):
        stages = ", ".join(f"{stage} {row[f'{stage}_ms']:.1f}" for stage in ("decode", "detect", "crop", "encode"))
        ours = f"{row['frames_per_second']:.0f} frames/s ({stages} ms)"
        measured = "times_faster" in row  # dlib compiles for many minutes, so it may not have been there
        theirs = f"{row['dlib_frames_per_second']:.2f} frames/s | {row['times_faster']:.0f} ×" if measured else "– | –"
        told.append(f"| {row['frames']} | {ours} | {theirs} |")
    return told


def gaze_lines() -> list[str]:
    """Return the table of gaze estimators on rendered faces, whose gaze is known, with YuNet's landmarks or none."""
    told = [
        "| gaze estimator, on rendered faces | landmarks | median error, near-frontal | 90th percentile "
        "| mirrored yaw, pitch | faces/s |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows("gaze"):
        if row["landmarks"] != "drawn" and row["estimator"] != "annotated":
            mirror = f"{row['mirror_yaw']:.2f}°, {row['mirror_pitch']:.2f}°"
            errors = f"{row['median_near_frontal']:.1f}° | {row['p90_near_frontal']:.1f}°"
            told.append(
                f"| `{row['estimator']}` | {row['landmarks']} | {errors} | {mirror} | {row['faces_per_core_second']:.0f} |"
            )
    return told


def scaling_lines() -> list[str]:
    """Return the tables of docs/scaling.md: engines, manifests, packed faces."""
    empty = next(row["tasks_per_second"] for row in rows("scaling") if "tasks_per_second" in row)
    told = ["| prepare | faces/s | over local | efficiency | peak |", "|---|---|---|---|---|"]
    for row in rows("scaling"):
        if "seconds" in row:
            speed = f"{row['faces_per_second']:.0f}" if "faces_per_second" in row else "–"
            efficiency = f"{row['efficiency']:.0%}" if "efficiency" in row else "–"
            peak = f"{row['peak_mib']:.0f} MiB" if "peak_mib" in row else "–"
            peak += f" ({row['peak_over_few']:.2f} × few)" if "peak_over_few" in row else ""
            told.append(f"| {row['what']} | {speed} | {row['over_local']:+.0%} | {efficiency} | {peak} |")
    told += ["", f"Tasks that do nothing go through Ray at {empty:.0f} a second here."]
    told += ["", "| of a face | bytes |", "|---|---|"]
    weighed = [row for row in rows("scaling") if "bytes" in row]
    told += [f"| {row['what'].removeprefix('bytes of a face, ')} | {row['bytes']:,.0f} |" for row in weighed]
    told += ["", "| selecting from a manifest | faces | chosen | s | CPU s | peak |", "|---|---|---|---|---|---|"]
    ways = {"streamed": "", "objects": " (as Python objects)"}
    for row in rows("manifests"):
        told.append(
            f"| {row['protocol']}{ways[row['way']]} | {row['faces']:,} | {row['chosen']:,} | {row['seconds']:.3g} "
            f"| {row['cpu_seconds']:.3g} | {row['peak_mib']:.0f} MiB |"
        )
    told += ["", "| 50,000 faces | loose | packed | row groups | load_dataset |", "|---|---|---|---|---|"]
    for row in rows("packed"):
        if "packed" in row:
            cells = [
                f"{row[way]:,.2f}" if row.get(way, 9) < 9 else f"{row[way]:,.0f}" if way in row else "–" for way in WAYS
            ]
            told.append(f"| {row['what']} | {' | '.join(cells)} |")
    return told


WAYS = ("loose", "packed", "row_groups", "load_dataset")


def gazeclip_regions() -> dict[str, list[str]]:
    """Return the regions of GazeCLIP's README by name: its size and speed, and what each part is worth."""
    return {"speed": _gazeclip_speed(), "ablation": _gazeclip_ablation()}


def _gazeclip_speed() -> list[str]:
    kept = rows("gazeclip_speed")
    told = ["| part, ViT-B/16, twelve classes | parameters | GFLOP |", "|---|---|---|"]
    told += [
        f"| {row['part']} | {row['parameters'] / 1e6:.2f} M | {row['gflop']:.2f} a {row['per']} |"
        for row in kept
        if "part" in row
    ]
    told += ["", "| in one run | plain CLIP, ms a face | GazeCLIP | ratio |", "|---|---|---|---|"]
    for row in (*kept, *rows("gpu")):
        if row.get("what") in ("inference", "training step"):
            plain = row.get("tower_ms_a_face", row.get("plain_ms_a_face"))
            ratio = row.get("times_tower", row.get("times_plain"))
            told.append(
                f"| {row['what']}, {row['device']}, batch {row['batch']} | {plain:.3g} "
                f"| {row['gazeclip_ms_a_face']:.3g} | {ratio:.2f} × |"
            )
    told += [
        "",
        f"| answers on an {gpu('answers')['device']} | ms a face | largest difference of a probability | same class |",
    ]
    told += ["|---|---|---|---|"]
    told += [
        f"| {row['way']} | {row['ms_a_face']:.3g} | {row['largest_difference']:.2g} | {row['same_class']:.0%} |"
        for row in rows("gpu")
        if row.get("what") == "answers"
    ]
    loaders = ", ".join(
        f"{row['faces_per_second']:.0f} faces/s in {row['workers']} worker processes"
        if row["workers"]
        else f"{row['faces_per_second']:.0f} faces/s in the training process"
        for row in kept
        if row.get("what") == "loader"
    )
    told += [
        "",
        "By `python benchmarks/gazeclip_speed.py`: the towers' weights change no time, so they are random. Inference is set",
    ]
    told += [
        "against open_clip's image tower alone, a training step against the same tower with our head. The loader (PNG of"
    ]
    told += [f"256 px, resized, mirrored, normalised) gives {loaders}."]
    used, epoch = gpu("utilisation"), gpu("training epoch from disk")
    told += [
        f"On the {used['device']} (`python benchmarks/gpu.py`), inference reaches {used['inference_tflops']:.0f} TFLOP/s, "
        f"{used['share']:.0%} of a matrix product",
        f"of 8192 × 8192 there. An epoch from PNG files trains {epoch['faces_per_second']:.0f} faces/s with {epoch['workers']} "
        f"loader processes; the GPU waits for faces",
        f"{epoch['idle']:.1%} of the time, and batches of {epoch['batch']} take {epoch['peak_gib']:.1f} GiB.",
        "There kernels need not be deterministic, as a run's are where they exist.",
    ]
    return told


def gpu(what: str) -> dict[str, Any]:
    """Return the first row of one kind that was measured on a GPU."""
    return next(row for row in rows("gpu") if row.get("what") == what)


def _gazeclip_ablation() -> list[str]:
    told = []
    kept = rows("gazeclip_ablation")
    for protocol in dict.fromkeys(row["protocol"] for row in kept):
        names = {
            "seen_acc_generator": "seen ACC generator",
            "seen_auc": "seen AUC",
            "unseen_acc_family": "unseen ACC family",
            "unseen_auc": "unseen AUC",
        }
        told += [f"| `{protocol}`, % | {' | '.join(names.values())} |", "|---|" + "---|" * len(names)]
        for row in kept:
            if row["protocol"] == protocol:
                told.append(f"| {row['variant']} | {' | '.join(_over_seeds(row, key) for key in names)} |")
        told.append("")
    return told[:-1]


def _over_seeds(row: dict[str, Any], key: str) -> str:
    """Return a mean over seeds, its interval over test faces in brackets, and the lowest and highest seed."""
    if key not in row:
        return "–"
    interval = row.get(f"{key}_interval")
    shown = f"{row[key]:.1f}" + (f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "")
    low, high = row[f"{key}_seeds"]
    return f"{shown}; {low:.1f}–{high:.1f}"


def baselines_lines() -> list[str]:
    """Return the table of the registered models."""
    told = [
        "| model | paper | parameters (learning) | GFLOP a face | input | faces/s here | on a GPU | weights | licence |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    on_gpu = {row["model"]: row for row in rows("gpu") if "model" in row}
    for row in rows("baselines"):
        reads = "–" if row["side"] is None else f"{row['side']} px"
        reads += "".join(f", {each.replace('_', ' ')}" for each in row["inputs"] if each != "image")
        parameters = _count(row["parameters"])
        if row["trained"] != row["parameters"]:
            parameters += f" ({_count(row['trained'])})"
        told.append(
            f"| `{row['model']}` | {row['reference']} | {parameters} | {row['gflop']:.2f} | {reads.removeprefix('–, ')} "
            f"| {row['faces_per_second']:.3g} | {_on_gpu(on_gpu.get(row['model'], {}))} "
            f"| `{row['weights']}` | {row['licence']} |"
        )
    return [
        *told,
        "",
        "By `python benchmarks/baselines.py`: four classes, batches of four faces, two threads, random weights. *On a GPU*:",
        f"faces a second that it answers, and that it learns (forward and backward), on an {gpu('answers')['device']} by",
        "`python benchmarks/gpu.py`: mixed precision, batches of 256 and of 64 faces that lie on the device, and kernels that",
        "need not be deterministic, as a run's are where they exist.",
    ]


def _on_gpu(row: dict[str, Any]) -> str:
    told = [f"{row[name]:,.0f}" for name in ("answered_per_second", "learned_per_second") if name in row]
    return " / ".join(told) or "–"


def models_lines() -> list[str]:
    """Return what the models that were run here reach over seeds, a table per protocol."""
    told = [markdown(seeds_table(SeedsRecord.model_validate(row))) for row in rows("models")]
    return ["", *"\n".join(told).splitlines(), "", "By `python benchmarks/models.py RUNS/PROTOCOL`.", ""]


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.2f} M" if parameters >= 10_000 else f"{parameters:,}"


def main() -> None:
    """Rewrite the regions, and the lines of GazeCLIP's code that its README leads to."""
    _rewrite(README, BEGIN, END, lines())
    _rewrite(ROOT / "baselines" / "README.md", "<!-- baselines:begin -->", "<!-- baselines:end -->", baselines_lines())
    _rewrite(ROOT / "baselines" / "README.md", "<!-- models:begin -->", "<!-- models:end -->", models_lines())
    _rewrite(ROOT / "docs" / "scaling.md", "<!-- scaling:begin -->", "<!-- scaling:end -->", scaling_lines())
    document = ROOT / "gazeclip" / "README.md"
    for name, told in gazeclip_regions().items():
        _rewrite(document, f"<!-- {name}:begin -->", f"<!-- {name}:end -->", told)
    document.write_text(MAP.sub(_located, document.read_text(encoding="utf-8")), encoding="utf-8")


def _located(entry: re.Match[str]) -> str:
    """Return an entry of the map with the line on which its code stands now."""
    code, file = entry[1], entry[2]
    (line,) = places(ROOT / "gazeclip" / file, code)
    return f"[`{code}`]({file}#L{line})"


def places(file: Path, code: str) -> list[int]:
    """Return the lines, counted from 1, that hold a piece of code."""
    return [
        number for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1) if code in text
    ]


def _rewrite(document: Path, begin: str, end: str, told: list[str]) -> None:
    before, _, rest = document.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    document.write_text("\n".join([before + begin, *told, end + after]), encoding="utf-8")


if __name__ == "__main__":
    main()
