"""Preparation loses nothing, repeats nothing, and writes the same bytes however often it is stopped."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from dfad_bench.config import file_sha256
from dfad_bench.engines.local import LocalEngine
from dfad_bench.errors import DataError, UsageError
from dfad_bench.prepare import ledger, pipeline
from dfad_bench.prepare.faces import pixel_sha256
from dfad_bench.prepare.ledger import PART
from dfad_bench.prepare.plan import plan
from dfad_bench.records.manifest import COLUMNS, read_manifest
from dfad_bench.records.sampling import order_key
from tests.prepare.builders import (
    DATASET,
    contents,
    detector_file,
    encoded,
    face,
    folder_tree,
    images,
    job,
    json_lines,
    pixels,
    rows,
    run,
    times,
    write,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return folder_tree(tmp_path / "root")


def table_of(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    json_lines(tmp_path / "root" / "a.jsonl", rows)
    return tmp_path / "root"


def test_every_input_is_a_face_or_a_skip_with_its_reason(root: Path, tmp_path: Path) -> None:
    write(root / "real" / "empty.jpg", b"")
    write(root / "real" / "text.png", b"hello" * 30)
    write(root / "simswap" / "half.jpg", (root / "simswap" / "0000.jpg").read_bytes()[:-60])
    report = run(job(root, tmp_path / "data"))
    skipped = {row["id"]: row["reason"] for row in rows(report.root, "skipped.parquet")}
    assert skipped == {
        "faces/real/real/empty.jpg": "empty_file",
        "faces/real/real/text.png": "not_an_image",
        "faces/simswap/simswap/half.jpg": "truncated",
    }
    manifest = read_manifest(report.root)
    footer = manifest.footer
    assert (footer.declared, footer.kept) == (sum(DATASET.values()) + 3, sum(DATASET.values()))
    assert footer.skipped == {"empty_file": 1, "not_an_image": 1, "truncated": 1}
    kept = manifest.table["id"].to_pylist()
    assert set(kept).isdisjoint(skipped)
    assert len(kept) + len(skipped) == footer.declared
    assert {c.generator: (c.declared, c.kept, c.skipped) for c in report.generators} == {
        "real": (7, 5, {"empty_file": 1, "not_an_image": 1}),
        "simswap": (4, 3, {"truncated": 1}),
        "stylegan3": (4, 4, {}),
    }
    assert report.skipped == 3


def test_the_manifest_has_its_columns_and_its_files(root: Path, tmp_path: Path) -> None:
    report = run(job(root, tmp_path / "data"))
    manifest = read_manifest(report.root)
    assert manifest.table.schema.remove_metadata() == COLUMNS
    assert all((report.root / row["file_name"]).is_file() for row in manifest.table.to_pylist())
    assert "12 of 12 inputs" in (report.root / "README.md").read_text()


def test_the_png_is_the_crop_and_the_sha256_is_of_its_pixels(tmp_path: Path) -> None:
    root = folder_tree(tmp_path / "root", {"real": 3}, ".png")
    report = run(job(root, tmp_path / "data", size=48))
    for number, row in enumerate(rows(report.root)):
        stored = face(report.root, row["file_name"])
        np.testing.assert_array_equal(stored, pixels(number))
        assert row["sha256"] == pixel_sha256(stored)
        assert row["crop_scale"] == 1


def test_the_sha256_does_not_depend_on_the_file_format(tmp_path: Path) -> None:
    for name, format in (("a.png", "PNG"), ("b.bmp", "BMP")):
        write(tmp_path / "root" / "real" / name, encoded(pixels(1), format))
    report = run(job(tmp_path / "root", tmp_path / "data"))
    first, second = rows(report.root)
    assert first["sha256"] == second["sha256"]
    assert (first["original_format"], second["original_format"]) == ("PNG", "BMP")


@pytest.mark.parametrize(("width", "height", "window"), [(80, 48, (16, 0)), (48, 80, (0, 16))])
def test_an_image_that_is_not_square_gives_its_centred_square(
    tmp_path: Path, width: int, height: int, window: tuple[int, int]
) -> None:
    picture = pixels(1, width, height)
    write(tmp_path / "root" / "real" / "a.png", encoded(picture, "PNG"))
    report = run(job(tmp_path / "root", tmp_path / "data", size=48))
    (row,) = rows(report.root)
    left, top = window
    np.testing.assert_array_equal(face(report.root, row["file_name"]), picture[top : top + 48, left : left + 48])
    assert row["box"] == [left, top, left + 48, top + 48]
    assert (row["original_width"], row["original_height"]) == (width, height)


def test_videos_and_people_are_named_with_their_scope(tmp_path: Path) -> None:
    images(tmp_path / "root", 1)
    labels = {"generator": "simswap", "domain": "ff", "video": "clip", "identities": ["a", "other/b"]}
    run(job(table_of(tmp_path, {"path": "img/0000.png", **labels}), tmp_path / "data", "table"))
    (row,) = rows(tmp_path / "data" / "faces")
    assert row["video"] == "faces/simswap/clip"
    assert row["identities"] == ["ff/a", "other/b"]


def test_gaze_is_kept_where_it_is_known_and_null_where_it_is_not(tmp_path: Path) -> None:
    images(tmp_path / "root", 2)
    known = {"path": "img/0000.png", "generator": "real", "gaze_pitch": 0.25, "gaze_yaw": -0.5}
    unknown = {"path": "img/0001.png", "generator": "real"}
    report = run(job(table_of(tmp_path, known, unknown), tmp_path / "data", "table"))
    seen, blind = rows(report.root)
    assert (seen["gaze_pitch"], seen["gaze_yaw"]) == (0.25, -0.5)
    assert face(report.root, seen["gaze_file_name"]).shape == (72, 120, 3)
    assert (blind["gaze_pitch"], blind["gaze_yaw"], blind["gaze_file_name"]) == (None, None, None)
    assert len(list((report.root / "gaze").rglob("*.png"))) == 1


def test_annotated_boxes_are_cut_and_images_without_one_have_no_face(tmp_path: Path) -> None:
    images(tmp_path / "root", 4)
    listing = [
        {"path": "img/0000.png", "generator": "real", "box": [4, 4, 44, 44], "landmarks": list(range(10))},
        {"path": "img/0001.png", "generator": "real"},
        {"path": "img/0002.png", "generator": "real", "box": [100, 100, 120, 120]},
        {"path": "img/0003.png", "generator": "real", "box": [-1e6, -1e6, 1e6, 1e6]},
    ]
    what = job(table_of(tmp_path, *listing), tmp_path / "data", "table", detector="annotated", size=40)
    report = run(what)
    (row,) = rows(report.root)
    np.testing.assert_array_equal(face(report.root, row["file_name"]), pixels(0)[4:44, 4:44])
    assert row["landmarks"] == list(range(10))
    reasons = {row["id"][-8:-4]: row["reason"] for row in rows(report.root, "skipped.parquet")}
    assert reasons == {"0001": "no_face", "0002": "bad_box", "0003": "cut_off_face"}


def test_enlarged_faces_are_counted(root: Path, tmp_path: Path) -> None:
    report = run(job(root, tmp_path / "data", size=64))
    assert sum(count.enlarged for count in report.generators) == sum(DATASET.values())
    assert {row["crop_scale"] > 1 for row in rows(report.root)} == {True}


def test_a_detector_that_finds_nothing_is_a_ledger_row(tmp_path: Path) -> None:
    root = folder_tree(tmp_path / "root", {"real": 2})
    write(root / "real" / "dark.png", encoded(np.zeros((48, 48, 3), np.uint8), "PNG"))
    detector = detector_file(tmp_path / "mine.py")
    report = run(job(root, tmp_path / "data", detector=detector))
    (skipped,) = rows(report.root, "skipped.parquet")
    assert (skipped["reason"], skipped["id"]) == ("no_face", "faces/real/real/dark.png")
    assert read_manifest(report.root).footer.recipe.face_detector == f"mine (file sha256:{file_sha256(Path(detector))})"


def test_a_source_without_a_single_face_still_gives_a_manifest(tmp_path: Path) -> None:
    write(tmp_path / "root" / "real" / "a.png", b"nothing")
    report = run(job(tmp_path / "root", tmp_path / "data", detector=detector_file(tmp_path / "mine.py")))
    assert read_manifest(report.root).table.num_rows == 0
    assert len(rows(report.root, "skipped.parquet")) == 1


def test_rows_are_ordered_by_generator_and_then_as_the_source_lists_them(tmp_path: Path) -> None:
    names = images(tmp_path / "root", 6)
    generators = ["stylegan3", "real", "simswap"] * 2
    listing = [{"path": n, "generator": g} for n, g in zip(reversed(names), generators, strict=True)]
    report = run(job(table_of(tmp_path, *listing), tmp_path / "data", "table"))
    expected = [f"faces/{g}/{row['path']}" for g in sorted(DATASET) for row in listing if row["generator"] == g]
    assert [row["id"] for row in rows(report.root)] == expected


def test_one_and_two_workers_write_the_same_bytes(tmp_path: Path) -> None:
    root = folder_tree(tmp_path / "root", {"real": PART + 7, "simswap": 9, "stylegan3": 5})
    write(root / "real" / "broken.jpg", b"broken")
    detector = detector_file(tmp_path / "mine.py")
    one = run(job(root, tmp_path / "one", detector=detector))
    two = run(job(root, tmp_path / "two", detector=detector, engine=LocalEngine(2)))
    assert contents(one.root) == contents(two.root)
    assert len(contents(one.root)) == PART + 7 + 9 + 5 + 4


def test_a_second_call_does_nothing(root: Path, tmp_path: Path) -> None:
    first = run(job(root, tmp_path / "data"))
    assert (first.parts, first.resumed) == (3, 0)
    before = times(first.root)
    started = time.perf_counter()
    second = run(job(root, tmp_path / "data"))
    assert time.perf_counter() - started < 2
    assert (second.parts, second.resumed) == (3, 3)
    assert second.generators == first.generators
    changed = [name for name, when in times(first.root).items() if before.get(name) != when]
    assert [Path(name).name for name in changed] in ([], ["recipe.json"])


def test_only_the_part_of_a_changed_image_is_made_again(root: Path, tmp_path: Path) -> None:
    report = run(job(root, tmp_path / "data"))
    before, sums = times(report.root), {row["id"]: row["sha256"] for row in rows(report.root)}
    write(root / "simswap" / "0001.jpg", encoded(pixels(4242), "JPEG", quality=91))
    report = run(job(root, tmp_path / "data"))
    assert (report.parts, report.resumed) == (3, 2)
    redone = {Path(name).parent.parent.name for name, when in times(report.root).items() if before.get(name) != when}
    assert redone - {"faces", "parts", "data", ".prepare"} == {"simswap"}
    different = {row["id"] for row in rows(report.root) if sums[row["id"]] != row["sha256"]}
    assert different == {"faces/simswap/simswap/0001.jpg"}


def test_removed_and_added_images_leave_and_join(root: Path, tmp_path: Path) -> None:
    report = run(job(root, tmp_path / "data"))
    shutil.rmtree(root / "stylegan3")
    (root / "real" / "0002.jpg").unlink()
    write(root / "simswap" / "9.jpg", encoded(pixels(9), "JPEG"))
    folder_tree(root, {"ddpm": 2})
    report = run(job(root, tmp_path / "data"))
    fresh = run(job(root, tmp_path / "fresh"))
    assert contents(report.root) == contents(fresh.root), "no file of a removed face is left"
    ids = {row["id"] for row in rows(report.root)}
    assert "faces/real/real/0002.jpg" not in ids
    assert "faces/simswap/simswap/9.jpg" in ids
    assert not (report.root / "faces" / "stylegan3" / "00000").exists()


def test_an_image_that_comes_back_becomes_a_face(tmp_path: Path) -> None:
    names = images(tmp_path / "root", 2)
    root = table_of(tmp_path, *({"path": name, "generator": "real"} for name in names))
    (root / names[1]).rename(tmp_path / "away.png")
    assert run(job(root, tmp_path / "data", "table")).skipped == 1
    (tmp_path / "away.png").rename(root / names[1])
    assert run(job(root, tmp_path / "data", "table")).skipped == 0


def test_a_changed_label_reaches_the_manifest(tmp_path: Path) -> None:
    (name,) = images(tmp_path / "root", 1)
    for split in ("train", "test"):
        root = table_of(tmp_path, {"path": name, "generator": "real", "source_split": split})
        (row,) = rows(run(job(root, tmp_path / "data", "table")).root)
        assert row["source_split"] == split


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"size": 40}, "size 32 → 40"),
        ({"margin": 1.2}, "margin 1.0 → 1.2"),
        ({"detector": "annotated"}, "face_detector whole_image → annotated"),
    ],
)
def test_another_recipe_is_refused_with_what_differs(
    root: Path, tmp_path: Path, change: dict[str, Any], part: str
) -> None:
    report = run(job(root, tmp_path / "data"))
    before = contents(report.root)
    with pytest.raises(UsageError, match=re.escape(part)) as caught:
        run(job(root, tmp_path / "data", **change))
    assert "--overwrite" in str(caught.value)
    assert contents(report.root) == before


def test_overwrite_prepares_anew(root: Path, tmp_path: Path) -> None:
    run(job(root, tmp_path / "data"))
    report = run(job(root, tmp_path / "data", size=40), overwrite=True)
    assert report.resumed == 0
    fresh = run(job(root, tmp_path / "fresh", size=40))
    assert contents(report.root) == contents(fresh.root)
    assert run(job(root, tmp_path / "data", size=40)).resumed == report.parts


def test_an_overwrite_that_is_killed_leaves_no_row_without_its_face(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = job(root, tmp_path / "data")
    expected = contents(run(what).root)
    remove = shutil.rmtree
    for survived in range(3):
        calls: list[Any] = []

        def killed(path: Any, *args: Any, _survived: int = survived, _calls: list[Any] = calls, **kw: Any) -> None:
            if len(_calls) == _survived:
                raise KeyboardInterrupt
            _calls.append(path)
            remove(path, *args, **kw)

        monkeypatch.setattr(pipeline.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            run(what, overwrite=True)
        monkeypatch.setattr(pipeline.shutil, "rmtree", remove)
        assert not (what.out / "metadata.parquet").exists()
        assert contents(run(what).root) == expected


def test_a_run_killed_before_its_manifest_is_renewed_leaves_no_old_one(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = job(root, tmp_path / "data")
    run(what)
    write(root / "simswap" / "0001.jpg", encoded(pixels(4242), "JPEG"))
    shutil.rmtree(root / "stylegan3")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    for stage in (ledger.Ledger, "assemble"), (pipeline, "write_text"):
        with monkeypatch.context() as patched:
            patched.setattr(*stage, killed)
            with pytest.raises(KeyboardInterrupt):
                run(what)
        assert not (what.out / "metadata.parquet").exists()
    assert contents(run(what).root) == contents(run(job(root, tmp_path / "fresh")).root)


def test_a_folder_that_is_not_ours_is_refused(root: Path, tmp_path: Path) -> None:
    mine = write(tmp_path / "data" / "faces" / "thesis.txt", b"years of work")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="did not write"):
            run(job(root, tmp_path / "data"), overwrite=overwrite)
    assert mine.read_bytes() == b"years of work"
    assert len(list(mine.parent.iterdir())) == 1


def test_an_empty_folder_may_be_used(root: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "faces").mkdir(parents=True)
    assert run(job(root, tmp_path / "data")).parts == 3


def test_a_second_writer_is_refused(root: Path, tmp_path: Path) -> None:
    what = job(root, tmp_path / "data")
    (what.out / ".prepare").mkdir(parents=True)
    with (
        FileLock(what.out / ".prepare" / "lock"),
        pytest.raises(UsageError, match="Another dfad-bench is writing"),
    ):
        run(what, overwrite=True)
    assert run(what).parts == 3


def test_an_image_listed_twice_is_refused(tmp_path: Path) -> None:
    images(tmp_path / "root", 2)
    listing = [{"path": path, "generator": "real"} for path in ("img/0000.png", "img/0001.png", "img\\0000.png")]
    with pytest.raises(UsageError, match=r"the same image twice: real/img/0000\.png\."):
        plan(job(table_of(tmp_path, *listing), tmp_path / "data", "table"))


def test_one_image_may_be_listed_for_two_generators(tmp_path: Path) -> None:
    images(tmp_path / "root", 1)
    listing = [{"path": "img/0000.png", "generator": generator} for generator in ("real", "stylegan3")]
    report = run(job(table_of(tmp_path, *listing), tmp_path / "data", "table"))
    assert len({row["file_name"] for row in rows(report.root)}) == 2


def test_names_that_differ_only_in_odd_characters_do_not_collide(tmp_path: Path) -> None:
    names = ["a b.png", "a_b.png", "A_b.png", "a/b.png", "ä.png", "ö.png", "x" * 120 + "1.png", "x" * 120 + "2.png"]
    for name in names:
        write(tmp_path / "root" / "real" / name, encoded(pixels(1), "PNG"))
    report = run(job(tmp_path / "root", tmp_path / "data"))
    files = {row["file_name"].lower() for row in rows(report.root)}
    assert len(files) == len(names)
    assert all(re.fullmatch(r"faces/real/00000/[a-z0-9_-]*\.png", file) for file in files)


def test_an_empty_listing_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "root" / "a.csv", b"path,generator\n")
    with pytest.raises(UsageError, match="lists no image in"):
        plan(job(tmp_path / "root", tmp_path / "data", "table"))


def test_a_limit_takes_images_by_hash_and_is_recorded(tmp_path: Path) -> None:
    root = folder_tree(tmp_path / "root", {"real": 20, "stylegan3": 3})
    report = run(job(root, tmp_path / "data", limit=5))
    names = [f"real/real/{number:04d}.jpg" for number in range(20)]
    expected = sorted(sorted(names, key=lambda name: order_key(0, name))[:5])
    assert [row["id"] for row in rows(report.root)] == [
        *(f"faces/{name}" for name in expected),
        *(f"faces/stylegan3/stylegan3/{number:04d}.jpg" for number in range(3)),
    ]
    footer = read_manifest(report.root).footer
    assert (footer.limit, footer.declared) == (5, 8)


def test_a_limit_keeps_its_choice_when_images_join(tmp_path: Path) -> None:
    root = folder_tree(tmp_path / "root", {"real": 20})
    before = {row["id"] for row in rows(run(job(root, tmp_path / "a", limit=8)).root)}
    folder_tree(root, {"real": 25})
    after = {row["id"] for row in rows(run(job(root, tmp_path / "b", limit=8)).root)}
    new = {f"faces/real/real/{number:04d}.jpg" for number in range(20, 25)}
    assert after - new <= before


def test_a_limit_that_is_lifted_leaves_the_footer(root: Path, tmp_path: Path) -> None:
    run(job(root, tmp_path / "data", limit=100))
    report = run(job(root, tmp_path / "data"))
    assert report.resumed == report.parts
    assert read_manifest(report.root).footer.limit is None


def test_progress_ends_at_the_total_and_counts_resumed_parts(root: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    run(job(root, tmp_path / "data"), on_progress=lambda done, total: steps.append((done, total)))
    assert steps == [(0, 12), (5, 12), (8, 12), (12, 12)] or steps[-1] == (12, 12)
    steps.clear()
    run(job(root, tmp_path / "data"), on_progress=lambda done, total: steps.append((done, total)))
    assert steps == [(12, 12)]


@pytest.mark.parametrize("calls", [0, 1, 7, 11])
def test_a_full_disk_is_one_line_and_the_run_goes_on_afterwards(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    what, put, left = job(root, tmp_path / "data"), ledger._put, [calls]

    def full(path: Path, data: bytes) -> None:
        if left[0] == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        left[0] -= 1
        put(path, data)

    monkeypatch.setattr(ledger, "_put", full)
    with pytest.raises(DataError, match=r"disk of .* is full"):
        run(what)
    monkeypatch.undo()
    resumed = run(what)
    assert resumed.resumed == sum(calls >= done for done in (5, 8, 12))
    assert contents(resumed.root) == contents(run(job(root, tmp_path / "fresh")).root)


def test_a_disk_that_is_full_while_assembling_leaves_no_half_manifest(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what, flush = job(root, tmp_path / "data"), ledger.AtomicParquet._flush

    def full(self: Any) -> None:
        if self._path.name == "metadata.parquet":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(self)

    monkeypatch.setattr(ledger.AtomicParquet, "_flush", full)
    with pytest.raises(DataError, match="full"):
        run(what)
    assert not (what.out / "metadata.parquet").exists()
    monkeypatch.undo()
    assert contents(run(what).root) == contents(run(job(root, tmp_path / "fresh")).root)


def test_another_error_of_the_disk_is_not_called_full(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path, data: bytes) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(ledger, "_put", broken)
    with pytest.raises(OSError, match="Input/output"):
        run(job(root, tmp_path / "data"))


def test_a_worker_that_dies_is_one_line_and_the_run_goes_on_afterwards(tmp_path: Path) -> None:
    root = folder_tree(tmp_path / "root", {"real": 3, "simswap": 2})
    detector, flag = Path(detector_file(tmp_path / "mine.py")), tmp_path / "die"
    dying = f"        os.path.exists({str(flag)!r}) and multiprocessing.parent_process() and os._exit(9)\n        time.sleep"
    text = detector.read_text().replace("import time\n", "import time, os, multiprocessing\n")
    detector.write_text(text.replace("        time.sleep", dying))
    what = job(root, tmp_path / "data", detector=str(detector), engine=LocalEngine(2))
    flag.touch()
    with pytest.raises(DataError, match="worker process was killed"):
        run(what)
    flag.unlink()
    assert run(what).skipped == 0


def test_a_detector_file_that_was_edited_is_another_recipe(tmp_path: Path) -> None:
    root = folder_tree(tmp_path / "root", {"real": 2})
    detector = Path(detector_file(tmp_path / "mine.py"))
    run(job(root, tmp_path / "data", detector=str(detector)))
    detector.write_text(detector.read_text() + "# edited\n")
    with pytest.raises(UsageError, match="another recipe"):
        run(job(root, tmp_path / "data", detector=str(detector)))


def test_an_input_that_failed_to_be_read_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder_tree(tmp_path / "root", {"real": 3})

    def refuse(path: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "read_bytes", refuse)
        assert run(job(root, tmp_path / "data")).skipped == 3
    assert run(job(root, tmp_path / "data")).skipped == 0


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    root = folder_tree(tmp_path / "root", {"real": 1})
    os.mkfifo(root / "real" / "pipe.png")
    report = run(job(root, tmp_path / "data"))
    assert [row["reason"] for row in rows(report.root, "skipped.parquet")] == ["not_a_file"]


def test_a_part_file_that_is_damaged_is_made_again(root: Path, tmp_path: Path) -> None:
    report = run(job(root, tmp_path / "data"))
    expected = contents(report.root)
    part = report.root / ".prepare" / "parts" / "real" / "00000.parquet"
    part.write_bytes(part.read_bytes()[:100])
    report = run(job(root, tmp_path / "data"))
    assert report.resumed == 2
    assert contents(report.root) == expected


def test_a_manifest_that_was_deleted_is_assembled_again(root: Path, tmp_path: Path) -> None:
    report = run(job(root, tmp_path / "data"))
    expected = contents(report.root)
    (report.root / "metadata.parquet").unlink()
    report = run(job(root, tmp_path / "data"))
    assert report.resumed == 3
    assert contents(report.root) == expected


def test_the_recipe_beside_the_parts_names_software_versions(root: Path, tmp_path: Path) -> None:
    report = run(job(root, tmp_path / "data"))
    recipe = json.loads((report.root / ".prepare" / "recipe.json").read_text())
    assert set(recipe["software"]) >= {"dfad-bench", "opencv"}


def test_a_map_is_recorded_by_its_hash_not_its_path(root: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "map.yaml", b"licence: CC0\n")
    report = run(job(root, tmp_path / "data", settings=[f"map={path}"]))
    recorded = read_manifest(report.root).footer.recipe.source_options["map"]
    assert re.fullmatch("sha256:[0-9a-f]{64}", recorded)
    assert {row["licence"] for row in rows(report.root)} == {"CC0"}
