"""The protocols that we ship name what their sources really have, keep people apart, and are what their README says."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import typer
import yaml

from dfad_bench import registry
from dfad_bench.checks import CHECKS
from dfad_bench.cli import app
from dfad_bench.engines.local import LocalEngine
from dfad_bench.errors import DataError, UsageError
from dfad_bench.interfaces import Source
from dfad_bench.prepare.faces import FaceMaker
from dfad_bench.prepare.folder_map import FolderMap
from dfad_bench.prepare.options import build_source
from dfad_bench.prepare.sources._df40_methods import METHODS
from dfad_bench.prepare.sources.ffpp import METHODS as FFPP_METHODS
from dfad_bench.records.manifest import Manifest
from dfad_bench.records.protocol import Protocol, Split, load_protocol
from dfad_bench.records.selection import Selection, open_manifests, resolve
from dfad_bench.taxonomy import FORGERY_TYPES, known
from dfad_bench.types import REAL, RawImage
from tests.prepare.builders import write
from tests.prepare.test_celebdf_source import tree as celebdf_tree
from tests.prepare.test_sfhq_t2i_source import copy as sfhq_copy
from tests.records.builders import SEEN, Row, face, ids, manifest_in_memory, recipe, select_in_memory, toy_faces

README = Path(__file__).parents[2] / "protocols" / "README.md"
SHIPPED = [
    name for name, entry in registry.entries("protocols").items() if entry.origin == "built-in" and name != "demo"
]
FINE = ("fine_grained", "fine_grained_genface")


@cache
def shipped(name: str) -> Protocol:
    return load_protocol(name)


# --- small copies of the datasets, each in its own layout ----------------------------------------------------------

PAIRS = {
    "train": [(f"{n:03d}", f"{n + 1:03d}") for n in range(0, 80, 2)],
    "val": [("100", "101"), ("102", "103")],
    "test": [("200", "201"), ("202", "203")],
}
"""FF++'s published lists, shortened."""
TEST_PERSON = "ff++/200"
PORTRAITS = range(60)
GENFACE = {
    **{"EFS": ["DDPM", "LatDiff", "CollDiff", "StyleGAN3"], "AM": ["Diffae", "LatTrans", "IA-FaceS"]},
    **{"FS": ["DiffFace", "FSLSD", "FaceSwapper"], "Real": ["FFHQ", "CelebA-HQ"]},
}


def touch(root: Path, *names: str) -> None:
    for name in names:
        write(root / name, b"listed, not read")


def lists(root: Path) -> Path:
    for split, pairs in PAIRS.items():
        write(root / "splits" / f"{split}.json", json.dumps(pairs).encode())
    return root / "splits"


def both_ways(*splits: str) -> list[str]:
    return [f"{a}_{b}" for split in splits for pair in PAIRS[split] for a, b in (pair, pair[::-1])]


def people(*splits: str) -> list[str]:
    return [who for split in splits for pair in PAIRS[split] for who in pair]


def df40(root: Path) -> Source:
    """DF40 at its poorest: no clip of FF++'s val people, no training part for what its README calls unknown; one train
    clip that shows a test person, and one train clip that lies in the test pack."""
    for method in METHODS:
        test, train = f"DF40/{method.folder}", f"DF40_train/{method.folder}"
        if method.folder == "e4e":
            touch(root, *(f"{test}/ff/inversions/{who}_0.jpg" for who in people("train", "test")))
        elif method.own_domain is not None:
            kinds = ("fake",) if method.folder in ("CollabDiff", "heygen") else ("fake", "real")
            below = "v" if method.folder == "CollabDiff" else "."
            touch(root, *(f"{test}/{kind}/{below}/{n}.png" for kind in kinds for n in range(3)))
        elif method.is_made_of_two:
            touch(root, *(f"{train}/frames/{clip}/0.png" for clip in [*both_ways("train"), "000_200"]))
            touch(root, *(f"{test}/ff/frames/{clip}/0.png" for clip in [*both_ways("test"), "002_003"]))
            touch(root, f"{test}/cdf/frames/id0_id1_0000/0.png", f"{test}/cdf/frames/id1_id0_0000/0.png")
        else:
            touch(root, *(f"{train}/{who}/seed0.png" for who in people("train")))
            touch(root, *(f"{test}/ff/{who}/0.png" for who in people("test")))
            touch(root, f"{test}/cdf/Fake_from_Celeb-real/id0_0000/0.png")
    originals = "FaceForensics++/original_sequences/youtube/c23/frames"
    touch(root, *(f"{originals}/{who}/0.png" for who in people(*PAIRS)))
    touch(root, "Celeb-DF-v2/Celeb-real/frames/id0_0000/0.png", "Celeb-DF-v2/YouTube-real/frames/00170/0.png")
    return build_source("df40", [f"splits={lists(root)}"])


def ffpp(root: Path) -> Source:
    touch(root, *(f"original_sequences/youtube/c23/frames/{who}/0.png" for who in people(*PAIRS)))
    for method in FFPP_METHODS:
        clips = ["01_02__exit__ABCDEFGH"] if method == "DeepFakeDetection" else both_ways(*PAIRS)
        touch(root, *(f"manipulated_sequences/{method}/c23/frames/{clip}/0.png" for clip in clips))
    return build_source("ffpp", [f"splits={lists(root)}"])


def deepfakeface(root: Path) -> Source:
    parts = ("wiki", "text2img", "inpainting", "insight")
    touch(root, *(f"{part}/00/{1000 + n}_1966-12-01_2011.jpg" for part in parts for n in PORTRAITS))
    return build_source("deepfakeface", [])


def sfhq_t2i(root: Path) -> Source:
    sfhq_copy(root)
    return build_source("sfhq_t2i", [])


def celebdf(root: Path) -> Source:
    celebdf_tree(root)
    return build_source("celebdf", ["frames=1"])


def genface(root: Path) -> Source:
    """A copy of GenFace as the map of the README reads it; a picture and what was made of it share a number."""
    touch(root, *(f"{kind}/{name}/{n:05d}.png" for kind in GENFACE for name in GENFACE[kind] for n in PORTRAITS))
    write(root.parent / "genface.yaml", yaml_block().encode())
    return build_source("folder", [f"map={root.parent / 'genface.yaml'}"])


COPIES: dict[str, Callable[[Path], Source]] = {
    each.__name__: each for each in (df40, ffpp, deepfakeface, sfhq_t2i, celebdf, genface)
}


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Manifest]:
    """What each source lists of its small copy, as the pipeline writes it down, without a pixel."""
    found = {}
    for name, build in COPIES.items():
        root = tmp_path_factory.mktemp(name) / "root"
        root.mkdir()
        images = build(root).images(root, lambda defect: None)
        found[name] = manifest_in_memory([as_row(image, name) for image in images], f"data/{name}", source=name)
    return MappingProxyType(found)


def as_row(image: RawImage, source: str) -> Row:
    maker = object.__new__(FaceMaker)  # what it writes down, without the detector that it loads
    maker.source = source
    return face(image.key, image.generator, source) | maker._source_columns(image)


def selected(name: str, manifests: Mapping[str, Manifest]) -> Selection:
    return resolve(shipped(name), {source: manifests[source] for source in shipped(name).sources})


def labels(tables: Iterator[pa.Table] | list[pa.Table], column: str) -> set[str]:
    return {value for table in tables for value in table[column].to_pylist()} - {REAL}


def named(*splits: Split) -> set[str]:
    """The generators, real among them, that some splits of a protocol name."""
    return {name for split in splits for condition in split.conditions for name in condition.get("generator", [])}


def trained(protocol: Protocol) -> set[str]:
    return named(protocol.train) - {REAL}


def unseen(protocol: Protocol) -> set[str]:
    return named(*protocol.test.values()) - trained(protocol) - {REAL}


# --- the names are those of the sources ----------------------------------------------------------------------------


@cache
def declared(source: str) -> frozenset[str]:
    """The generators that a source declares; for GenFace those that the README's map names."""
    if source == "genface":
        meanings = FolderMap.model_validate(yaml.safe_load(yaml_block())).generators.values()
        return frozenset(each if isinstance(each, str) else each.name for each in meanings) - {REAL}
    return frozenset(each.name for each in registry.get("sources", source)().generators(None))


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_sound_by_the_check_of_protocols_and_marked_as_ours(name: str, tmp_path: Path) -> None:
    assert CHECKS["protocol"](name, None, tmp_path, lambda done, total: None, LocalEngine()) == []
    protocol = shipped(name)
    assert protocol.origin == "ours" and protocol.warning is not None and "urs" in protocol.warning
    assert protocol.expect.faces is None and protocol.expect.fingerprint is None
    assert all(split.per_generator for split in (protocol.train, protocol.val, *protocol.test.values()))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_generator_that_it_names_is_declared_by_one_of_its_sources(name: str) -> None:
    protocol = shipped(name)
    offered = frozenset().union(*(declared(source) for source in protocol.sources))
    assert (trained(protocol) | unseen(protocol)) <= offered
    assert all(known().get(each).name == each for each in trained(protocol) | unseen(protocol))


@pytest.mark.parametrize("name", SHIPPED)
def test_it_uses_each_of_its_sources(name: str, manifests: Mapping[str, Manifest]) -> None:
    chosen = selected(name, manifests)
    tables = [chosen.train, chosen.val, *chosen.test.values()]
    assert labels(tables, "source") == set(shipped(name).sources)


# --- resolved on the small copies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_it_resolves_to_all_that_it_names(name: str, manifests: Mapping[str, Manifest]) -> None:
    protocol, chosen = shipped(name), selected(name, manifests)
    assert {leaf.name for leaf in chosen.classes} == named(protocol.train)
    assert set(chosen.val["generator"].to_pylist()) == named(protocol.train), "DF40 has no val of its own"
    for subset, rule in protocol.test.items():
        assert set(chosen.test[subset]["generator"].to_pylist()) == named(rule)
    assert chosen.departures == ()


@pytest.mark.parametrize("name", SHIPPED)
def test_unseen_generators_are_in_neither_train_nor_val(name: str, manifests: Mapping[str, Manifest]) -> None:
    chosen = selected(name, manifests)
    assert unseen(shipped(name))
    assert not unseen(shipped(name)) & labels([chosen.train, chosen.val], "generator")
    if "unseen" in chosen.test:
        assert labels([chosen.test["unseen"]], "generator") <= unseen(shipped(name))


@pytest.mark.parametrize("name", FINE)
def test_fine_grained_keeps_its_promises(name: str, manifests: Mapping[str, Manifest]) -> None:
    chosen = selected(name, manifests)
    of_train = {level: {leaf.value(level) for leaf in chosen.classes} for level in ("family", "forgery_type")}
    assert of_train["forgery_type"] == set(FORGERY_TYPES)
    assert of_train["family"] == {REAL, "gan", "diffusion", "autoencoder"}, "flow is no class of training"
    families, types = (labels([chosen.test["unseen"]], level) for level in ("family", "forgery_type"))
    assert types == set(FORGERY_TYPES) - {REAL}
    assert {"gan", "diffusion", "autoencoder", "flow", "graphics"} <= families
    assert labels([chosen.test["text_to_image"]], "family") == {"diffusion", "flow", "undisclosed"}
    assert chosen.protocol.attribution.assume == {"family": {"flow": "diffusion"}}
    counts = len(trained(chosen.protocol)), len(unseen(chosen.protocol))
    assert re.search(r"{} generators .*train, {} are unseen".format(*counts), chosen.protocol.description)


def test_cross_generator_divides_by_the_year_of_publication() -> None:
    protocol = shipped("cross_generator")
    assert {known().get(each).year <= 2021 for each in trained(protocol)} == {True}
    assert {known().get(each).year >= 2022 for each in unseen(protocol)} == {True}
    of_both = {each.generator for each in METHODS if each.own_domain is None and each.generator != "e4e"}
    assert trained(protocol) | unseen(protocol) == of_both
    assert {known().get(each).family for each in unseen(protocol)} >= {"diffusion", "flow"}


def test_cross_forgery_holds_out_every_face_swap_and_nothing_else() -> None:
    protocol = shipped("cross_forgery")
    types = {part: {known().get(each).forgery_type for each in part} for part in map(frozenset, parts(protocol))}
    assert list(types.values()) == [{"efs", "fr"}, {"fs"}]
    families = [{known().get(each).family for each in part} for part in parts(protocol)]
    assert families[1] <= families[0]
    assert trained(protocol) | unseen(protocol) == trained(shipped("cross_dataset"))


def parts(protocol: Protocol) -> tuple[set[str], set[str]]:
    return trained(protocol), unseen(protocol)


def test_cross_dataset_trains_on_one_domain_and_tests_on_others(manifests: Mapping[str, Manifest]) -> None:
    chosen = selected("cross_dataset", manifests)
    assert labels([chosen.train, chosen.val, chosen.test["ff"]], "domain") == {"ff++"}
    assert labels([chosen.test["celeb_df"]], "domain") == {"celeb-df"}
    assert labels([chosen.test["celeb_df"]], "source") == {"df40", "celebdf"}
    assert labels([chosen.test["deepfakeface"]], "domain") == {"imdb-wiki"}
    assert list(chosen.test)[-1] == "celeb_df"  # what the leaderboard ranks by where no subset is called unseen


@pytest.mark.parametrize("name", SHIPPED)
def test_only_the_faces_without_photographs_lack_reals_of_their_domain(
    name: str, manifests: Mapping[str, Manifest]
) -> None:
    chosen = selected(name, manifests)
    assert chosen.protocol.detection.reals == "same_domain"
    tested = pa.concat_tables(chosen.test.values())
    reals = set(tested.filter(pc.equal(tested["generator"], REAL))["domain"].to_pylist())
    without = {subset: labels([table], "domain") - reals for subset, table in chosen.test.items()}
    expected = {"text_to_image": {"sfhq-t2i"}} if name in FINE else {}
    assert {subset: domains for subset, domains in without.items() if domains} == expected


# --- people --------------------------------------------------------------------------------------------------------


def test_df40_and_ffpp_call_one_person_the_same(manifests: Mapping[str, Manifest]) -> None:
    """So that a person who trains through one source and is tested through the other is a leak that is seen."""
    swaps = [
        {
            tuple(row["identities"])
            for row in manifests[source].table.to_pylist()
            if row["generator"] == generator and row["domain"] == "ff++" and row["source_split"] == "test"
        }
        for source, generator in (("df40", "simswap"), ("ffpp", "deepfakes"))
    ]
    assert swaps[0] == swaps[1] == {tuple(f"ff++/{who}" for who in clip.split("_")) for clip in both_ways("test")}


@pytest.mark.parametrize("name", SHIPPED)
def test_ff_keeps_its_published_lists_whatever_pack_a_clip_lies_in(
    name: str, manifests: Mapping[str, Manifest]
) -> None:
    chosen = selected(name, manifests)
    for table, splits in ((chosen.train, ["train"]), (chosen.val, ["train", "val"])):
        assert of_ff(table) <= {f"ff++/{who}" for who in people(*splits)}
    assert of_ff(pa.concat_tables(chosen.test.values())) == {f"ff++/{who}" for who in people("test")}
    videos = labels([chosen.train, chosen.val, *chosen.test.values()], "video")
    assert not any(video and video.endswith("/000_200") for video in videos), "it shows people of two lists"


def of_ff(table: pa.Table) -> set[str]:
    return {who for row in table["identities"].to_pylist() for who in row if who.startswith("ff++/")}


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_planted_leak_is_refused(name: str, split: str, manifests: Mapping[str, Manifest]) -> None:
    """A test person's clip stands on another list, in whichever source of FF++'s faces comes last."""
    protocol = shipped(name)
    source = "ffpp" if "ffpp" in protocol.sources else "df40"
    leaking = relabelled(manifests[source], TEST_PERSON, split)
    with pytest.raises(DataError, match=f"Protocol {name} leaks: .* by identity, such as ff"):
        resolve(protocol, {each: manifests[each] for each in protocol.sources} | {source: leaking})


def relabelled(manifest: Manifest, person: str, split: str) -> Manifest:
    """The manifest with one clip of a person, a fake that trains everywhere or a real, on another list."""
    rows = manifest.table.to_pylist()
    next(row for row in rows if row["identities"] == [person] and row["generator"] == REAL)["source_split"] = split
    table = pa.Table.from_pylist(rows, schema=manifest.table.schema)
    return Manifest(manifest.root, table, manifest.footer)


@pytest.mark.parametrize("name", FINE)
def test_a_photograph_and_what_was_made_of_it_fall_into_one_part(name: str, manifests: Mapping[str, Manifest]) -> None:
    chosen = selected(name, manifests)
    sides = [
        {who for row in table.to_pylist() if row["source"] in ("deepfakeface", "genface") for who in row["identities"]}
        for table in (chosen.train, chosen.val, pa.concat_tables(chosen.test.values()))
    ]
    assert all(sides)
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def test_without_ffs_lists_df40_is_refused_rather_than_split_by_its_packs(tmp_path: Path) -> None:
    df40(tmp_path)
    images = build_source("df40", []).images(tmp_path, lambda defect: None)
    rows = [as_row(image, "df40") for image in images]
    with pytest.raises(DataError, match="train: no face with generator real matches"):
        resolve(shipped("cross_generator"), {"df40": manifest_in_memory(rows, source="df40")})


# --- what is missing, and how it is prepared -----------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_without_any_manifest_the_command_for_each_source_is_given(name: str, tmp_path: Path) -> None:
    protocol = shipped(name)
    with pytest.raises(UsageError) as caught:
        open_manifests(protocol, tmp_path)
    for source in protocol.sources:
        wanted = "folder --name genface" if source == "genface" else source
        assert f"dfad-bench prepare --source {wanted} --root … " in str(caught.value)


@pytest.mark.parametrize("name", SHIPPED)
def test_its_commands_are_ones_that_prepare_takes_and_cut_all_faces_alike(name: str) -> None:
    protocol = shipped(name)
    assert list(protocol.prepare) == protocol.sources
    prepare = typer.main.get_command(app).commands["prepare"]  # type: ignore[attr-defined]
    cuts = set()
    for source, options in protocol.prepare.items():
        taken = prepare.make_context("prepare", shlex.split(options)).params
        assert taken["name"] or taken["source"] == source
        assert build_source(taken["source"], taken["settings"] or ())
        detector = taken["face_detector"] or registry.get("sources", taken["source"]).default_face_detector
        cuts.add((detector, taken["size"], taken["margin"], taken["align"]))
    assert cuts == {("yunet", 256, 1.2, True)}


def test_one_manifest_of_a_source_serves_every_protocol() -> None:
    commands: dict[str, set[str]] = {}
    for name in SHIPPED:
        for source, options in shipped(name).prepare.items():
            commands.setdefault(source, set()).add(options)
    assert {source: len(options) for source, options in commands.items()} == dict.fromkeys(commands, 1)
    readme = README.read_text(encoding="utf-8")
    for (options,) in commands.values():
        assert f"\ndfad-bench prepare {options}\n" in readme


# --- the README ----------------------------------------------------------------------------------------------------

COLUMNS = ("fine_grained", "fine_grained_genface", "cross_generator", "cross_forgery", "cross_dataset")
ORDER = ("efs", "fs", "fr", "am")


def yaml_block() -> str:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(block)


def generator_rows() -> list[str]:
    """The README's table of generators, as the protocols have it; those that are alike in all share a row."""
    protocols = [shipped(name) for name in COLUMNS]
    used = sorted({source for protocol in protocols for source in protocol.sources})
    everyone = set().union(*(trained(protocol) | unseen(protocol) for protocol in protocols))
    rows: dict[tuple[str, ...], list[str]] = {}
    entries = map(known().get, sorted(everyone))
    for entry in sorted(entries, key=lambda each: (ORDER.index(each.forgery_type), each.family)):
        sources = ", ".join(source for source in used if entry.name in declared(source))
        cells = [
            "train" if entry.name in trained(protocol) else "unseen" if entry.name in unseen(protocol) else "–"
            for protocol in protocols
        ]
        rows.setdefault((entry.forgery_type.upper(), entry.family, sources, *cells), []).append(f"`{entry.name}`")
    return [f"| {' | '.join((' '.join(names), *row))} |" for row, names in rows.items()]


def protocol_rows() -> list[str]:
    """The README's table of protocols: leaf classes, and as many faces as the caps let through."""

    def most(*splits: Split) -> int:
        return sum((split.per_generator or 0) * len(named(split)) for split in splits)

    rows = []
    for name in COLUMNS:
        protocol = shipped(name)
        counts = (most(protocol.train), most(protocol.val), most(*protocol.test.values()))
        told = " | ".join(f"{each:,}" for each in (len(named(protocol.train)), *counts))
        rows.append(f"| `{name}` | {', '.join(protocol.sources)} | {told} |")
    return rows


def test_the_readme_has_every_protocol_and_is_short() -> None:
    assert sorted(COLUMNS) == sorted(SHIPPED)
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 160


@pytest.mark.parametrize("rows", [generator_rows, protocol_rows])
def test_the_tables_of_the_readme_are_those_of_the_protocols(rows: Callable[[], list[str]]) -> None:
    expected = "\n".join(rows())
    assert expected in README.read_text(encoding="utf-8"), f"the README should say\n{expected}"


def test_genfaces_map_names_all_of_its_generators_under_canonical_names(tmp_path: Path) -> None:
    assert declared("genface") <= {each.name for each in known().generators}
    assert len(declared("genface")) == 10
    images = list(genface(tmp_path / "root").images(tmp_path / "root", lambda defect: None))
    assert {image.generator for image in images} == declared("genface") | {REAL}
    assert {(image.forgery_type, Path(image.key).parts[0].lower()) for image in images} == {
        *(("efs", "efs"), ("fs", "fs"), ("am", "am"), (REAL, REAL))
    }
    assert {len(image.identities) for image in images} == {1}


# --- what the schema was given for them ----------------------------------------------------------------------------


def any_of(*alternatives: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {"any_of": list(alternatives), **others}


def test_a_face_is_chosen_when_it_matches_one_alternative_and_what_holds_for_all() -> None:
    test = {
        "some": any_of(
            {"generator": "flow_a", "source_split": "test"},
            {"generator": ["gan_a", "flow_a"], "source_split": "val"},
            where={"forgery_type": "efs"},
        )
    }
    chosen = select_in_memory(toy_faces(1), train=with_where("train"), val=with_where("train"), test=test, **allowed())
    assert ids(chosen.test["some"]) == ["toy/flow_a/test0", "toy/flow_a/val0", "toy/gan_a/val0"]


def with_where(split: str) -> dict[str, Any]:
    return {"where": {"generator": SEEN, "source_split": split}}


def allowed() -> dict[str, Any]:
    return {"allow_overlap": {"identities": "train is val here", "sha256": "train is val here"}}


def test_one_alternative_selects_what_a_where_selects() -> None:
    one = {"seen": with_where("test")}
    other = {"seen": any_of({"generator": SEEN, "source_split": "test"})}
    first, second = (select_in_memory(toy_faces(2), test=test) for test in (one, other))
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize("column", [{"generator": ["gan_a", "gan_b"]}, {"generator": "gan_b"}, {"domain": "nowhere"}])
def test_an_alternative_that_finds_less_than_it_names_is_named_though_others_find_faces(column: dict[str, Any]) -> None:
    test = {"seen": any_of({"generator": SEEN, "source_split": "test"}, {"source_split": "test", **column})}
    with pytest.raises(DataError, match=r"^seen: no face with (generator|source_split|domain) .* matches"):
        select_in_memory(toy_faces(1), test=test)


def test_alternatives_that_all_find_nothing_are_told_together() -> None:
    with pytest.raises(DataError, match=r"val: no face matches domain in \[here\] or domain in \[there\]\."):
        select_in_memory(toy_faces(1), val=any_of({"domain": "here"}, {"domain": "there"}))


def test_a_split_says_which_faces_it_means() -> None:
    with pytest.raises(ValueError, match="needs a 'where', an 'any_of', or both"):
        Split.model_validate({"per_generator": 5})
    with pytest.raises(ValueError, match=r"any_of\.1\n.*no column 'genrator'"):
        Split.model_validate(any_of({"generator": "gan_a"}, {"genrator": "gan_a"}))


def test_a_partition_that_only_an_alternative_uses_is_used() -> None:
    rule = {"by": ["identities"], "fractions": {"a": 0.5, "b": 0.5}}
    train = any_of({"partition": "a"}, where={"source_split": "train", "generator": SEEN})
    assert select_in_memory(toy_faces(9), train=train, partition=rule).train.num_rows < 27
    with pytest.raises(ValueError, match="partition: must be defined"):
        select_in_memory(toy_faces(1), train=train)


def test_what_prepares_a_source_may_be_said_by_the_protocol_and_of_its_sources_only(tmp_path: Path) -> None:
    from tests.records.builders import protocol

    with pytest.raises(ValueError, match="prepare: faces is not among the sources"):
        protocol(prepare={"faces": "--source folder"})
    asking = protocol(sources=["faces"], prepare={"faces": "--source folder --name faces --root … --align"})
    with pytest.raises(UsageError, match=f"prepare --source folder --name faces --root … --align --data {tmp_path} "):
        open_manifests(asking, tmp_path)


def test_turned_faces_beside_faces_as_they_are_are_refused() -> None:
    from tests.records.builders import protocol

    data = {
        name: manifest_in_memory(toy_faces(1, source=name), source=name, recipe=recipe(align=align))
        for name, align in (("toy", False), ("other", True))
    }
    with pytest.raises(DataError, match=r"toy 64 px margin 0\.3, other 64 px margin 0\.3 aligned\).*--align"):
        resolve(protocol(sources=["toy", "other"]), data)
