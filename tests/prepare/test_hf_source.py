"""Datasets of the Hub are read at a pinned commit, or from a local folder, and labels are never guessed."""

from __future__ import annotations

import builtins
import dataclasses
import json
import pickle
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dfad_bench.engines.local import LocalEngine
from dfad_bench.errors import DataError, DfadError, UsageError
from dfad_bench.prepare import hub
from dfad_bench.prepare.decode import SkippedInput
from dfad_bench.prepare.hub import HubDataset, HubImage
from dfad_bench.prepare.sources.hf import HubSource
from dfad_bench.taxonomy import known
from dfad_bench.testing import check_source
from dfad_bench.types import Defect, RawImage
from tests.prepare.builders import encoded, job, pixels, rows, run, write

datasets = pytest.importorskip("datasets", reason="the extra 'hub' is not installed")

LABELS = {"fake": "sd15", "real": "real"}
COMMIT = "a" * 40
PICTURES = [encoded(pixels(seed), "JPEG") for seed in range(8)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the caches of datasets and of the Hub out of the home, and the terminal free of bars."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", tmp_path / "cache" / "downloads")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def parquet(
    root: Path, splits: dict[str, list[dict[str, Any]]], features: dict[str, Any] | None = None, batch_size: int = 1000
) -> Path:
    """A folder of Parquet files, a split each, with an ``image`` column and the columns of the rows."""
    root.mkdir(parents=True, exist_ok=True)
    for split, table in splits.items():
        images = [{"bytes": PICTURES[n % len(PICTURES)], "path": f"{n}.jpg"} for n in range(len(table))]
        columns = {"image": images} | {name: [row[name] for row in table] for name in table[0]}
        types = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["fake", "real"])} | (features or {})
        kept = datasets.Features({name: types.get(name, datasets.Value("string")) for name in columns})
        datasets.Dataset.from_dict(columns, features=kept).to_parquet(root / f"{split}.parquet", batch_size=batch_size)
    return root


def labelled(*labels: int | None) -> list[dict[str, Any]]:
    return [{"label": label} for label in labels]


def source(root: Path | str, labels: Any = LABELS, **options: Any) -> HubSource:
    rest = {name: options.pop(name) for name in ("columns", "domain", "licence") if name in options}
    folder = root.parent if isinstance(root, Path) else Path(options.pop("folder"))
    path = write(folder / "map.yaml", yaml.safe_dump({"labels": labels, **rest}).encode())
    return HubSource(repo=str(root), map=path, **options)


def listed(made: HubSource) -> tuple[list[RawImage], list[Defect]]:
    defects: list[Defect] = []
    return list(made.images(None, defects.append)), defects


def complaint(made: HubSource, error: type[DfadError] = UsageError) -> str:
    with pytest.raises(error) as caught:
        listed(made)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what is read --------------------------------------------------------------------------------------------------


def test_named_classes_in_parquet_become_generators_split_by_split(tmp_path: Path) -> None:
    root = parquet(tmp_path / "faces", {"train": labelled(0, 1, 0), "validation": labelled(1), "test": labelled(0)})
    images, defects = listed(source(root, domain="ffhq", licence="CC-BY-NC-4.0"))
    assert defects == []
    assert sorted((i.key, i.generator, i.source_split) for i in images) == [
        ("test/00000000", "sd15", "test"),
        ("train/00000000", "sd15", "train"),
        ("train/00000001", "real", "train"),
        ("train/00000002", "sd15", "train"),
        ("validation/00000000", "real", "val"),
    ]
    by_key = {i.key: i for i in images}
    assert by_key["train/00000001"].payload.read() == PICTURES[1]
    assert by_key["train/00000002"].payload.read() == PICTURES[2]
    assert {(i.family, i.forgery_type, i.domain, i.licence) for i in images if i.generator == "sd15"} == {
        ("diffusion", "efs", "ffhq", "CC-BY-NC-4.0")
    }


def test_it_keeps_the_contract_of_a_source(tmp_path: Path) -> None:
    rows = [{"label": n % 2, "clip": f"c{n % 3}"} for n in range(9)]
    check_source(source(parquet(tmp_path / "faces", {"train": rows}), columns={"video": "clip"}), None)


def test_an_imagefolder_is_read_from_its_own_files(tmp_path: Path) -> None:
    for name, picture in (("train/real/1.jpg", 1), ("train/fake/2.jpg", 2), ("test/real/3.jpg", 3)):
        write(tmp_path / "faces" / name, PICTURES[picture])
    images, _ = listed(source(tmp_path / "faces"))
    assert [
        (i.generator, i.source_split, i.payload.read() == PICTURES[n]) for i, n in zip(images, (2, 1, 3), strict=True)
    ] == [
        ("sd15", "train", True),
        ("real", "train", True),
        ("real", "test", True),
    ]
    (tmp_path / "faces" / "train" / "fake" / "2.jpg").unlink()
    with pytest.raises(FileNotFoundError):
        images[0].payload.read()


def test_an_imagefolder_with_metadata_is_labelled_by_a_column_of_text(tmp_path: Path) -> None:
    for n in range(3):
        write(tmp_path / "faces" / f"{n}.jpg", PICTURES[n])
    methods = {"file_name": ["0.jpg", "1.jpg", "2.jpg"], "method": ["Real", "SD 1.5", "SD 1.5"]}
    pq.write_table(pa.table(methods), tmp_path / "faces" / "metadata.parquet")  # of a CSV, datasets leaks the handle
    made = source(tmp_path / "faces", {"Real": "real", "SD 1.5": "sd15"}, label_column="method")
    images, _ = listed(made)
    assert [i.generator for i in images] == ["real", "sd15", "sd15"]
    assert "no column is plainly it" in complaint(source(tmp_path / "faces", {"Real": "real", "SD 1.5": "sd15"}))


def test_a_lone_train_split_is_no_split(tmp_path: Path) -> None:
    images, _ = listed(source(parquet(tmp_path / "faces", {"train": labelled(0, 1)})))
    assert {i.source_split for i in images} == {None}


def test_one_split_can_be_chosen_and_an_absent_one_is_one_line(tmp_path: Path) -> None:
    root = parquet(tmp_path / "faces", {"train": labelled(0, 1), "test": labelled(1, 0, 1)})
    images, _ = listed(source(root, split="test"))
    assert {i.source_split for i in images} == {"test"}
    assert len(images) == 3
    assert "has no split 'tset'. It has: " in complaint(source(root, split="tset"))


def test_columns_of_the_map_arrive_where_they_belong(tmp_path: Path) -> None:
    row = {"label": 0, "name": "b/7.jpg", "clip": "v1", "at": "7", "who": "ann|bob", "part": "valid"}
    row |= {"model": "v2", "terms": "CC0", "data": "celeba"}
    columns = {"key": "name", "video": "clip", "frame": "at", "identities": "who", "source_split": "part"}
    columns |= {"generator_version": "model", "licence": "terms", "domain": "data"}
    root = parquet(tmp_path / "faces", {"train": [row, row | {"label": 1, "name": "c/8.jpg"}]})
    image, real = listed(source(root, columns=columns))[0]
    assert (image.key, image.video, image.frame, image.identities) == ("b/7.jpg", "v1", 7, ("ann", "bob"))
    assert (image.source_split, image.generator_version, image.licence) == ("val", "v2", "CC0")
    assert (image.domain, real.key) == ("celeba", "c/8.jpg")


def test_images_of_one_video_follow_each_other(tmp_path: Path) -> None:
    rows = [{"label": 0, "clip": clip} for clip in "abcabca"]
    images, _ = listed(source(parquet(tmp_path / "x", {"train": rows}), {"fake": "sd15"}, columns={"video": "clip"}))
    assert "".join(str(i.video) for i in images) == "aaabbcc"
    assert [i.key[-1] for i in images] == list("0361425")
    assert all(i.payload.read() == PICTURES[int(i.key[-1])] for i in images)


@pytest.mark.parametrize("columns", [{}, {"video": "clip"}])
def test_rows_of_several_arrow_files_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: dict[str, str]
) -> None:
    monkeypatch.setattr(datasets.config, "MAX_SHARD_SIZE", 1)
    rows = [{"label": 0, "clip": clip} for clip in "abcabc"]
    features = {"clip": datasets.Value("string")}
    root = parquet(tmp_path / "x", {"train": rows}, features, batch_size=2)
    images, _ = listed(source(root, {"fake": "sd15"}, columns=columns))
    assert len({i.payload.arrow for i in images}) == 3
    assert [i.key[-1] for i in images] == list("031425" if columns else "012345")
    assert all(i.payload.read() == PICTURES[int(i.key[-1])] for i in images)


def test_a_meaning_in_the_map_declares_a_new_generator(tmp_path: Path) -> None:
    new = {"name": "our_flow", "family": "flow", "forgery_type": "efs", "domain": "vf", "version": "3"}
    made = source(parquet(tmp_path / "faces", {"train": labelled(0, 1)}), {"fake": new, "real": "real"})
    fake, real = listed(made)[0]
    assert (fake.generator, fake.family, fake.domain, fake.generator_version) == ("our_flow", "flow", "vf", "3")
    assert (real.domain, real.licence) == ("faces", "unspecified")
    assert [g.name for g in made.generators(None)] == ["our_flow"]
    assert known().find("our_flow") is None


def test_it_is_prepared_by_two_workers_and_a_second_run_does_nothing(tmp_path: Path) -> None:
    root = parquet(tmp_path / "faces", {"train": labelled(0, 1, 0), "test": labelled(1, 0)})
    made = source(root)
    what = job(
        tmp_path, tmp_path / "data", "hf", settings=[f"repo={made.repo}", f"map={made.map}"], engine=LocalEngine(2)
    )
    report = run(dataclasses.replace(what, root=None))
    assert sorted((row["id"], row["source_split"]) for row in rows(report.root)) == [
        ("faces/real/test/00000000", "test"),
        ("faces/real/train/00000001", "train"),
        ("faces/sd15/test/00000001", "test"),
        ("faces/sd15/train/00000000", "train"),
        ("faces/sd15/train/00000002", "train"),
    ]
    again = run(dataclasses.replace(what, root=None))
    assert again.resumed == again.parts


# --- labels are never guessed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int64", "bool", "numbered classes"])
def test_a_label_without_names_is_refused(tmp_path: Path, kind: str) -> None:
    feature = datasets.ClassLabel(num_classes=2) if kind == "numbered classes" else datasets.Value(kind)
    root = parquet(tmp_path / "faces", {"train": labelled(0, 1)}, {"label": feature})
    message = complaint(source(root, {"0": "real", "1": "sd15"}, label_column="label"))
    assert "without names, so nobody can tell which of them is real" in message


def test_a_label_the_map_does_not_name_is_an_error_before_the_first_image(tmp_path: Path) -> None:
    root = parquet(tmp_path / "faces", {"train": labelled(0, 0, 0, 1)})
    with pytest.raises(UsageError, match=r"does not say what label 'real' of .*Did you mean 'reel'\?"):
        next(source(root, {"fake": "sd15", "reel": "real"}).images(None, lambda defect: None))


def test_a_class_that_no_row_has_needs_no_entry(tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["fake", "real", "never"])
    images, defects = listed(source(parquet(tmp_path / "faces", {"train": labelled(0, 1)}, {"label": names})))
    assert (len(images), defects) == (2, [])


def test_ignored_unused_and_missing_labels_are_told(tmp_path: Path) -> None:
    root = parquet(tmp_path / "faces", {"train": labelled(0, 1, -1, None)})
    images, defects = listed(source(root, {"fake": "ignore", "real": "real", "swap": "simswap"}))
    assert [i.generator for i in images] == ["real"]
    assert {d.kind: "swap" in d.detail or "2 rows" in d.detail for d in defects} == {
        "unused_label": True,
        "unlabelled_rows": True,
    }
    assert "ignores every label" in complaint(source(root, {"fake": "ignore", "real": "ignore"}))


def test_a_column_of_prompts_is_no_column_of_labels(tmp_path: Path) -> None:
    rows = [{"prompt": f"face {n}"} for n in range(1001)]
    root = parquet(tmp_path / "faces", {"train": rows})
    assert "1001 values, which are hardly labels" in complaint(source(root, {"a": "real"}, label_column="prompt"))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"label_column": "lable"}, "no column 'lable' (label_column). Did you mean 'label'?"),
        ({"columns": {"video": "clip"}}, "no column 'clip' (video)"),
        ({"columns": {"video": "image"}}, "holds no text and no numbers"),
        ({"image_column": "label"}, "holds neither images nor bytes nor paths"),
        ({"columns": {"source_split": "part"}}, "row 0: source_split is 'moon'"),
        ({"columns": {"key": "nothing"}}, "row 0: the key in column 'nothing' is empty"),
        ({"columns": {"frame": "part"}}, "row 0: part needs 1 finite number"),
        ({"labels": {"fake": "sd155", "real": "real"}}, "'sd155' is no known generator. Did you mean"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path: Path, options: dict[str, Any], part: str) -> None:
    rows = [{"label": n, "part": "moon", "nothing": ""} for n in range(2)]
    assert part in complaint(source(parquet(tmp_path / "faces", {"train": rows}), **options))


def test_several_image_columns_ask_for_one(tmp_path: Path) -> None:
    other = [{"label": 0, "mask": {"bytes": PICTURES[5], "path": None}}]
    root = parquet(tmp_path / "faces", {"train": other}, {"mask": datasets.Image()})
    assert "several could be it (image, mask)" in complaint(source(root, {"fake": "sd15"}))
    (image,), _ = listed(source(root, {"fake": "sd15"}, image_column="mask"))
    assert image.payload.read() == PICTURES[5]


@pytest.mark.parametrize(
    ("content", "error", "part"),
    [
        ({"labels": {}}, DataError, "labels"),
        ({"lables": {"a": "real"}}, DataError, "lables"),
        ({"labels": {0: "real"}}, DataError, "labels.0"),
        ({"labels": {"a": "real"}, "columns": {"vidoe": "x"}}, DataError, "vidoe"),
    ],
)
def test_a_wrong_map_is_one_line(tmp_path: Path, content: Any, error: type[DfadError], part: str) -> None:
    path = write(tmp_path / "map.yaml", yaml.safe_dump(content).encode())
    assert part in complaint(HubSource(repo="./x", map=path), error)


def test_without_map_or_repository_and_with_a_root_it_says_what_to_write(tmp_path: Path) -> None:
    assert "needs a label map" in complaint(HubSource(repo="./x"))
    path = write(tmp_path / "map.yaml", b"labels: {a: real}")
    assert "needs a repository" in complaint(HubSource(map=path))
    with pytest.raises(UsageError, match="takes no --root"):
        list(HubSource(repo="./x", map=path).images(tmp_path, lambda defect: None))
    assert "There is no folder" in complaint(HubSource(repo="./absent", map=path))
    assert "has no revision: write hf:./x" in complaint(HubSource(repo="./x", revision="v1", map=path))
    assert HubSource().generators(None) == ()


# --- revisions, networks and caches --------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", [None, "main", "eb2a54f"])
def test_a_repository_without_a_pinned_revision_is_refused(tmp_path: Path, revision: str | None) -> None:
    message = complaint(source("org/name", folder=tmp_path, revision=revision))
    assert "Pin one" in message
    assert "https://huggingface.co/datasets/org/name/commits/main" in message
    assert "hf:org/name@COMMIT" in message


@pytest.mark.parametrize("revision", [COMMIT, "v1.0"])
def test_without_a_network_it_fails_at_once_in_one_line(tmp_path: Path, revision: str) -> None:
    started = time.perf_counter()
    message = complaint(source("org/name", folder=tmp_path, revision=revision), DataError)
    assert time.perf_counter() - started < 2
    assert "org/name is not in the cache of datasets, and the Hub cannot be reached" in message


def cached(tmp_path: Path, commit: str = COMMIT) -> None:
    """Put ``org/name`` at a commit into the cache, as a download would have left it."""
    made = datasets.load_dataset(str(parquet(tmp_path / "name", {"train": labelled(0, 1), "test": labelled(1, 1)})))
    built = Path(made["train"].cache_files[0]["filename"]).parent
    target = tmp_path / "cache" / "org___name" / "default" / "0.0.0" / commit
    target.parent.mkdir(parents=True)
    shutil.move(built, target)
    info = json.loads((target / "dataset_info.json").read_text())
    write(target / "dataset_info.json", json.dumps(info | {"dataset_name": "name"}).encode())
    shutil.rmtree(tmp_path / "name")


@pytest.mark.filterwarnings("ignore:Using the latest cached version")
def test_a_repository_in_the_cache_is_read_without_a_network(tmp_path: Path) -> None:
    cached(tmp_path)
    images, _ = listed(source("org/name", folder=tmp_path, revision=COMMIT))
    assert [(i.generator, i.source_split, i.domain) for i in images] == [
        ("sd15", "train", "name"),
        ("real", "train", "name"),
        ("real", "test", "name"),
        ("real", "test", "name"),
    ]
    assert images[1].payload.read() == PICTURES[1]
    assert COMMIT in images[0].payload.stamp()


@pytest.mark.filterwarnings("ignore:Using the latest cached version")
def test_another_revision_in_the_cache_is_not_taken_for_the_pinned_one(tmp_path: Path) -> None:
    cached(tmp_path)
    message = complaint(source("org/name", folder=tmp_path, revision="b" * 40), DataError)
    assert f"holds org/name at {COMMIT}, not at {'b' * 40}" in message


def raising(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def load_dataset(*args: Any, **options: Any) -> None:
        assert "trust_remote_code" not in options
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


def hub_error(kind: str) -> Exception:
    import huggingface_hub.errors as errors

    made: Exception = getattr(errors, kind).__new__(getattr(errors, kind))
    made.args = ("401 Client Error",)
    return made


def known_errors() -> Sequence[tuple[Exception, type[DfadError], str]]:
    not_found = datasets.exceptions.DatasetNotFoundError
    return [
        (not_found("Dataset 'org/name' is a gated dataset on the Hub."), DataError, "'hf auth login'"),
        (hub_error("GatedRepoError"), DataError, "Accept its terms at https://huggingface.co/datasets/org/name"),
        (not_found("Dataset 'org/name' doesn't exist on the Hub or cannot be accessed."), UsageError, "Check name"),
        (not_found("Revision 'x' doesn't exist for dataset 'org/name' on the Hub."), UsageError, "Revision 'x'"),
        (hub_error("RepositoryNotFoundError"), UsageError, "Check name and revision"),
        (ConnectionError("Couldn't reach 'org/name' on the Hub (ConnectTimeout)"), DataError, "cannot be reached"),
        (hub_error("HfHubHTTPError"), DataError, "cannot be reached"),
        (RuntimeError("Dataset scripts are no longer supported, but found name.py"), DataError, "never run"),
    ]


@pytest.mark.parametrize("number", range(8))
def test_what_the_hub_says_becomes_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    error, kind, part = known_errors()[number]
    raising(monkeypatch, error)
    assert part in complaint(source("org/name", folder=tmp_path, revision=COMMIT), kind)


def test_a_bug_of_the_library_is_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, TypeError("unexpected"))
    with pytest.raises(TypeError, match="unexpected"):
        listed(source("org/name", folder=tmp_path, revision=COMMIT))


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return imported(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "datasets")
    assert "pip install 'dfad-bench[hub]'" in complaint(source("org/name", folder=tmp_path, revision=COMMIT))


def test_several_configurations_ask_for_one(tmp_path: Path) -> None:
    root = tmp_path / "faces"
    for name, label in (("core", 0), ("reddit", 1)):
        parquet(root / name, {"train": labelled(label)})
    configs = [{"config_name": name, "data_files": f"{name}/*.parquet"} for name in ("core", "reddit")]
    write(root / "README.md", f"---\n{yaml.safe_dump({'configs': configs})}---\n".encode())
    assert "['core', 'reddit']. Choose one with --set config=NAME" in complaint(source(root))
    assert "Choose one with --set config=NAME" in complaint(source(root, config="coree"))
    images, _ = listed(source(root, config="reddit"))
    assert [i.generator for i in images] == ["real"]


@pytest.mark.parametrize("content", ["nothing", "a script", "a broken table"])
def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path, content: str) -> None:
    root = tmp_path / "faces"
    root.mkdir()
    if content == "a script":
        write(root / "faces.py", b"raise SystemExit('was run')")
    elif content == "a broken table":
        write(root / "train.parquet", b"PAR1 not really PAR1")
    error = UsageError if content == "nothing" else DataError
    parts = {"nothing": "holds no file", "a script": "never run", "a broken table": "cannot be read"}
    assert parts[content] in complaint(source(root), error)


# --- payloads ------------------------------------------------------------------------------------------------------


def test_a_payload_is_small_and_read_in_a_process_without_datasets(tmp_path: Path) -> None:
    images, _ = listed(source(parquet(tmp_path / "faces", {"train": labelled(0, 1)})))
    packed = pickle.dumps(images[1].payload)
    assert len(packed) < 1000
    import subprocess

    code = (
        "import pickle, sys; payload = pickle.loads(sys.stdin.buffer.read()); data = payload.read(); "
        "assert not {'datasets', 'torch'} & set(sys.modules); sys.stdout.buffer.write(data)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=packed, capture_output=True, check=True)
    assert done.stdout == PICTURES[1]


def test_a_changed_folder_is_read_anew_and_its_stamps_change(tmp_path: Path) -> None:
    root = parquet(tmp_path / "faces", {"train": labelled(0, 1)})
    before = listed(source(root))[0]
    assert [i.payload.stamp() for i in listed(source(root))[0]] == [i.payload.stamp() for i in before]
    time.sleep(0.01)
    parquet(root, {"train": labelled(1, 0)})
    after = listed(source(root))[0]
    assert [i.generator for i in after] == ["real", "sd15"]
    assert {i.payload.stamp() for i in before}.isdisjoint(i.payload.stamp() for i in after)


def arrow(path: Path, rows: list[Any], type: Any) -> str:
    table = pa.table({"image": pa.array(rows, type)})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return str(path)


def test_a_path_in_a_row_is_read_below_the_dataset_s_folders_only(tmp_path: Path) -> None:
    inside, other, secret = (tmp_path / name / "1.jpg" for name in ("inside", "downloads", "secret"))
    for number, path in enumerate((inside, other, secret)):
        write(path, PICTURES[number])
    (inside.parent / "link.jpg").symlink_to(secret)
    paths = [
        "1.jpg",
        str(inside),
        str(other),
        str(secret),
        "../secret/1.jpg",
        "link.jpg",
        f"{inside.parent}/../secret/1.jpg",
    ]
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    file = arrow(tmp_path / "t.arrow", [{"bytes": None, "path": path} for path in paths], struct)
    images = [HubImage(file, n, "image", "v", (str(inside.parent), str(other.parent))) for n in range(len(paths))]
    assert [image.read() for image in images[:3]] == [PICTURES[0], PICTURES[0], PICTURES[1]]
    for image in images[3:]:
        with pytest.raises(SkippedInput, match="outside_root"):
            image.read()


def test_rows_of_bytes_of_paths_and_of_nothing(tmp_path: Path) -> None:
    write(tmp_path / "1.jpg", PICTURES[3])
    made = arrow(tmp_path / "b.arrow", [PICTURES[0], None], pa.binary())
    assert HubImage(made, 0, "image", "v", (str(tmp_path),)).read() == PICTURES[0]
    with pytest.raises(SkippedInput, match="holds no image"):
        HubImage(made, 1, "image", "v", (str(tmp_path),)).read()
    made = arrow(tmp_path / "p.arrow", ["1.jpg"], pa.string())
    assert HubImage(made, 0, "image", "v", (str(tmp_path),)).read() == PICTURES[3]


def test_a_cache_that_has_gone_or_broken_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has gone from the cache"):
        HubImage(str(tmp_path / "gone.arrow"), 0, "image", "v", (str(tmp_path),)).read()
    write(tmp_path / "bad.arrow", b"not arrow at all, though long enough")
    with pytest.raises(DataError, match="is broken"):
        HubImage(str(tmp_path / "bad.arrow"), 0, "image", "v", (str(tmp_path),)).read()


def test_what_is_listed_of_many_rows_is_not_held(tmp_path: Path) -> None:
    import tracemalloc

    peaks = []
    for count in (2_000, 10_000):
        made = source(parquet(tmp_path / str(count) / "x", {"train": labelled(*([0, 1] * (count // 2)))}))
        made.map.parent.mkdir(exist_ok=True)
        hub.arrow_table.cache_clear()
        images = made.images(None, lambda defect: None)
        next(images)
        tracemalloc.start()
        assert sum(1 for _ in images) == count - 1
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_the_folders_of_a_repository_are_its_own_caches(tmp_path: Path) -> None:
    assert HubDataset("org/name").folders() == (
        str(tmp_path / "hub" / "datasets--org--name"),
        str(tmp_path / "cache" / "downloads"),
    )
