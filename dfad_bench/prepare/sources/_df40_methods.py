"""The 40 methods of DF40: what their folders are called, which generator each is, and whose faces it worked on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from dfad_bench.taxonomy import normalise


@dataclass(frozen=True, slots=True)
class Method:
    """One method. ``own_domain`` names the real data that came with it, None where those are FF++ and Celeb-DF."""

    folder: str
    generator: str
    forgery_type: str
    own_domain: str | None = None
    aliases: tuple[str, ...] = ()

    @property
    def is_made_of_two(self) -> bool:
        """Whether a face of it has two people in it, so that a clip is called ``<target>_<source>``."""
        return self.forgery_type in ("fs", "fr")


METHODS = (
    Method("fsgan", "fsgan", "fs"),
    Method("faceswap", "faceswap", "fs"),
    Method("simswap", "simswap", "fs"),
    Method("inswap", "inswapper", "fs", None, ("inswapper", "roop")),
    Method("blendface", "blendface", "fs"),
    Method("uniface", "uniface", "fs"),
    Method("mobileswap", "mobileswap", "fs"),
    Method("e4s", "e4s", "fs"),
    Method("facedancer", "facedancer", "fs"),
    Method("deepfacelab", "deepfacelab", "fs", "uadfv"),
    Method("fomm", "fomm", "fr"),
    Method("facevid2vid", "facevid2vid", "fr", None, ("FS_vid2vid", "face_vid2vid")),
    Method("wav2lip", "wav2lip", "fr"),
    Method("MRAA", "mraa", "fr"),
    Method("one_shot_free", "one_shot_free", "fr", None, ("oneshot",)),
    Method("pirender", "pirender", "fr"),
    Method("tpsm", "tpsm", "fr"),
    Method("lia", "lia", "fr"),
    Method("danet", "dagan", "fr", None, ("DaGAN",)),
    Method("sadtalker", "sadtalker", "fr"),
    Method("mcnet", "mcnet", "fr"),
    Method("hyperreenact", "hyperreenact", "fr"),
    Method("heygen", "heygen", "fr", "vfhq"),
    Method("VQGAN", "vqgan", "efs"),
    Method("StyleGAN2", "stylegan2", "efs"),
    Method("StyleGAN3", "stylegan3", "efs"),
    Method("StyleGANXL", "styleganxl", "efs"),
    Method("sd2.1", "sd21", "efs"),
    Method("ddim", "ddim", "efs", None, ("DDPM",)),
    Method("RDDM", "rddm", "efs"),
    Method("pixart", "pixart_alpha", "efs"),
    Method("DiT", "dit", "efs"),
    Method("SiT", "sit", "efs"),
    Method("MidJourney", "midjourney", "efs", "ffhq", ("MidJourney6",)),
    Method("whichfaceisreal", "whichfaceisreal", "efs", "ffhq", ("whichisreal",)),
    Method("CollabDiff", "collabdiff", "am", "celeba", ("Collaborative_Diffusion",)),
    Method("e4e", "e4e", "am"),
    Method("stargan", "stargan", "am", "celeba"),
    Method("starganv2", "starganv2", "am", "celeba", ("StarGAN2",)),
    Method("styleclip", "styleclip", "am", "celeba"),
)

_BY_SPELLING = {normalise(name): method for method in METHODS for name in (method.folder, *method.aliases)}


@cache
def find_method(name: str) -> Method | None:
    """Return the method that a folder or a dataset is named after, in any of its spellings."""
    return _BY_SPELLING.get(normalise(name))


def method_of_dataset(name: str) -> Method | None:
    """Return the method of a dataset name or label: ``simswap_ff``, ``simswap_cdf``, ``simswap_Fake`` and ``simswap``."""
    for suffix in ("_ff", "_cdf", "_Fake", "_Real"):
        name = name.removesuffix(suffix)
    return find_method(name)
