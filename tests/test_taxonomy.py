"""The taxonomy names every generator once, agrees with the datasets it is used for, and refuses ambiguity."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from dfad_bench import registry
from dfad_bench.errors import UsageError
from dfad_bench.records.protocol import load_protocol
from dfad_bench.taxonomy import DATASETS, FAMILIES, FORGERY_TYPES, Generator, Taxonomy, known, normalise, share_data

CORPUS = Path(__file__).parents[1].parent / "shared" / "data" / "corpus" / "corpus.csv"

DF40_FOLDERS = {
    "fs": "fsgan faceswap simswap inswap blendface uniface mobileswap e4s facedancer deepfacelab",
    "fr": "fomm facevid2vid wav2lip MRAA one_shot_free pirender tpsm lia danet sadtalker mcnet hyperreenact heygen",
    "efs": "VQGAN StyleGAN2 StyleGAN3 StyleGANXL sd2.1 ddim RDDM pixart DiT SiT MidJourney whichfaceisreal",
    "am": "CollabDiff e4e stargan starganv2 styleclip",
}
GENFACE = {
    ("efs", "diffusion"): "DDPM LatDiff CollDiff",
    ("efs", "gan"): "StyleGAN3",
    ("am", "diffusion"): "Diffae",
    ("am", "gan"): "LatTrans IA-FaceS",
    ("fs", "diffusion"): "DiffFace",
    ("fs", "gan"): "FSLSD FaceSwapper",
}


def a_generator(name: str, *aliases: str) -> Generator:
    return Generator(name, name.title(), "gan", "efs", 2020, "A reference", aliases)


def test_it_holds_at_least_eighty_generators() -> None:
    assert len(known().generators) >= 80


def test_no_name_is_given_twice() -> None:
    repeated = [name for name, times in Counter(g.name for g in known().generators).items() if times > 1]
    assert repeated == []


def test_every_name_is_in_snake_case() -> None:
    assert [g.name for g in known().generators if not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", g.name)] == []


def test_every_year_is_one_in_which_faces_were_generated() -> None:
    assert [(g.name, g.year) for g in known().generators if not 1987 <= g.year <= 2026] == []


def test_every_generator_has_a_title_and_a_reference() -> None:
    texts = [(g.name, text) for g in known().generators for text in (g.title, g.reference)]
    assert [(name, text) for name, text in texts if not text or text != text.strip()] == []


def test_every_alias_adds_a_spelling_of_its_own() -> None:
    for generator in known().generators:
        spellings = [normalise(spelling) for spelling in (generator.name, *generator.aliases)]
        assert "" not in spellings, generator
        assert sorted(spellings) == sorted(set(spellings)), generator


def test_every_spelling_leads_back_to_its_generator() -> None:
    for generator in known().generators:
        assert all(known().get(spelling) is generator for spelling in (generator.name, *generator.aliases))


def test_every_arxiv_number_has_the_form_of_one() -> None:
    for generator in known().generators:
        for number in re.findall(r"arXiv:([^ ,;]*)", generator.reference):
            assert re.fullmatch(r"\d\d(0[1-9]|1[0-2])\.\d{4,5}", number), generator


def test_every_family_but_real_is_in_use() -> None:
    assert {g.family for g in known().generators} == set(FAMILIES) - {"real"}


def test_every_forgery_type_but_real_is_in_use() -> None:
    assert {g.forgery_type for g in known().generators} == set(FORGERY_TYPES) - {"real"}


def test_a_pristine_photograph_has_no_generator() -> None:
    assert known().find("real") is None


@pytest.mark.parametrize(
    "spelling", ["sd15", "SD1.5", "sd-1.5", "SDv1.5", "stable-diffusion-v1-5", "Stable Diffusion 1.5"]
)
def test_the_spellings_of_stable_diffusion_1_5_meet(spelling: str) -> None:
    assert known().get(spelling).name == "sd15"


@pytest.mark.parametrize("forgery_type", DF40_FOLDERS)
def test_every_df40_folder_is_a_generator_of_its_forgery_type(forgery_type: str) -> None:
    found = {folder: known().get(folder).forgery_type for folder in DF40_FOLDERS[forgery_type].split()}
    assert set(found.values()) == {forgery_type}, found


def test_the_forty_methods_of_df40_are_forty_generators() -> None:
    folders = " ".join(DF40_FOLDERS.values()).split()
    assert len({known().get(folder).name for folder in folders}) == 40


@pytest.mark.parametrize(
    ("spelling", "folder"),
    [
        ("PixArt", "pixart"),
        ("rddm", "RDDM"),
        ("whichisreal", "whichfaceisreal"),
        ("Whichisreal", "whichfaceisreal"),
        ("StarGAN2", "starganv2"),
        ("Collaborative_Diffusion", "CollabDiff"),
        ("mraa", "MRAA"),
        ("DaGAN", "danet"),
        ("FS_vid2vid", "facevid2vid"),
        ("InSwapper", "inswap"),
        ("StyleGAN-XL", "StyleGANXL"),
        ("SD-2.1", "sd2.1"),
        ("DiT-XL/2", "DiT"),
        ("SiT-XL/2", "SiT"),
    ],
)
def test_df40_spells_one_method_in_several_ways(spelling: str, folder: str) -> None:
    assert known().get(spelling) is known().get(folder)


@pytest.mark.parametrize(
    ("family", "folders"),
    [
        ("gan", "VQGAN StyleGAN2 StyleGAN3 StyleGANXL whichfaceisreal stargan starganv2 e4e styleclip fsgan simswap"),
        ("diffusion", "sd2.1 ddim RDDM pixart DiT CollabDiff"),
        ("flow", "SiT"),
        ("autoencoder", "faceswap deepfacelab"),
        ("undisclosed", "MidJourney heygen"),
    ],
)
def test_df40_methods_have_the_family_the_design_reads_them_as(family: str, folders: str) -> None:
    assert {folder: known().get(folder).family for folder in folders.split()} == dict.fromkeys(folders.split(), family)


@pytest.mark.parametrize("expected", GENFACE, ids=" ".join)
def test_genface_generators_have_the_type_and_family_of_the_paper(expected: tuple[str, str]) -> None:
    found = {name: known().get(name) for name in GENFACE[expected].split()}
    assert {(g.forgery_type, g.family) for g in found.values()} == {expected}, found


def test_genface_has_ten_generators() -> None:
    assert len({known().get(name).name for name in " ".join(GENFACE.values()).split()}) == 10


def test_face_synthesis_and_face_editing_by_collaborative_diffusion_are_two_generators() -> None:
    assert known().get("CollDiff").forgery_type == "efs"
    assert known().get("CollabDiff").forgery_type == "am"


@pytest.mark.parametrize(
    ("spelling", "forgery_type", "family"),
    [
        ("Deepfakes", "fs", "autoencoder"),
        ("Face2Face", "fr", "graphics"),
        ("faceswap_kowalski", "fs", "graphics"),
        ("NeuralTextures", "fr", "gan"),
        ("FaceShifter", "fs", "gan"),
        ("DeepFakeDetection", "fs", "undisclosed"),
        ("Celeb-DF-v2", "fs", "autoencoder"),
    ],
)
def test_faceforensics_and_celeb_df_methods_are_known(spelling: str, forgery_type: str, family: str) -> None:
    found = known().get(spelling)
    assert (found.forgery_type, found.family) == (forgery_type, family)


def test_deepfakebench_labels_tell_the_two_faceswaps_apart() -> None:
    assert known().get("FF-FS").name == "faceswap_kowalski"
    assert known().get("faceswap").name == "faceswap"


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("Flux1.pro", "flux1_pro"),
        ("Flux1.dev", "flux1_dev"),
        ("Flux1.schnell", "flux1_schnell"),
        ("SDXL", "sdxl"),
        ("DALL·E 3", "dalle3"),
        ("insight", "inswapper"),
    ],
)
def test_sfhq_t2i_and_deepfakeface_names_are_known(spelling: str, name: str) -> None:
    assert known().get(spelling).name == name


def test_inpainting_with_stable_diffusion_is_an_attribute_manipulation() -> None:
    assert known().get("stable-diffusion-inpainting").forgery_type == "am"
    assert known().get("stable-diffusion-v1-5").forgery_type == "efs"


def test_the_test_corpus_names_types_and_families_agree() -> None:
    if not CORPUS.is_file():
        pytest.skip(f"the test corpus is not on this machine: no {CORPUS}")
    with CORPUS.open(encoding="utf-8", newline="") as rows:
        said = {(row["generator"], row["family"], row["forgery_type"]) for row in csv.DictReader(rows)}
    said -= {("real", "real", "real")}
    assert said, "the corpus lists no generator"
    ours = {(g.name, g.family, g.forgery_type) for g in known().generators}
    assert said - ours == set()


def test_two_generators_of_one_spelling_are_refused_naming_both() -> None:
    with pytest.raises(ValueError, match="'second' and 'first' share the spelling 'onegan'"):
        Taxonomy([a_generator("first", "One-GAN"), a_generator("second", "one gan")])


def test_an_alias_that_is_another_generators_name_is_refused_naming_both() -> None:
    with pytest.raises(ValueError, match="'second' and 'first_gan'"):
        Taxonomy([a_generator("first_gan"), a_generator("second", "First GAN")])


@pytest.mark.parametrize(("family", "forgery_type"), [("magic", "efs"), ("gan", "magic")])
def test_a_generator_of_no_known_family_or_forgery_type_is_refused(family: str, forgery_type: str) -> None:
    with pytest.raises(ValueError, match=r"'odd'.*'magic'"):
        Generator("odd", "Odd", family, forgery_type, 2020, "A reference")


def test_extending_adds_a_sources_own_generators() -> None:
    extended = known().extended([a_generator("our_own_gan", "OOG")])
    assert extended.get("oog").name == "our_own_gan"
    assert len(extended.generators) == len(known().generators) + 1


def test_extending_leaves_the_built_in_taxonomy_as_it_was() -> None:
    known().extended([a_generator("our_own_gan")])
    assert known().find("our_own_gan") is None


def test_extending_refuses_a_spelling_already_taken_naming_both() -> None:
    with pytest.raises(ValueError, match="'our_own_gan' and 'stylegan2'"):
        known().extended([a_generator("our_own_gan", "Style GAN 2")])


def test_a_misspelt_name_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match=r"No generator is named 'stylgan2'\. Did you mean 'stylegan2'\?"):
        known().get("stylgan2")


def test_a_name_unlike_any_other_is_answered_without_a_guess() -> None:
    with pytest.raises(UsageError, match=r"^No generator is named 'zzzzqqqq'\. See 'dfad-bench list generators'\.$"):
        known().get("zzzzqqqq")


def test_searching_for_flow_efs_finds_flow_models_of_entire_faces_and_nothing_else() -> None:
    found = known().search("flow efs")
    assert {(g.family, g.forgery_type) for g in found} == {("flow", "efs")}
    assert set(found) == {g for g in known().generators if (g.family, g.forgery_type) == ("flow", "efs")}


@pytest.mark.parametrize("words", ["Style-GAN 2019", "karras CVPR", "1912.04958"])
def test_searching_reads_names_years_and_references(words: str) -> None:
    assert known().get("stylegan2") in known().search(words)


def test_searching_for_what_is_nowhere_finds_nothing() -> None:
    assert known().search("flow zzzzqqqq") == []


# --- datasets ------------------------------------------------------------------------------------------------------


def test_every_dataset_that_is_known_by_other_names_is_a_source_or_has_a_protocol_that_names_it() -> None:
    named = {source for name in registry.entries("protocols") for source in load_protocol(name).sources}
    assert set(DATASETS) <= set(registry.entries("sources")) | named


def test_no_two_datasets_share_a_name() -> None:
    spelled = [normalise(name) for source, names in DATASETS.items() for name in {source, *names}]
    owners = [source for source, names in DATASETS.items() for _ in {source, *names}]
    assert all(len({owners[at] for at, other in enumerate(spelled) if other == each}) == 1 for each in spelled)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("FaceForensics++", "ffpp", True),
        ("ff++", "FF++ c40", True),
        ("Celeb-DF v2", "celebdf", True),
        ("FaceForensics++", "df40", True),
        ("DF40", "deepfakebench", True),
        ("celebdf", "ffpp", False),
        ("My Faces", "my-faces", True),
        ("Gaze360", "ffpp", False),
    ],
)
def test_datasets_share_data_by_whatever_names_they_are_called(one: str, other: str, expected: bool) -> None:
    assert share_data(one, other) is share_data(other, one) is expected
