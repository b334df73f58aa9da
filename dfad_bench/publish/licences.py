"""Licences under which faces may be passed on."""

from __future__ import annotations

import re
from collections.abc import Mapping

_CC, _SPDX = "https://creativecommons.org", "https://spdx.org/licenses"
REDISTRIBUTABLE: Mapping[str, str] = {
    "CC0-1.0": f"{_CC}/publicdomain/zero/1.0/",
    "CC-BY-2.0": f"{_CC}/licenses/by/2.0/",
    "CC-BY-3.0": f"{_CC}/licenses/by/3.0/",
    "CC-BY-4.0": f"{_CC}/licenses/by/4.0/",
    "CC-BY-SA-3.0": f"{_CC}/licenses/by-sa/3.0/",
    "CC-BY-SA-4.0": f"{_CC}/licenses/by-sa/4.0/",
    "CC-PDDC": f"{_SPDX}/CC-PDDC.html",
    "PDDL-1.0": f"{_SPDX}/PDDL-1.0.html",
    "Apache-2.0": f"{_SPDX}/Apache-2.0.html",
    "MIT": f"{_SPDX}/MIT.html",
    "BSD-2-Clause": f"{_SPDX}/BSD-2-Clause.html",
    "BSD-3-Clause": f"{_SPDX}/BSD-3-Clause.html",
    "public domain": f"{_CC}/publicdomain/mark/1.0/",
    "public domain (US GPO)": f"{_CC}/publicdomain/mark/1.0/",
}
"""Licences under which anyone may pass a changed copy on, also for money → their text. A licence is looked up as a whole, blind
to case and to spaces for hyphens: with any word more, such as ``MIT (images: non-commercial)``, it is another."""
_KNOWN = {re.sub(r"[\s-]+", "-", name).casefold(): url for name, url in REDISTRIBUTABLE.items()}


def licence_url(licence: str) -> str | None:
    """Return the text of a licence under which an image may be passed on, None for any other."""
    return _KNOWN.get(re.sub(r"[\s-]+", "-", licence.strip()).casefold())
