"""Another estimator's gaze stands beside a manifest's own, and neither rows nor crops know of it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result

from dfad_bench.cli import app
from dfad_bench.engines.local import LocalEngine
from dfad_bench.errors import DataError, UsageError
from dfad_bench.prepare import ledger
from dfad_bench.prepare.add_gaze import add_gaze
from dfad_bench.prepare.crop import crop_face
from dfad_bench.prepare.crop_landmarks import landmarks_in_crop
from dfad_bench.prepare.plan import Job
from dfad_bench.prepare.verify import verify_manifest
from dfad_bench.records.gaze import GAZE_COLUMNS, added_estimators, read_gaze, read_gaze_footer
from dfad_bench.records.protocol import load_protocol
from dfad_bench.records.selection import open_manifests, resolve
from tests.conftest import REPOSITORY, SHARED
from tests.prepare.builders import (
    DATASET,
    contents,
    encoded,
    face,
    folder_tree,
    job,
    json_lines,
    pixels,
    rows,
    run,
    times,
    write,
)
from tests.records.builders import recipe

ESTIMATOR = '''
"""Says how bright a face is, and gives back the landmarks that it was given."""
import time
import numpy as np
from dfad_bench.types import Gaze

class Bright:
    weights = ()
    weights_sha256 = None
    feature_dim = 10

    def estimate(self, faces, landmarks, annotations):
        time.sleep({seconds} * len(faces))
        bright = (faces.reshape(len(faces), -1).mean(axis=1) / 256 - 0.5).astype(np.float32)
        seen = bright < 0
        angle = np.where(seen, bright, np.float32(np.nan))
        flags = tuple(None if each else "closed_eyes" for each in seen)
        return Gaze(angle, -angle, confidence=bright + np.float32(0.5), features=landmarks.reshape(-1, 10), flags=flags)

GAZE_ESTIMATOR = Bright
'''


def estimator_file(folder: Path, seconds: float = 0.0, name: str = "bright") -> str:
    return str(write(folder / f"{name}.py", ESTIMATOR.format(seconds=seconds).encode()))


@pytest.fixture
def estimator(tmp_path: Path) -> str:
    return estimator_file(tmp_path)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A manifest of 12 faces of three generators, without gaze."""
    return run(job(folder_tree(tmp_path / "root"), tmp_path / "data")).root


def added(root: Path) -> dict[str, bytes]:
    """The added gaze, without the parts it was joined from."""
    return {name: data for name, data in contents(root).items() if name.startswith("other_gaze/") and "/." not in name}


def untouched(root: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(root).items() if not name.startswith("other_gaze/")}


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def only_gaze(*arguments: str | Path) -> Result:
    return call("prepare", "--only-gaze", *arguments)


# --- what it gives -------------------------------------------------------------------------------------------------


def test_rows_and_crops_stay_as_they_were_and_two_files_join_them(prepared: Path, estimator: str) -> None:
    before = contents(prepared)
    report = add_gaze(prepared, estimator)
    assert untouched(prepared) == before
    assert set(added(prepared)) == {"other_gaze/bright.parquet", "other_gaze/bright.safetensors"}
    table = pq.read_table(prepared / "other_gaze" / "bright.parquet")
    assert table.schema.remove_metadata() == GAZE_COLUMNS
    assert table["id"].to_pylist() == [row["id"] for row in rows(prepared)]
    assert {count.generator: count.faces for count in report.generators} == DATASET
    assert (report.unseen, report.already, report.parts, report.resumed) == (0, False, 3, 0)
    assert set(report.seconds) == {"read", "gaze", "write"}


def test_the_gaze_is_that_of_each_rows_own_crop(prepared: Path, estimator: str) -> None:
    report = add_gaze(prepared, estimator)
    gaze = read_gaze(prepared, "bright")
    assert not gaze.own
    for row, pitch, yaw, flag in zip(rows(prepared), gaze.pitch, gaze.yaw, gaze.flags, strict=True):
        bright = face(prepared, row["file_name"]).mean() / 256 - 0.5
        if bright < 0:
            assert (pitch, yaw, flag) == (pytest.approx(bright, abs=1e-6), pytest.approx(-bright, abs=1e-6), None)
        else:
            assert np.isnan(pitch) and np.isnan(yaw) and flag == "closed_eyes"
    blind = sum(flag is not None for flag in gaze.flags)
    assert 0 < blind < len(gaze.flags), "both kinds are among the faces"
    assert sum(count.with_gaze for count in report.generators) == len(gaze.flags) - blind
    footer = read_gaze_footer(prepared, "bright")
    assert (footer.with_gaze, footer.without_gaze) == (len(gaze.flags) - blind, {"closed_eyes": blind})
    assert footer.recipe.estimator.startswith("bright (file sha256:")
    assert set(footer.recipe.software) == {"opencv", "dfad-bench", "numpy", "openvino", "scipy"}


def test_each_estimator_has_files_of_its_own(prepared: Path, estimator: str, tmp_path: Path) -> None:
    add_gaze(prepared, estimator)
    first = added(prepared)
    add_gaze(prepared, estimator_file(tmp_path, name="other"))
    assert {name: data for name, data in added(prepared).items() if "bright" in name} == first
    assert set(added(prepared)) - set(first) == {"other_gaze/other.parquet", "other_gaze/other.safetensors"}
    assert verify_manifest(prepared) == []


def large_faces(root: Path, decimals: int | None) -> Path:
    """Large JPEGs with annotated boxes and landmarks, one face in four without landmarks."""
    rng = np.random.default_rng(3)
    listing = []
    for number in range(12):
        name = f"img/{number}.jpg"
        write(root / name, encoded(pixels(number, 400, 300), "JPEG", quality=92))
        x, y, side = rng.uniform(20, 150), rng.uniform(10, 60), rng.uniform(60, 220)
        box = [float(np.round(v, decimals)) if decimals is not None else float(v) for v in (x, y, x + side, y + side)]
        shares = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
        points = (shares + rng.normal(0, 0.02, (5, 2))) * side + (x, y)
        landmarks = {} if number % 4 == 3 else {"landmarks": points.ravel().tolist()}
        listing.append({"path": name, "generator": "real" if number % 2 else "simswap", "box": box, **landmarks})
    json_lines(root / "a.jsonl", listing)
    return root


def with_recipe(what: Job, **changes: Any) -> Job:
    return replace(what, recipe=replace(what.recipe, **changes))


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("decimals", [None, 2, 1, 0])
def test_numbers_and_landmarks_are_those_of_a_fresh_preparation(
    tmp_path: Path, estimator: str, align: bool, decimals: int | None
) -> None:
    what = job(large_faces(tmp_path / "root", decimals), tmp_path / "data", "table", detector="annotated", margin=1.3)
    if align:
        listing = [json.loads(line) for line in (tmp_path / "root" / "a.jsonl").read_text().splitlines()]
        json_lines(tmp_path / "root" / "a.jsonl", [row for row in listing if "landmarks" in row])
    what = with_recipe(what, align=align)
    root = run(what).root
    if not align:
        assert {row["decode_reduction"] for row in rows(root)} >= {2, 4}
        assert {row["landmarks"] is None for row in rows(root)} == {True, False}
    add_gaze(root, estimator)
    fresh = run(replace(with_recipe(what, estimator=estimator), data=tmp_path / "fresh")).root
    assert (root / "other_gaze" / "bright.safetensors").read_bytes() == (
        fresh / "gaze_features.safetensors"
    ).read_bytes()
    mine, theirs = rows(root, "other_gaze/bright.parquet"), rows(fresh)
    assert mine == [{name: row[name] for name in GAZE_COLUMNS.names} for row in theirs]


@pytest.mark.parametrize("decimals", [None, 2, 1, 0])
def test_derived_landmarks_are_those_of_the_cut(decimals: int | None) -> None:
    rng, picture = np.random.default_rng(0), np.zeros((300, 400, 3), np.uint8)
    made = recipe(size=64, margin=1.3)
    for _ in range(300):
        (x, y), (width, height) = rng.uniform(5, 100, 2), rng.uniform(60, 190, 2)
        box = np.array([x, y, x + width, y + height])
        box = box if decimals is None else np.round(box, decimals)
        points = (box[:2] + rng.uniform(0.2, 0.8, (5, 2)) * (width, height)).astype(np.float32)
        crop = crop_face(picture, tuple(box.tolist()), made.margin, made.size)
        stored = box.astype(np.float32).tolist()
        derived = landmarks_in_crop(made, stored, points.ravel().tolist(), float(np.float32(crop.scale)), 1)
        np.testing.assert_array_equal(derived, crop.to_crop(points))


def test_landmarks_are_a_pixel_away_at_most_where_a_row_rounds_its_box_over_half_a_pixel() -> None:
    box = (10.0, 20.0, 110.0 - 1e-7, 121.0)  # a cut of 101 px that begins at 9.5, nearly
    points = np.array([[40, 60], [80, 60], [60, 80], [45, 100], [75, 100]], np.float32)
    crop = crop_face(np.zeros((300, 400, 3), np.uint8), box, 1.0, 64)
    stored = np.float32(box).tolist()
    derived = landmarks_in_crop(recipe(size=64, margin=1.0), stored, points.ravel().tolist(), crop.scale, 1)
    apart = np.abs(derived - crop.to_crop(points)).max(axis=0) / crop.scale
    np.testing.assert_allclose(apart, [1, 0], atol=1e-4)


def test_a_face_without_landmarks_has_none_in_its_crop() -> None:
    assert np.isnan(landmarks_in_crop(recipe(size=64), [0, 0, 9, 9], None, 1.0, 1)).all()


def test_gradient_added_to_the_demo_is_gradient_prepared(tmp_path: Path) -> None:
    for name, estimator in (("own", "annotated"), ("fresh", "gradient")):
        made = call(
            *("prepare", "--source", "demo", "--set", "faces=60", "--gaze-estimator", estimator),
            *("--name", name, "--data", tmp_path),
        )
        assert made.exit_code == 0
    before = contents(tmp_path / "own")
    protocol = load_protocol("demo").model_copy(update={"sources": ["own"]})
    fingerprint = resolve(protocol, open_manifests(protocol, tmp_path)).fingerprint
    answer = only_gaze("--gaze-estimator", "gradient", "--name", "own", "--data", tmp_path)
    assert answer.exit_code == 0, answer.stderr
    assert untouched(tmp_path / "own") == before
    assert resolve(protocol, open_manifests(protocol, tmp_path)).fingerprint == fingerprint
    other, fresh = read_gaze(tmp_path / "own", "gradient"), read_gaze(tmp_path / "fresh")
    assert np.isfinite(other.pitch).sum() > 20
    np.testing.assert_array_equal(other.pitch, fresh.pitch)
    np.testing.assert_array_equal(other.yaw, fresh.yaw)
    assert other.features is not None and fresh.features is not None
    np.testing.assert_array_equal(other.features, fresh.features)
    annotated = read_gaze(tmp_path / "own")
    assert annotated.own and not np.array_equal(annotated.pitch, other.pitch)


def test_gradient_added_to_photographs_is_gradient_prepared(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (SHARED / "weights").is_dir():
        pytest.skip("weights are absent")
    monkeypatch.setenv("DFAD_BENCH_WEIGHTS", str(SHARED / "weights"))
    for name, estimator in (("own", "openvino_adas"), ("fresh", "gradient")):
        made = call(
            *("prepare", "--source", "table", "--root", corpus, "--limit", "2", "--gaze-estimator", estimator),
            *("--face-detector", "yunet", "--name", name, "--data", tmp_path),
        )
        assert made.exit_code in (0, 3), made.stderr
    assert only_gaze("--gaze-estimator", "gradient", "--name", "own", "--data", tmp_path).exit_code == 0
    assert only_gaze("--gaze-estimator", "openvino_adas", "--name", "fresh", "--data", tmp_path).exit_code == 0
    for own, other, estimator in (("own", "fresh", "openvino_adas"), ("fresh", "own", "gradient")):
        theirs, mine = read_gaze(tmp_path / own), read_gaze(tmp_path / other, estimator)
        assert len(mine.ids) > 30
        assert mine.weights_sha256 == theirs.weights_sha256
        assert mine.flags == theirs.flags
        # batches differ where an image was skipped, and OpenVINO's sums with them in the last digits
        np.testing.assert_allclose(mine.pitch, theirs.pitch, atol=1e-4)
        np.testing.assert_allclose(mine.yaw, theirs.yaw, atol=1e-4)


# --- whenever and however it runs ----------------------------------------------------------------------------------


def test_one_and_two_workers_write_the_same_bytes(tmp_path: Path, estimator: str) -> None:
    root = run(job(folder_tree(tmp_path / "root", {"real": 70, "simswap": 9}), tmp_path / "data")).root
    copy = shutil.copytree(root, tmp_path / "two" / "faces")
    assert add_gaze(root, estimator).parts == add_gaze(copy, estimator, engine=LocalEngine(2)).parts > 1
    assert added(root) == added(copy)


def test_a_second_call_writes_nothing(prepared: Path, estimator: str) -> None:
    first = add_gaze(prepared, estimator)
    before = times(prepared)
    second = add_gaze(prepared, estimator)
    assert second.already
    assert second.generators == first.generators
    assert times(prepared) == before


def test_progress_counts_faces_up_to_their_number(prepared: Path, estimator: str) -> None:
    steps: list[tuple[int, int | None]] = []
    add_gaze(prepared, estimator, on_progress=lambda done, total: steps.append((done, total)))
    assert steps == [(0, 12), (5, 12), (8, 12), (12, 12)]


def test_faces_that_join_the_manifest_cost_their_own_part_only(tmp_path: Path, estimator: str) -> None:
    root = folder_tree(tmp_path / "root")
    what = job(root, tmp_path / "data")
    out = run(what).root
    add_gaze(out, estimator)
    write(root / "real" / "9.jpg", encoded(pixels(9), "JPEG"))
    run(what)
    with pytest.raises(
        DataError, match=r"Renew it: 'dfad-bench prepare --only-gaze --gaze-estimator bright --name faces"
    ):
        read_gaze(out, "bright")
    assert "Renew it" in " ".join(verify_manifest(out))
    report = add_gaze(out, estimator)
    assert (report.parts, report.resumed) == (3, 2)
    fresh = run(replace(what, data=tmp_path / "fresh")).root
    add_gaze(fresh, estimator)
    assert added(out) == added(fresh)
    assert len(list((out / "other_gaze" / ".parts" / "bright").iterdir())) == 3, "the part of before has gone"
    assert verify_manifest(out) == []


@pytest.mark.parametrize("damage", ["table", "features", "no features"])
def test_what_was_damaged_afterwards_is_named_and_made_again(prepared: Path, estimator: str, damage: str) -> None:
    add_gaze(prepared, estimator)
    expected = added(prepared)
    path = prepared / "other_gaze" / ("bright.parquet" if damage == "table" else "bright.safetensors")
    write(path, path.read_bytes()[:-40])
    if damage == "no features":
        path.unlink()
    (problem,) = verify_manifest(prepared)
    assert path.name in problem
    report = add_gaze(prepared, estimator)
    assert not report.already and report.resumed == report.parts
    assert added(prepared) == expected


def test_a_manifest_without_faces_gets_an_empty_gaze(tmp_path: Path, estimator: str) -> None:
    write(tmp_path / "root" / "real" / "a.png", b"nothing")
    root = run(job(tmp_path / "root", tmp_path / "data")).root
    assert add_gaze(root, estimator, engine=LocalEngine(2)).generators == ()
    gaze = read_gaze(root, "bright")
    assert gaze.ids == []
    assert gaze.features is not None and gaze.features.shape == (0, 10)
    assert add_gaze(root, estimator).already


def test_an_estimator_without_features_writes_no_file_of_them(prepared: Path, tmp_path: Path) -> None:
    text = (
        ESTIMATOR.format(seconds=0).replace("features=landmarks.reshape(-1, 10), ", "").replace("dim = 10", "dim = 0")
    )
    add_gaze(prepared, str(write(tmp_path / "plain.py", text.encode())))
    assert set(added(prepared)) == {"other_gaze/plain.parquet"}
    assert read_gaze(prepared, "plain").features is None


EVERY_RENAME = """
import os, shutil, signal, sys
from pathlib import Path
from dfad_bench.prepare.add_gaze import add_gaze

replace = Path.replace

def in_a_child(root, kill_at):
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = [kill_at]

    def counted(path, target):
        moved = replace(path, target)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return moved

    Path.replace = counted
    add_gaze(root, sys.argv[2])
    os._exit(0)

source, ends = Path(sys.argv[1]), Path(sys.argv[3])
for kill_at in range(1, 100):
    root = Path(shutil.copytree(source, ends / f"{kill_at:02d}"))
    code = in_a_child(root, kill_at)
    print(code, in_a_child(root, 0), flush=True)
    if code == 0:
        break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_run_killed_after_any_of_its_renames_ends_with_the_same_bytes(
    prepared: Path, estimator: str, tmp_path: Path
) -> None:
    driver = subprocess.run(
        [sys.executable, "-c", EVERY_RENAME, str(prepared), estimator, str(tmp_path / "ends")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    outcomes = driver.stdout.split("\n")[:-1]
    assert outcomes == [f"{-signal.SIGKILL} 0"] * 5 + ["0 0"], "three parts, the features, the table"
    before = contents(prepared)
    add_gaze(prepared, estimator)
    for folder in sorted((tmp_path / "ends").iterdir()):
        assert added(folder) == added(prepared)
        assert untouched(folder) == before
        assert not list(folder.rglob("*.part")), "temporary files"


PROGRAM = """
import sys
from pathlib import Path
from dfad_bench.engines.local import LocalEngine
from dfad_bench.prepare.add_gaze import add_gaze

if __name__ == "__main__":
    add_gaze(Path(sys.argv[1]), sys.argv[2], engine=LocalEngine(2))
"""


@pytest.mark.slow
def test_a_run_killed_among_its_workers_keeps_what_they_finished(tmp_path: Path) -> None:
    root = run(job(folder_tree(tmp_path / "root", {"real": 140, "simswap": 70}), tmp_path / "data")).root
    slow = estimator_file(tmp_path, seconds=0.01)
    whole = Path(shutil.copytree(root, tmp_path / "whole"))
    program = write(tmp_path / "program.py", PROGRAM.encode())
    process = subprocess.Popen(
        [sys.executable, str(program), str(root), slow],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.DEVNULL,
    )
    parts, deadline = root / "other_gaze" / ".parts" / "bright", time.monotonic() + 60
    while not list(parts.glob("[!.]*.parquet")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (root / "other_gaze" / "bright.parquet").exists()
    report = add_gaze(root, slow)
    assert report.resumed >= 1
    add_gaze(whole, slow)
    assert added(root) == added(whole)


def test_a_full_disk_is_one_line_and_the_run_goes_on_afterwards(
    prepared: Path, estimator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = ledger.AtomicParquet._flush

    def full(self: Any) -> None:
        if self._path.name == "bright.parquet":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(self)

    with monkeypatch.context() as patched:
        patched.setattr(ledger.AtomicParquet, "_flush", full)
        with pytest.raises(DataError, match=r"disk of .* is full"):
            add_gaze(prepared, estimator)
    assert "bright.parquet" not in " ".join(added(prepared))
    report = add_gaze(prepared, estimator)
    assert report.resumed == report.parts == 3


def test_a_second_writer_is_refused(prepared: Path, estimator: str) -> None:
    with FileLock(prepared / ".prepare" / "lock"), pytest.raises(UsageError, match="Another dfad-bench is writing"):
        add_gaze(prepared, estimator)


def test_a_manifest_that_was_copied_without_its_state_stays_foreign_to_prepare(
    prepared: Path, estimator: str, tmp_path: Path
) -> None:
    shutil.rmtree(prepared / ".prepare")
    add_gaze(prepared, estimator)
    before = contents(prepared)
    with pytest.raises(UsageError, match="did not write"):
        run(job(tmp_path / "root", tmp_path / "data"), overwrite=True)
    assert contents(prepared) == before


def test_a_worker_that_dies_is_one_line_and_the_run_goes_on_afterwards(
    prepared: Path, estimator: str, tmp_path: Path
) -> None:
    flag, path = tmp_path / "die", Path(estimator)
    dying = f"os.path.exists({str(flag)!r}) and multiprocessing.parent_process() and os._exit(9)"
    text = path.read_text().replace("import time\n", "import multiprocessing, os, time\n")
    path.write_text(text.replace("        time.sleep", f"        {dying}\n        time.sleep"))
    flag.touch()
    with pytest.raises(DataError, match="worker process was killed"):
        add_gaze(prepared, estimator, engine=LocalEngine(2))
    flag.unlink()
    assert add_gaze(prepared, estimator, engine=LocalEngine(2)).unseen == 0


# --- crops that are not what they were -----------------------------------------------------------------------------


def damaged(root: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Damage the first row's crop of each generator, each in another way; yield rows and what the way is called."""
    firsts = {row["generator"]: row for row in reversed(rows(root))}
    for row, flag in zip(firsts.values(), ("missing_crop", "unreadable_crop", "changed_crop"), strict=True):
        path = root / row["file_name"]
        if flag == "missing_crop":
            path.unlink()
        elif flag == "unreadable_crop":
            write(path, path.read_bytes()[:50])
        else:
            altered = face(root, row["file_name"]).copy()
            altered[3, 4, 1] ^= 1
            assert cv2.imwrite(str(path), cv2.cvtColor(altered, cv2.COLOR_RGB2BGR))
        yield row, flag


def test_a_crop_that_is_not_what_its_row_says_has_a_reason_and_no_gaze(
    prepared: Path, estimator: str, tmp_path: Path
) -> None:
    sound = Path(shutil.copytree(prepared, tmp_path / "sound" / "faces"))
    add_gaze(sound, estimator)
    expected = {row["id"]: row for row in rows(sound, "other_gaze/bright.parquet")}
    reasons = {row["id"]: flag for row, flag in damaged(prepared)}
    report = add_gaze(prepared, estimator)
    assert (report.unseen, len(report.examples)) == (3, 3)
    gaze = read_gaze(prepared, "bright")
    assert gaze.features is not None
    for row, features in zip(rows(prepared, "other_gaze/bright.parquet"), gaze.features, strict=True):
        if row["id"] in reasons:
            numbers = [row[name] for name in GAZE_COLUMNS.names[1:-1]]
            assert (numbers, row["gaze_flag"]) == ([None] * 5, reasons[row["id"]])
            assert np.isnan(features).all()
        else:
            assert row == expected[row["id"]]
    counts = {count.generator: count.without_gaze for count in report.generators}
    assert all(sum(flag in reasons.values() for flag in flags) == 1 for flags in counts.values())


def test_crops_that_came_back_are_looked_at_again_and_nothing_else_is(
    prepared: Path, estimator: str, tmp_path: Path
) -> None:
    sound = Path(shutil.copytree(prepared, tmp_path / "sound" / "faces"))
    add_gaze(sound, estimator)
    (lost, _), *_ = damaged(prepared)
    for row in rows(prepared):  # only one of the three stays damaged
        if row["id"] != lost["id"]:
            shutil.copy(sound / row["file_name"], prepared / row["file_name"])
    add_gaze(prepared, estimator)
    (gone, unknown) = sorted(verify_manifest(prepared), key=lambda line: line.startswith("other_gaze/"))
    assert gone.startswith(lost["id"]) and gone.endswith("is missing")
    assert lost["id"] in unknown and "--only-gaze --gaze-estimator bright" in unknown
    again = add_gaze(prepared, estimator)
    assert (again.unseen, again.resumed, again.parts) == (1, 2, 3), "it is tried again, and is still gone"
    shutil.copy(sound / lost["file_name"], prepared / lost["file_name"])
    repaired = add_gaze(prepared, estimator)
    assert (repaired.unseen, repaired.resumed, repaired.already) == (0, 2, False)
    assert added(prepared) == added(sound)
    assert verify_manifest(prepared) == []


def test_a_missing_crop_is_exit_code_3(prepared: Path) -> None:
    (prepared / rows(prepared)[0]["file_name"]).unlink()
    answer = only_gaze("--gaze-estimator", "gradient", "--name", "faces", "--data", prepared.parent, "--format", "json")
    assert answer.exit_code == 3
    report = json.loads(answer.stdout)
    assert report["unseen"] == 1
    assert "missing crop" in answer.stderr and rows(prepared)[0]["id"] in answer.stderr
    assert only_gaze("--gaze-estimator", "gradient", "--name", "faces", "--data", prepared.parent).exit_code == 3


# --- what is refused -----------------------------------------------------------------------------------------------


def refusal(prepared: Path, estimator: str, **options: bool) -> str:
    before = contents(prepared)
    with pytest.raises(UsageError) as caught:
        add_gaze(prepared, estimator, **options)
    assert contents(prepared) == before
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_estimator_that_needs_the_source_is_refused(tmp_path: Path) -> None:
    what = with_recipe(job(folder_tree(tmp_path / "root"), tmp_path / "data"), estimator="gradient")
    assert "--only-gaze has no source" in refusal(run(what).root, "annotated")


def test_another_recipe_is_refused_and_overwritten_when_told_to(prepared: Path, estimator: str, tmp_path: Path) -> None:
    add_gaze(prepared, estimator)
    Path(estimator).write_text(Path(estimator).read_text().replace("- 0.5", "- 0.4"))
    message = refusal(prepared, estimator)
    assert "another recipe (estimator bright (file sha256:" in message and "--overwrite" in message
    report = add_gaze(prepared, estimator_file(tmp_path / "b"), overwrite=True)
    assert (report.already, report.resumed) == (False, 0)
    assert add_gaze(prepared, estimator_file(tmp_path / "b")).already


def test_overwrite_computes_anew_what_was_finished(prepared: Path, estimator: str) -> None:
    add_gaze(prepared, estimator)
    expected = added(prepared)
    report = add_gaze(prepared, estimator, overwrite=True)
    assert (report.already, report.resumed, report.parts) == (False, 0, 3)
    assert added(prepared) == expected


def test_the_manifests_own_estimator_is_there_already(tmp_path: Path, estimator: str) -> None:
    what = with_recipe(job(folder_tree(tmp_path / "root"), tmp_path / "data"), estimator=estimator)
    root = run(what).root
    before = contents(root)
    report = add_gaze(root, estimator)
    assert (report.already, report.path, report.unseen) == (True, root / "metadata.parquet", 0)
    assert {count.generator: count.faces for count in report.generators} == DATASET
    assert 0 < sum(count.with_gaze for count in report.generators) < sum(DATASET.values())
    assert contents(root) == before
    assert "Prepare anew with --overwrite, without --only-gaze" in refusal(root, estimator, overwrite=True)
    Path(estimator).write_text(Path(estimator).read_text() + "# edited\n")
    assert "prepared with another bright" in refusal(root, estimator)


def test_annotated_gaze_that_is_the_manifests_own_is_there_already(prepared: Path) -> None:
    answer = only_gaze("--gaze-estimator", "annotated", "--name", "faces", "--data", prepared.parent)
    assert answer.exit_code == 0
    assert "already; nothing to do" in answer.stdout


def test_a_name_that_cannot_name_a_file_is_refused(prepared: Path, tmp_path: Path) -> None:
    assert "cannot name a file" in refusal(prepared, estimator_file(tmp_path, name="my estimator"))


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path, estimator: str) -> None:
    with pytest.raises(UsageError, match="There is no manifest"):
        add_gaze(tmp_path, estimator)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gaze-estimator", "gradient"], "needs the manifest's --name, or the --source"),
        (["--name", "faces"], "needs --gaze-estimator"),
        (["--name", "faces", "--gaze-estimator", "gradiant"], "Did you mean 'gradient'"),
        (["--name", "gone", "--gaze-estimator", "gradient"], "There is no manifest in"),
        (["--name", "../faces", "--gaze-estimator", "gradient"], "use lower-case letters"),
        (["--source", "nowhere", "--gaze-estimator", "gradient"], "No source is named 'nowhere'"),
        (
            [
                "--name",
                "faces",
                "--gaze-estimator",
                "gradient",
                "--size",
                "64",
                "--align",
                "--set",
                "a=b",
                "--root",
                ".",
            ],
            "leave away --size, --align, --set, --root.",
        ),
    ],
)
def test_a_wrong_call_is_one_line(prepared: Path, arguments: list[str], said: str) -> None:
    before = contents(prepared)
    answer = only_gaze("--data", prepared.parent, *arguments)
    assert answer.exit_code == 2
    assert said in " ".join(answer.stderr.split())
    assert contents(prepared) == before


def test_without_only_gaze_a_source_is_still_asked_for(tmp_path: Path) -> None:
    answer = call("prepare", "--data", tmp_path)
    assert answer.exit_code == 2
    assert "--source" in answer.stderr


@pytest.mark.parametrize("given", [("--source", "faces"), ("--name", "faces"), ("--source", "demo", "--name", "faces")])
def test_a_manifest_is_found_by_its_name_or_its_source(prepared: Path, given: tuple[str, ...]) -> None:
    answer = only_gaze("--gaze-estimator", "gradient", "--data", prepared.parent, *given)
    assert answer.exit_code == 0, answer.stderr
    assert (prepared / "other_gaze" / "gradient.parquet").is_file()


def test_a_source_that_is_a_file_finds_the_manifest_by_its_default_name(prepared: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "plugins" / "faces.py", b"")
    answer = only_gaze("--gaze-estimator", "gradient", "--data", prepared.parent, "--source", source)
    assert answer.exit_code == 0, answer.stderr


# --- and others' tools ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # of datasets' own
@pytest.mark.parametrize("name", ["bright", "my_test", "train", "val2", "eval-3"])
def test_the_folder_still_opens_as_an_imagefolder(prepared: Path, name: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    estimator = estimator_file(tmp_path, name=name)

    def load(cache: str) -> Any:
        folder = str(prepared)
        return datasets.load_dataset("imagefolder", data_dir=folder, cache_dir=str(tmp_path / cache))

    before = load("before")
    add_gaze(prepared, estimator)
    after = load("after")
    assert list(after) == list(before) == ["train"]
    assert after["train"].column_names == before["train"].column_names
    assert sorted(after["train"]["id"]) == sorted(row["id"] for row in rows(prepared))
    assert added_estimators(prepared) == [name]
    assert read_gaze(prepared, name).features is not None
    assert add_gaze(prepared, estimator).already


def test_preparing_again_leaves_the_added_gaze(prepared: Path, estimator: str, tmp_path: Path) -> None:
    add_gaze(prepared, estimator)
    expected = added(prepared)
    run(job(tmp_path / "root", tmp_path / "data"))
    assert added(prepared) == expected
    run(job(tmp_path / "root", tmp_path / "data"), overwrite=True)
    assert add_gaze(prepared, estimator).already, "the same faces came out, so the gaze is still theirs"
