"""The leaderboard as one HTML page that sorts, filters and compares: no network, no framework, no build step."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import itertools
import json
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from dfad_bench.errors import DataError
from dfad_bench.publish.ranking import by_faces, key_of
from dfad_bench.publish.site_facts import FACTS
from dfad_bench.publish.site_tables import Builder
from dfad_bench.records.comparison import FEW_CLUSTERS
from dfad_bench.records.pairs import PairsRecord
from dfad_bench.records.results import Result
from dfad_bench.records.robustness import RobustnessRecord
from dfad_bench.records.seeds import SeedsRecord
from dfad_bench.taxonomy import Taxonomy, known

_HARMFUL = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
"""What could end a script element early or break its lines; JSON may write every character so."""


def site(
    results: Sequence[Result],
    seeds: Sequence[SeedsRecord] = (),
    pairs: Sequence[PairsRecord] = (),
    robustness: Sequence[RobustnessRecord] = (),
    links: Mapping[tuple[str, str], str] | None = None,
    taxonomy: Taxonomy | None = None,
) -> str:
    """Return the leaderboard as an HTML document, the same bytes for the same records, whatever their order.

    One table per protocol, version and fingerprint. Records of seeds, pairs and robustness are heeded where they rest on
    the very predictions of a result. links: (protocol, model) → path of the result's file relative to the page, unquoted;
    it belongs to that model's newest result. taxonomy: tells family and forgery type of test groups, the built-in one
    unless given. Raises DataError where a model has two results on the same faces, or a link leads elsewhere.
    """
    groups = by_faces(results)
    ordered = list(itertools.chain.from_iterable(groups))
    _check(ordered, links or {})
    builder = Builder(ordered, seeds, pairs, robustness, links or {}, taxonomy or known())
    tables = [builder.table(group) for group in groups]
    data = {
        "strings": builder.strings.found,
        "facts": FACTS,
        "few": FEW_CLUSTERS,
        "tables": [table for table, _ in tables],
    }
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_HARMFUL)
    script, style = _template("site.js"), _template("site.css.j2")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_template("site.html.j2")).render(
        data=Markup(text),  # noqa: S704 - escaped above
        script=Markup(script),  # noqa: S704 - ours
        style=Markup(style),  # noqa: S704 - ours
        script_hash=_csp_hash(script),
        style_hash=_csp_hash(style),
        plain=[plain for _, plain in tables],
        few=FEW_CLUSTERS,
    )


def _template(name: str) -> str:
    return importlib.resources.files("dfad_bench.publish").joinpath("templates", name).read_text(encoding="utf-8")


def _csp_hash(text: str) -> str:
    """Return the source expression by which a Content-Security-Policy admits this inline text and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _check(results: Sequence[Result], links: Mapping[tuple[str, str], str]) -> None:
    for one, other in itertools.pairwise(results):
        if (key_of(one.protocol), one.model.name) == (key_of(other.protocol), other.model.name):
            name = f"{one.model.name} on {one.protocol.name} v{one.protocol.version}"
            raise DataError(f"There are two results of {name} on the same faces. Keep one of them.")
    for (protocol, model), link in links.items():
        parts = urlsplit(link)
        if parts.scheme or parts.netloc or link.startswith("/"):
            raise DataError(f"The link of {model} on {protocol} is {link!r}. Give a path relative to the page.")
