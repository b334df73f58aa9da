"""A protocol file becomes exactly the faces it says, the same everywhere, and one that leaks or contradicts is refused."""

from __future__ import annotations

import random
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dfad_bench import registry
from dfad_bench.errors import DataError, UnknownName, UsageError
from dfad_bench.records.protocol import Partition, Protocol, load_protocol
from dfad_bench.records.sampling import order_key
from dfad_bench.records.selection import Selection, open_manifests, resolve
from dfad_bench.types import Leaf
from tests.records.builders import (
    SEEN,
    Row,
    face,
    ids,
    manifest_in_memory,
    nullable_table,
    protocol,
    protocol_data,
    recipe,
    select,
    select_in_memory,
    toy_faces,
    write_broken_manifest,
    write_manifest,
    write_protocol,
)

SPLIT_LEAKS = [
    ({"identities": ["anna"]}, "identity", "anna"),
    ({"video": "toy/real/clip"}, "video", "toy/real/clip"),
    ({"sha256": "f" * 64}, "pixel hash", "f" * 64),
]


def load(folder: Path, **changes: Any) -> Protocol:
    return load_protocol(str(write_protocol(folder, **changes)))


def refusal(folder: Path, **changes: Any) -> str:
    """Load a protocol file that must be refused; return the message, one line that names the file."""
    path = write_protocol(folder, **changes)
    with pytest.raises(DataError) as caught:
        load_protocol(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def unresolved(rows: list[Row], **changes: Any) -> str:
    """Resolve a protocol that must be refused; return the message."""
    with pytest.raises(DataError) as caught:
        select_in_memory(rows, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def where(split: str, generators: list[str] = SEEN, **columns: Any) -> dict[str, Any]:
    return {"where": {"generator": generators, "source_split": split, **columns}}


def all_ids(selection: Selection) -> dict[str, list[str]]:
    return {
        "train": ids(selection.train),
        "val": ids(selection.val),
        **{name: ids(table) for name, table in selection.test.items()},
    }


# --- from YAML to faces --------------------------------------------------------------------------------------------


def test_a_protocol_file_becomes_the_faces_it_names(tmp_path: Path) -> None:
    write_manifest(tmp_path, toy_faces(2))
    loaded = load(tmp_path)
    selection = resolve(loaded, open_manifests(loaded, tmp_path))
    assert all_ids(selection) == {
        "train": sorted(f"toy/{g}/train{n}" for g in SEEN for n in range(2)),
        "val": sorted(f"toy/{g}/val{n}" for g in SEEN for n in range(2)),
        "seen": sorted(f"toy/{g}/test{n}" for g in SEEN for n in range(2)),
        "unseen": ["toy/flow_a/test0", "toy/flow_a/test1"],
    }
    assert selection.test_faces == 8
    assert selection.departures == ()


def test_the_classes_are_real_and_then_the_train_generators_in_order() -> None:
    assert select_in_memory(toy_faces(1)).classes == (
        Leaf("real", "real", "real"),
        Leaf("diffusion_a", "diffusion", "efs"),
        Leaf("gan_a", "gan", "efs"),
    )


def test_every_face_knows_the_folder_it_lies_in(tmp_path: Path) -> None:
    write_manifest(tmp_path, toy_faces(1))
    assert set(select(tmp_path).train["root"].to_pylist()) == {str(tmp_path / "toy")}


def test_faces_come_from_every_source_named_and_no_other(tmp_path: Path) -> None:
    for name in ("toy", "other", "third"):
        write_manifest(tmp_path, toy_faces(1, source=name), name)
    chosen = select(tmp_path, sources=["toy", "other"])
    assert set(chosen.train["source"].to_pylist()) == {"toy", "other"}
    assert set(chosen.manifests) == {"toy", "other"}


def test_a_scalar_in_where_selects_like_a_list_of_one() -> None:
    rows = toy_faces(1)
    scalar = {"seen": {"where": {"source_split": "test", "generator": "gan_a"}}}
    listed = {"seen": {"where": {"source_split": ["test"], "generator": ["gan_a"]}}}
    assert all_ids(select_in_memory(rows, test=scalar)) == all_ids(select_in_memory(rows, test=listed))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("source", "toy"),
        ("family", "flow"),
        ("forgery_type", "fs"),
        ("generator_version", "2"),
        ("domain", "seaside"),
        ("generator", "flow_a"),
    ],
)
def test_every_column_of_a_where_selects_by_its_value(column: str, value: str) -> None:
    rows = toy_faces(2)
    rows[-1] |= {"generator_version": "2", "domain": "seaside"}
    chosen = select_in_memory(rows, test={"some": {"where": {column: value, "source_split": "test"}}})
    assert ids(chosen.test["some"]) == sorted(
        row["id"] for row in rows if row[column] == value and row["source_split"] == "test"
    )


def test_a_null_never_matches_a_where() -> None:
    rows = [*toy_faces(1), face("loose", source_split=None)]
    chosen = select_in_memory(rows, test={"all": {"where": {"source_split": "test"}}})
    assert "toy/real/loose" not in ids(chosen.test["all"])


def test_subsets_may_overlap_one_another() -> None:
    test = {"all": {"where": {"source_split": "test"}}, "fakes": where("test", ["flow_a", "gan_a"])}
    chosen = select_in_memory(toy_faces(1), test=test)
    assert set(ids(chosen.test["fakes"])) < set(ids(chosen.test["all"]))


def test_a_sound_manifest_of_another_tool_stands_beside_ours(tmp_path: Path) -> None:
    write_manifest(tmp_path, toy_faces(1))
    write_broken_manifest(tmp_path, nullable_table(toy_faces(1, source="other")), "other")
    assert select(tmp_path, sources=["toy", "other"]).train.num_rows == 6


# --- the file ------------------------------------------------------------------------------------------------------


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    assert "surprise: Extra inputs" in refusal(tmp_path, surprise=1)
    assert "train.per_genrator: Extra inputs" in refusal(tmp_path, train=where("train") | {"per_genrator": 1})


def test_an_unknown_column_is_named_with_those_known(tmp_path: Path) -> None:
    message = refusal(tmp_path, test={"seen": {"where": {"genrator": "gan_a"}}})
    assert "test.seen.where" in message
    assert "no column 'genrator'" in message
    assert "generator, family" in message


@pytest.mark.parametrize("value", [1.5, True, None, {"a": "b"}, ["ok", 2]])
def test_a_value_that_is_no_text_is_named_by_its_place(tmp_path: Path, value: Any) -> None:
    message = refusal(tmp_path, train={"where": {"generator_version": value}})
    assert "train.where.generator_version" in message


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"version": 0}, "version:"),
        ({"version": None}, "version: Field required"),
        ({"origin": "theirs"}, "origin:"),
        ({"sources": []}, "sources:"),
        ({"test": {}}, "test:"),
        ({"test": {"val": where("test")}}, "may not be called train or val"),
        ({"test": {"train": where("test")}}, "may not be called train or val"),
        ({"train": where("train") | {"per_generator": 0}}, "train.per_generator:"),
        ({"test": {"seen": where("test") | {"report_by": "domain"}}}, "test.seen.report_by:"),
        ({"attribution": {"levels": []}}, "attribution.levels:"),
        ({"attribution": {"levels": ["authenticity"]}}, "attribution.levels.0:"),
        ({"detection": {"reals": "some"}}, "detection.reals:"),
        ({"expect": {"fingerprint": "md5:0"}}, "expect.fingerprint:"),
        ({"allow_overlap": {"domain": "because"}}, "allow_overlap.domain"),
        ({"allow_overlap": ["video"]}, "allow_overlap:"),
    ],
)
def test_a_wrong_value_is_named_by_its_key(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    assert complaint in refusal(tmp_path, **changes)


@pytest.mark.parametrize("name", ["Toy", "1toy", "toy-1", "toy.v2", ""])
def test_a_name_that_no_command_line_likes_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        protocol(name=name)


def test_a_partition_is_defined_exactly_when_it_is_used(tmp_path: Path) -> None:
    rule = {"by": ["identities"], "fractions": {"train": 0.5, "test": 0.5}}
    assert "partition" in refusal(tmp_path, partition=rule)
    assert "partition" in refusal(tmp_path, train={"where": {"partition": "train"}})


@pytest.mark.parametrize(
    "rule",
    [
        {"by": [], "fractions": {"train": 1.0}},
        {"by": ["domain"], "fractions": {"train": 1.0}},
        {"by": ["video"], "fractions": {"train": 0.5, "test": 0.4}},
        {"by": ["video"], "fractions": {"train": 1.5, "test": -0.5}},
        {"by": ["video"], "fractions": {}},
    ],
)
def test_a_partition_needs_groups_and_fractions_that_sum_to_one(rule: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="partition"):
        protocol(partition=rule, train={"where": {"partition": "train"}})


def test_fractions_that_sum_to_one_in_decimal_are_accepted() -> None:
    assert Partition(by=["video"], fractions={"a": 0.7, "b": 0.1, "c": 0.2}).fractions["a"] == 0.7


def test_the_file_name_is_the_name(tmp_path: Path) -> None:
    path = write_protocol(tmp_path).rename(tmp_path / "other.yaml")
    with pytest.raises(DataError, match=r"other\.yaml: the file name is the name, but it says name: toy"):
        load_protocol(str(path))


def test_a_link_to_a_protocol_goes_by_its_own_name(tmp_path: Path) -> None:
    stored = write_protocol(tmp_path).rename(tmp_path / "0123abcd")
    (tmp_path / "toy.yaml").symlink_to(stored)
    assert load_protocol(str(tmp_path / "toy.yaml")).name == "toy"


def test_an_unknown_protocol_is_told_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"No protocol is named 'dmo'\. Did you mean 'demo'\?"):
        load_protocol("dmo")


def test_a_missing_file_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no protocol file"):
        load_protocol(str(tmp_path / "toy.yaml"))


def test_every_protocol_we_ship_can_be_read() -> None:
    shipped = [name for name, entry in registry.entries("protocols").items() if entry.origin == "built-in"]
    assert "demo" in shipped
    assert [load_protocol(name).name for name in shipped] == shipped


def test_a_third_party_protocol_is_held_to_the_name_it_is_registered_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "get", lambda kind, name: protocol_data())
    assert load_protocol("toy").name == "toy"
    with pytest.raises(DataError, match=r"'yot'.*name: toy"):
        load_protocol("yot")


def test_a_third_party_protocol_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "get", lambda kind, name: protocol_data(origin="theirs"))
    with pytest.raises(DataError, match="protocol toy: origin"):
        load_protocol("toy")


# --- missing manifests ---------------------------------------------------------------------------------------------


def test_missing_manifests_are_all_named_with_the_command_for_each(tmp_path: Path) -> None:
    write_manifest(tmp_path, toy_faces(1))
    with pytest.raises(UsageError) as caught:
        open_manifests(protocol(sources=["folder", "toy", "my_faces"]), tmp_path)
    message = str(caught.value)
    # a line each: several commands in one line cannot be copied
    assert message.splitlines() == [
        f"Protocol toy needs folder, my_faces, which {tmp_path} does not hold. "
        "Point --data at the folder that has them, or run:",
        f"dfad-bench prepare --source folder --root … --data {tmp_path}",
        f"dfad-bench prepare --source … --name my_faces --root … --data {tmp_path}",
    ]


def test_the_command_for_a_source_that_needs_no_root_asks_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.get("sources", "folder"), "needs_root", False)
    data = tmp_path / "my data"
    with pytest.raises(UsageError) as caught:
        open_manifests(protocol(sources=["folder"]), data)
    assert f"Run: dfad-bench prepare --source folder --data '{data}' (or" in str(caught.value)


def test_a_manifest_in_another_source_folder_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, toy_faces(1)).rename(tmp_path / "renamed")
    with pytest.raises(DataError, match=r"renamed.*says that it is toy"):
        select(tmp_path, sources=["renamed"])


# --- what cannot be resolved ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "seen"])
def test_a_generator_named_but_absent_is_an_error_that_names_it(split: str) -> None:
    wrong = where("test" if split == "seen" else split, [*SEEN, "gan_b"])
    changes = {"test": {"seen": wrong}} if split == "seen" else {split: wrong}
    message = unresolved(toy_faces(1), **changes)
    assert message.startswith(f"{split}: no face with generator gan_b matches")
    assert "source_split in" in message


def test_val_need_not_have_every_generator_it_names() -> None:
    rows = [row for row in toy_faces(1) if (row["generator"], row["source_split"]) != ("gan_a", "val")]
    assert select_in_memory(rows).val.num_rows == 2


@pytest.mark.parametrize("split", ["train", "val", "seen"])
def test_a_split_without_a_face_is_named(split: str) -> None:
    nothing = {"where": {"domain": "nowhere"}}
    changes = {"test": {"seen": nothing}} if split == "seen" else {split: nothing}
    assert f"{split}: no face matches domain in [nowhere]" in unresolved(toy_faces(1), **changes)


def test_val_may_not_hold_a_generator_that_train_does_not() -> None:
    message = unresolved(toy_faces(1), val=where("val", [*SEEN, "swap_a"]))
    assert "val holds swap_a, which train does not" in message


@pytest.mark.parametrize("generators", [["gan_a", "diffusion_a"], ["real"]])
def test_train_needs_reals_and_a_generator(generators: list[str]) -> None:
    changes = {"train": where("train", generators), "val": where("val", generators)}
    assert "train needs real faces and at least one generator" in unresolved(toy_faces(1), **changes)


@pytest.mark.parametrize("change", [{"size": 128}, {"margin": 0.5}, {"border": "constant"}])
def test_manifests_cut_differently_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    write_manifest(tmp_path, toy_faces(1))
    write_manifest(tmp_path, toy_faces(1, source="other"), "other", recipe=recipe(**change))
    with pytest.raises(DataError, match=r"cut differently.*toy 64 px margin 0\.3, other "):
        select(tmp_path, sources=["toy", "other"])


def test_one_source_under_two_names_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, toy_faces(1))
    write_manifest(tmp_path, toy_faces(1), "other")
    with pytest.raises(DataError, match="column source holds other names than the footer's 'other'"):
        select(tmp_path, sources=["toy", "other"])


@pytest.mark.parametrize(("column", "value"), [("domain", "cleba"), ("source_split", "trian"), ("family", "gann")])
def test_a_misspelt_label_beside_a_right_one_is_named_instead_of_selecting_less(column: str, value: str) -> None:
    wrong = {"where": {"generator": SEEN, "source_split": "train"}}
    right = {"domain": "toyland", "source_split": "train", "family": ["real", "gan", "diffusion"]}[column]
    wrong["where"][column] = [*([right] if isinstance(right, str) else right), value]
    assert f"no face with {column} {value}" in unresolved(toy_faces(1), train=wrong)


def test_a_limit_cannot_hide_a_leak() -> None:
    rows = toy_faces(5)
    rows += [face(f"leak {split}", source_split=split, identities=["toyland/anna"]) for split in ("train", "test")]
    for limit in (None, 1):
        assert "toyland/anna" in unresolved(rows, limit=limit)


def test_a_generator_labelled_differently_by_two_sources_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, toy_faces(1))
    write_manifest(tmp_path, [face("a", "gan_a", "other", family="diffusion")], "other")
    with pytest.raises(DataError, match="protocol toy: generator 'gan_a' is labelled both"):
        select(tmp_path, sources=["toy", "other"])


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(UsageError, match="limit"):
        select_in_memory(toy_faces(2), limit=limit)


# --- assume --------------------------------------------------------------------------------------------------------


def assuming(**assume: dict[str, str]) -> dict[str, Any]:
    return {"attribution": {"levels": ["family"], "assume": assume}}


def test_an_assumption_about_an_unseen_family_is_accepted() -> None:
    chosen = select_in_memory(toy_faces(1), **assuming(family={"flow": "diffusion"}))
    assert chosen.protocol.attribution.assume == {"family": {"flow": "diffusion"}}


def test_an_assumption_about_a_value_outside_the_taxonomy_is_refused(tmp_path: Path) -> None:
    assert "'flows' is no family" in refusal(tmp_path, **assuming(family={"flows": "diffusion"}))
    assert "'gan' is no forgery_type" in refusal(tmp_path, **assuming(forgery_type={"fr": "gan"}))
    assert "assume.generator" in refusal(tmp_path, **assuming(generator={"a": "b"}))


@pytest.mark.parametrize(
    "assume", [{"family": {"gan": "diffusion"}}, {"family": {"flow": "autoencoder"}}, {"forgery_type": {"efs": "real"}}]
)
def test_an_assumption_that_is_pointless_for_this_train_split_is_refused(assume: dict[str, Any]) -> None:
    message = unresolved(toy_faces(1), **assuming(**assume))
    assert f"assume.{next(iter(assume))} says" in message
    assert "must be absent from train and the second present" in message


# --- leaks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shared", "kind", "example"), SPLIT_LEAKS)
@pytest.mark.parametrize("splits", [("train", "val"), ("train", "test"), ("val", "test")])
def test_what_stands_in_two_splits_is_refused_by_kind_and_example(
    shared: dict[str, Any], kind: str, example: str, splits: tuple[str, str]
) -> None:
    rows = [*toy_faces(1), *(face(f"leak {split}", source_split=split, **shared) for split in splits)]
    message = unresolved(rows)
    assert f"Protocol toy leaks: 1 shared by {splits[0]} and {splits[1]} by {kind}, such as {example}." in message
    assert f"Split by {kind}" in message


@pytest.mark.parametrize(("shared", "kind", "example"), SPLIT_LEAKS)
def test_an_overlap_that_is_allowed_with_a_reason_is_accepted(shared: dict[str, Any], kind: str, example: str) -> None:
    rows = [*toy_faces(1), *(face(f"leak {split}", source_split=split, **shared) for split in ("train", "test"))]
    chosen = select_in_memory(rows, allow_overlap={next(iter(shared)): "the paper does so"})
    assert "toy/real/leak train" in ids(chosen.train)
    assert "toy/real/leak test" in ids(chosen.test["seen"])


def test_allowing_one_overlap_does_not_allow_another() -> None:
    leak: dict[str, Any] = {"identities": ["anna"], "video": "toy/real/clip"}
    rows = [*toy_faces(1), *(face(f"leak {split}", source_split=split, **leak) for split in ("train", "test"))]
    message = unresolved(rows, allow_overlap={"identities": "the paper does so"})
    assert "by video" in message
    assert "by identity" not in message


@pytest.mark.parametrize("both", [["anna", "berta"], ["berta", "anna"]])
def test_either_identity_of_a_swap_leaks(both: list[str]) -> None:
    rows = [
        *toy_faces(1),
        face("leak 1", "swap_a", source_split="train", identities=both),
        face("leak 2", source_split="test", identities=["anna"]),
    ]
    message = unresolved(rows, train=where("train", [*SEEN, "swap_a"]))
    assert "by identity, such as anna" in message


def test_a_leak_into_any_test_subset_is_found() -> None:
    rows = toy_faces(1)
    for row in rows:
        if row["id"] in ("toy/real/train0", "toy/flow_a/test0"):
            row["identities"] = ["anna"]
    assert "train and test by identity" in unresolved(rows)


def test_two_test_subsets_may_share_a_person() -> None:
    rows = toy_faces(1)
    for row in rows:
        if row["source_split"] == "test":
            row["identities"] = ["anna"]
    assert select_in_memory(rows).test_faces == 4


# --- sampling ------------------------------------------------------------------------------------------------------


def test_per_generator_takes_the_first_by_hash() -> None:
    rows = toy_faces(9)
    chosen = select_in_memory(rows, seed=3, train=where("train") | {"per_generator": 4})
    expected = [
        sorted(
            (row["id"] for row in rows if (row["generator"], row["source_split"]) == (generator, "train")),
            key=lambda name: order_key(3, name),
        )[:4]
        for generator in SEEN
    ]
    assert ids(chosen.train) == sorted(chain.from_iterable(expected))
    assert chosen.val.num_rows == 27


def test_a_limit_takes_a_part_of_what_per_generator_would() -> None:
    rows = toy_faces(9)
    rule = where("train") | {"per_generator": 4}
    whole, part = select_in_memory(rows, train=rule), select_in_memory(rows, limit=2, train=rule)
    assert set(ids(part.train)) < set(ids(whole.train))
    assert (part.train.num_rows, part.val.num_rows, part.test_faces) == (6, 6, 8)
    assert select_in_memory(rows, limit=100, train=rule).train.num_rows == 12


@settings(deadline=None, max_examples=15)
@given(st.randoms(), st.integers(0, 3))
def test_the_faces_chosen_do_not_depend_on_the_order_on_disk(dice: random.Random, seed: int) -> None:
    rows = toy_faces(4)
    changes: dict[str, Any] = {"seed": seed, "train": where("train") | {"per_generator": 2}}
    before = select_in_memory(rows, **changes)
    dice.shuffle(rows)
    after = select_in_memory(rows, **changes)
    assert all_ids(after) == all_ids(before)
    assert after.fingerprint == before.fingerprint
    assert after.classes == before.classes


# --- partition -----------------------------------------------------------------------------------------------------

PARTS = ("train", "val", "test")


def partitioned(by: list[str], seed: int = 0) -> dict[str, Any]:
    return {
        "seed": seed,
        "partition": {"by": by, "fractions": {"train": 0.6, "val": 0.2, "test": 0.2}},
        "train": {"where": {"partition": "train"}},
        "val": {"where": {"partition": "val"}},
        "test": {"all": {"where": {"partition": "test"}}},
    }


def crowd() -> list[Row]:
    """Return 240 faces without a published split: 60 people, two clips each, reals and fakes of the same people."""
    return [
        face(
            f"{person}-{clip}-{generator}",
            generator,
            source_split=None,
            identities=[f"person {person}"],
            video=f"toy/{generator}/{person}-{clip}",
        )
        for person in range(60)
        for clip in range(2)
        for generator in ("real", "gan_a")
    ]


def test_a_partition_shares_out_every_face_once() -> None:
    chosen = all_ids(select_in_memory(crowd(), **partitioned(["identities", "video"])))
    assert sorted(chain.from_iterable(chosen.values())) == sorted(row["id"] for row in crowd())
    assert len(chosen["train"]) > len(chosen["val"]) > 0


def test_another_seed_partitions_otherwise() -> None:
    first, second = (select_in_memory(crowd(), **partitioned(["identities"], seed)) for seed in (0, 1))
    assert ids(first.val) != ids(second.val)


def test_a_partition_keeps_a_person_together() -> None:
    chosen = select_in_memory(crowd(), **partitioned(["identities"]))
    people = [
        {who for row in table["identities"].to_pylist() for who in row}
        for table in (chosen.train, chosen.val, chosen.test["all"])
    ]
    assert sum(map(len, people)) == len(set.union(*people)) == 60


def test_a_partition_by_video_alone_leaks_people_and_is_refused() -> None:
    assert "by identity" in unresolved(crowd(), **partitioned(["video"]))


def test_a_swap_ties_its_two_people_into_one_part() -> None:
    rows = crowd()
    rows += [
        face(f"swap {n}", "swap_a", source_split=None, identities=[f"person {n}", f"person {n + 1}"])
        for n in range(0, 60, 2)
    ]
    chosen = select_in_memory(rows, **partitioned(["identities"]))
    assert sum(table.num_rows for table in (chosen.train, chosen.val, chosen.test["all"])) == len(rows)


def test_a_face_without_person_or_video_is_a_group_of_its_own() -> None:
    rows = [row | {"identities": [], "video": None} for row in crowd()]
    sizes = [len(part) for part in all_ids(select_in_memory(rows, **partitioned(["identities", "video"]))).values()]
    assert sum(sizes) == len(rows)
    assert all(sizes)


def test_a_person_called_like_a_video_is_not_that_video() -> None:
    rows = crowd()
    for row in rows:
        row["identities"], row["video"] = [f"a{row['identities'][0]}"], None
    before = all_ids(select_in_memory(rows, **partitioned(["identities", "video"])))
    for row in rows:
        row["video"] = None if row["generator"] == "real" else f"only {row['id']}"
    rows[1]["video"] = rows[100]["identities"][0]
    assert all_ids(select_in_memory(rows, **partitioned(["identities", "video"]))) == before


@settings(deadline=None, max_examples=10)
@given(st.randoms(), st.integers(0, 2))
def test_a_partition_does_not_depend_on_the_order_on_disk(dice: random.Random, seed: int) -> None:
    rows = crowd()
    before = all_ids(select_in_memory(rows, **partitioned(["identities"], seed)))
    dice.shuffle(rows)
    assert all_ids(select_in_memory(rows, **partitioned(["identities"], seed))) == before


# --- fingerprint and departures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "change"),
    [
        ("toy/gan_a/train0", {"sha256": "f" * 64}),
        ("toy/flow_a/test0", {"sha256": "f" * 64}),
        ("toy/gan_a/val0", {"domain": "seaside"}),
        ("toy/flow_a/test0", {"family": "diffusion"}),
        ("toy/flow_a/test0", {"forgery_type": "fr"}),
        ("toy/gan_a/test0", {"id": "toy/gan_a/renamed"}),
        ("toy/gan_a/test0", {"source_split": None}),
    ],
)
def test_the_fingerprint_changes_with_a_label_and_with_the_pixels(target: str, change: dict[str, Any]) -> None:
    rows = toy_faces(2)
    changed = [row | (change if row["id"] == target else {}) for row in rows]
    if "family" in change or "forgery_type" in change:
        changed = [row | (change if row["generator"] == "flow_a" else {}) for row in rows]
    assert select_in_memory(changed).fingerprint != select_in_memory(rows).fingerprint


def test_the_fingerprint_changes_when_two_subsets_swap_their_faces() -> None:
    seen, unseen = where("test"), where("test", ["flow_a"])
    one = select_in_memory(toy_faces(1), test={"a": seen, "b": unseen})
    two = select_in_memory(toy_faces(1), test={"a": unseen, "b": seen})
    assert one.fingerprint != two.fingerprint


def test_the_fingerprint_ignores_faces_that_are_not_selected() -> None:
    more = [*toy_faces(1), face("elsewhere", "swap_a", source_split="spare")]
    assert select_in_memory(more).fingerprint == select_in_memory(toy_faces(1)).fingerprint


def test_the_fingerprint_does_not_depend_on_where_the_data_lies(tmp_path: Path) -> None:
    marks = set()
    for place in ("here", "over there/deeper"):
        write_manifest(tmp_path / place, toy_faces(1))
        marks.add(select(tmp_path / place).fingerprint)
    marks.add(select_in_memory(toy_faces(1)).fingerprint)
    assert len(marks) == 1


def test_a_limit_is_a_departure() -> None:
    assert select_in_memory(toy_faces(2), limit=1).departures == ("limited to 1 faces per generator and split",)


def test_a_source_prepared_with_a_limit_is_a_departure(tmp_path: Path) -> None:
    write_manifest(tmp_path, toy_faces(1), limit=5)
    assert select(tmp_path).departures == ("source toy was prepared with --limit",)


def test_what_is_as_expected_is_no_departure() -> None:
    mark = select_in_memory(toy_faces(1)).fingerprint
    assert select_in_memory(toy_faces(1), expect={"faces": 10, "fingerprint": mark}).departures == ()


def test_what_is_not_as_expected_is_a_departure_and_no_error() -> None:
    expect = {"faces": 11, "fingerprint": "sha256:" + "0" * 64}
    faces, mark = select_in_memory(toy_faces(1), expect=expect).departures
    assert faces == "10 faces where the protocol expects 11"
    assert "fingerprint" in mark


def test_a_protocol_survives_being_written_as_yaml_and_read_again(tmp_path: Path) -> None:
    changes: dict[str, Any] = partitioned(["identities"]) | {"allow_overlap": {"video": "why"}, "warning": "größer"}
    first = load(tmp_path, **changes)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(first.model_dump(mode="json")), encoding="utf-8")
    assert load_protocol(str(tmp_path / "toy.yaml")) == first


def test_resolving_leaves_the_manifest_as_it_was() -> None:
    manifest = manifest_in_memory(toy_faces(1))
    resolve(protocol(), {"toy": manifest})
    assert "partition" not in manifest.table.column_names
    assert pc.count_distinct(manifest.table["id"]).as_py() == manifest.table.num_rows == 15
