"""The leaderboard for other programs: CSV for a spreadsheet or a data frame, LaTeX for a paper."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Sequence
from csv import QUOTE_MINIMAL, writer

from dfad_bench.publish.ranking import by_faces, ranked_by, ranked_results
from dfad_bench.publish.tables import LEVELS, Lookup, Notes, level_name, warned
from dfad_bench.records.results import MEAN, POOLED, Result, Score

_RUN_COLUMNS = (
    *("protocol", "protocol_version", "protocol_fingerprint", "rank", "model", "origin", "seed"),
    *("parameters", "inputs", "ineligible", "warning"),
)
_SCORE_COLUMNS = (
    *("task", "metric", "level", "unit", "subset", "group", "value", "low", "high", "interval"),
    *("n", "clusters", "unknown", "reason", "no_interval"),
)


# --- CSV -----------------------------------------------------------------------------------------------------------


def csv(results: Sequence[Result]) -> str:
    """Return every mean and pooled score as a line with the coordinates of its run: long form, one header, RFC 4180.

    Values and the ends of their 95 % intervals are fractions in 0..1; what is undefined is empty, and ``reason`` says why.
    ``rank`` is empty for a result that is not ranked, and ``ineligible`` says why. Ordered by protocol, version, faces and
    rank. A text that a spreadsheet would take for a formula gets a leading apostrophe.
    """
    text = io.StringIO()
    lines = writer(text, lineterminator="\r\n", quoting=QUOTE_MINIMAL)
    lines.writerow((*_RUN_COLUMNS, *_SCORE_COLUMNS))
    for group in by_faces(results):
        for rank, result in ranked_results(group):
            run = _run_cells(rank, result)
            for score in result.scores:
                if score.group in (MEAN, POOLED):
                    cells = (*run, *(getattr(score, column) for column in _SCORE_COLUMNS))
                    lines.writerow(["" if cell is None else _inert(cell) for cell in cells])
    return text.getvalue()


def _run_cells(rank: str, result: Result) -> tuple[str | int | None, ...]:
    return (
        *(result.protocol.name, result.protocol.version, result.protocol.fingerprint, int(rank) if rank else None),
        *(result.model.name, result.origin, result.seed, result.model.parameters),
        *(" ".join(result.model.inputs), "; ".join(result.ineligible), result.protocol.warning),
    )


def _inert(cell: str | int | float) -> str | int | float:
    """Return a cell that no spreadsheet computes: =, +, - and @ begin a formula, their full-width forms in some too."""
    if isinstance(cell, str) and unicodedata.normalize("NFKC", cell).lstrip()[:1] in ("=", "+", "-", "@"):
        return f"'{cell}"
    return cell


# --- LaTeX ---------------------------------------------------------------------------------------------------------


def latex(results: Sequence[Result]) -> str:
    """Return a ``table*`` environment per protocol, version and set of faces, in percent; it needs the package booktabs.

    The best ranked value of a column is bold and the second underlined, as they are shown: equal ones share that. A small
    pair of numbers is the 95 % interval. Every name is escaped, and the text is ASCII whatever it holds.
    """
    head = "% Written by dfad-bench. It needs \\usepackage{booktabs}.\n"
    groups = by_faces(results)
    editions = [(group[0].protocol.name, group[0].protocol.version) for group in groups]
    environments = [
        _environment(group, several=editions.count(edition) > 1)
        for group, edition in zip(groups, editions, strict=True)
    ]
    return head + "\n".join(environments)


def _environment(group: Sequence[Result], several: bool) -> str:
    protocol = group[0].protocol
    ordered = ranked_results(group)
    lookups = [Lookup(result.scores) for _, result in ordered]
    subsets = list(dict.fromkeys(subset for lookup in lookups for subset in lookup.subsets))
    levels = [level for level in LEVELS if any(level in lookup.levels for lookup in lookups)]
    keys = [key for subset in subsets for key in _keys(subset, levels)]
    notes = Notes()
    ranked = [bool(rank) for rank, _ in ordered]
    columns = [_column([_found(lookup, key) for lookup in lookups], ranked, notes) for key in keys]
    rows = [
        " & ".join([rank or "--", _model(result, notes), *(column[number] for column in columns)]) + r" \\"
        for number, (rank, result) in enumerate(ordered)
    ]
    headline, level = ranked_by(subsets, levels)
    faces = _escaped(protocol.fingerprint)
    lines = [
        f"% protocol {_escaped(protocol.name)} v{protocol.version}, faces {faces}",
        r"\begin{table*}",
        r"\centering",
        rf"\caption{{{_caption(group[0], headline, level, several)}}}",
        rf"\label{{{_label(group[0], several)}}}",
        r"\par\smallskip\footnotesize",
        r"\setlength{\tabcolsep}{3pt}",
        r"\renewcommand{\arraystretch}{1.35}",  # or the intervals of two rows touch
        rf"\begin{{tabular}}{{rl{'c' * len(keys)}}}",
        r"\toprule",
        *_header(subsets, levels),
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    told = [rf"\textsuperscript{{{_letter(n)}}} {_escaped(reason)}." for n, reason in enumerate(notes.reasons)]
    if told:
        lines += [
            r"\par\smallskip\scriptsize",
            r"\begin{minipage}{\linewidth}",
            "\\par\n".join(told),
            r"\end{minipage}",
        ]
    return "\n".join([*lines, r"\end{table*}"]) + "\n"


Key = tuple[str, str, str, str]
"""Task, metric, level and subset of a mean over groups."""


def _keys(subset: str, levels: Sequence[str]) -> list[Key]:
    attributed: list[Key] = [("attribution", "accuracy", level, subset) for level in levels]
    return [*attributed, *(("detection", metric, "authenticity", subset) for metric in ("auc", "accuracy@val"))]


def _found(lookup: Lookup, key: Key) -> Score | None:
    task, metric, level, subset = key
    return lookup.score("attribution" if task == "attribution" else "detection", metric, level, subset, MEAN)


def _header(subsets: Sequence[str], levels: Sequence[str]) -> list[str]:
    words = [["ACC", *level_name(level).split()] for level in levels] + [["AUC"], ["ACC", "@val"]]
    names = [r"\shortstack{" + r"\\".join(map(_escaped, each)) + "}" for each in words]
    spans = [rf"\multicolumn{{{len(names)}}}{{c}}{{{_escaped(subset)}}}" for subset in subsets]
    first = [3 + len(names) * place for place in range(len(subsets))]
    rules = [rf"\cmidrule(lr){{{start}-{start + len(names) - 1}}}" for start in first]
    return [
        " & ".join(["", "", *spans]) + r" \\",
        " ".join(rules),
        " & ".join(["Rank", "Model", *(names * len(subsets))]) + r" \\",
    ]


def _column(scores: Sequence[Score | None], ranked: Sequence[bool], notes: Notes) -> list[str]:
    """Return the cells of a column; what a reader compares are the numbers shown, so equal ones are one place."""
    shown = [None if score is None or score.value is None else f"{100 * score.value:.1f}" for score in scores]
    compared = [text for text, is_ranked in zip(shown, ranked, strict=True) if is_ranked and text is not None]
    places = sorted(set(compared), key=float, reverse=True)[:2] if len(compared) > 1 else []
    cells = []
    for score, text, is_ranked in zip(scores, shown, ranked, strict=True):
        if score is None or text is None:
            cells.append("--" + _marks(["not scored" if score is None else score.reason or "undefined"], notes))
            continue
        place = places.index(text) if is_ranked and text in places else None
        number = rf"\textbf{{{text}}}" if place == 0 else rf"\underline{{{text}}}" if place == 1 else text
        if score.low is not None and score.high is not None:
            number += f"$_{{{100 * score.low:.1f}}}^{{{100 * score.high:.1f}}}$"
        cells.append(number + _marks(_remarks(score), notes))
    return cells


def _remarks(score: Score) -> list[str]:
    """Return what must be known of a value beside its interval."""
    told = []
    if score.low is None and score.no_interval is not None:
        told.append(f"no interval: {score.no_interval}")
    if score.unknown:
        faces = "face" if score.unknown == 1 else "faces"
        told.append(f"leaves out {score.unknown} {faces} of a class that training does not have")
    return told


def _marks(remarks: Sequence[str], notes: Notes) -> str:
    letters = ",".join(_letter(int(notes.mark(each).strip("()")) - 1) for each in remarks)
    return rf"\,\textsuperscript{{{letters}}}" if letters else ""


def _letter(number: int) -> str:
    """Return the sign of a note from 0: a to z, then a1; a number beside an interval would be read as part of it."""
    return chr(ord("a") + number % 26) + (str(number // 26) if number >= 26 else "")


def _model(result: Result, notes: Notes) -> str:
    remarks = [] if result.origin == "measured" else ["reported by its authors, not measured"]
    if result.ineligible:
        remarks.append(f"not ranked: {'; '.join(result.ineligible)}")
    return _escaped(result.model.name) + _marks(remarks, notes)


def _caption(result: Result, headline: str, level: str, several: bool) -> str:
    protocol = result.protocol
    faces = f" on the faces {_short(protocol.fingerprint)}" if several else ""
    told = [
        f"Protocol {protocol.name}, version {protocol.version}{faces}, in percent: means over groups, face by face, with "
        "the 95 % interval as a small pair of numbers.",
        f"ACC: attribution. AUC and ACC@val: detection, at the threshold chosen on val. Ranked by {headline} ACC "
        f"{level_name(level)}, then by {headline} AUC. Best ranked value bold, second underlined.",
        *warned(protocol.warning),
    ]
    return _escaped(" ".join(told))


def _label(result: Result, several: bool) -> str:
    """Return a label of letters, digits, ``.``, ``:`` and ``-`` alone; other characters become their number."""
    protocol = result.protocol
    named = f"{protocol.name}-v{protocol.version}" + (f"-{_short(protocol.fingerprint)}" if several else "")
    return "tab:dfad-" + re.sub(r"[^A-Za-z0-9-]", lambda found: f".{ord(found[0]):x}.", named)


def _short(fingerprint: str) -> str:
    return fingerprint.removeprefix("sha256:")[:12]


_COMMANDS = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "{}$&#%_"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",  # some languages of babel make it a command
    "`": r"{\char96}",
    "-": r"-{}",  # two would become a dash, and the name another
    **{"–": "--", "—": "---", "‘": "`", "’": "'", "“": "``", "”": "''", "…": r"\dots{}"},
    **{"×": r"$\times$", "±": r"$\pm$", "−": "$-$", "≤": r"$\leq$", "≥": r"$\geq$", "→": r"$\to$", "°": r"$^\circ$"},
    **{"ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}"},
}
_ACCENTS = dict(
    zip("\u0300\u0301\u0302\u0303\u0308\u030a\u0327\u030c\u0304\u0306\u0307\u030b", "`'^~\"rcv=u.H", strict=True)
)


def _escaped(text: str) -> str:
    """Return text that LaTeX sets and never runs, in ASCII; a letter that plain LaTeX lacks is named by its number."""
    one_line = re.sub(r"[\s\x00-\x1f\x7f]+", " ", text).strip()
    return "".join(_as_latex(character) for character in unicodedata.normalize("NFC", one_line))


def _as_latex(character: str) -> str:
    if character in _COMMANDS:
        return _COMMANDS[character]
    if character.isascii():
        return character
    parts = unicodedata.normalize("NFD", character)
    if len(parts) == 2 and parts[0].isascii() and parts[0].isalpha() and parts[1] in _ACCENTS:
        return rf"\{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return f"[U+{ord(character):04X}]"
