"""What is sent to the leaderboard and said about it: the files of a run, the text of its pull request, a check's report."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from dfad_bench.config import file_sha256
from dfad_bench.errors import DataError, DfadError, UsageError
from dfad_bench.publish import leaderboard
from dfad_bench.publish.ranking import ranked_results
from dfad_bench.publish.sendable import SENT
from dfad_bench.publish.submission import (
    PREDICTIONS,
    RESULT,
    OnProgress,
    Problem,
    check_submission,
    ineligible,
    not_recomputed,
    predictions_beside,
    read_strictly,
)
from dfad_bench.publish.tables import NONE, Lookup, Notes, Table, cell, level_name, markdown, warned
from dfad_bench.records.json_files import write_text
from dfad_bench.records.predictions import Context, PredictionsWriter, read_predictions
from dfad_bench.records.results import MEAN, PredictionsRecord, Result, Score, read_result, write_result

TEXT = "PULL_REQUEST.md"
_CHECKLIST = """### Checklist

- [ ] This is the first run with this seed, or every run with it gave these numbers; no run was chosen by its test scores.
- [ ] Reference and licence are the model's, and "weights have seen" names every dataset behind the weights it started from.
- [ ] The ids are those of the datasets, and their terms allow me to publish numbers and ids.
- [ ] `dfad-bench leaderboard check` finds nothing wrong with the files.
"""


@dataclass(frozen=True, slots=True)
class Submission:
    """What was prepared: the files to send, the text of the pull request, and the result that is sent.

    left_out: scores of the run that are not sent, since only the embeddings give them, which are not sent either.
    """

    result_path: Path
    predictions_path: Path
    text_path: Path
    result: Result
    left_out: int


# --- preparing -----------------------------------------------------------------------------------------------------


def submit(run: Path, out: Path, results: Path, on_progress: OnProgress | None = None) -> Submission:
    """Write what a finished run sends below ``out``, checked as it will be there, and the text of its pull request.

    run: its folder, or the result in it; results: the leaderboard's, which it is compared with. The files are
    ``results/<protocol>/<model>.json`` and ``.parquet``, and ``PULL_REQUEST.md``. Predictions without embeddings are sent as
    they are, byte for byte. Where there are embeddings they stay here: the same rows are written without them, the result
    then names the hash of that file, and the scores that only embeddings give (discovery) are left out of it, so that
    everything sent can be computed from what is sent. Raises DataError for what may not stand on the leaderboard; nothing
    is left then.
    """
    source = run / RESULT if run.is_dir() else run
    result = read_result(source)
    predictions = source.with_name(PREDICTIONS)
    if reasons := ineligible(result):
        raise DataError(f"{source}: {'; '.join(reasons)}.")
    if not predictions.is_file():
        raise UsageError(f"{source} has no {predictions.name} beside it. Give the folder of a finished run.")
    if file_sha256(predictions) != result.predictions.sha256:
        raise DataError(f"{predictions} is not the file that {source.name} was computed from. Run it again.")
    placed = leaderboard.place(source, out / "results")
    sent, left_out = predictions_beside(placed), 0
    try:
        if read_predictions(predictions).embedding is None:
            shutil.copyfile(predictions, sent)
        else:
            _write_without_embeddings(predictions, sent)
            kept = [each for each in result.scores if each.task != "discovery"]
            left_out = len(result.scores) - len(kept)
            record = PredictionsRecord(sha256=file_sha256(sent), rows=result.predictions.rows)
            result = result.model_copy(update={"scores": kept, "predictions": record})
            write_result(placed, result)
        if problems := check_submission([placed], on_progress, results):
            raise DataError(f"{source}: {'; '.join(each.told for each in problems[:3])}.")
        others = leaderboard.collect(results) if results.is_dir() else []
        write_text(out / TEXT, _pull_request(result, left_out, others))
    except BaseException:
        placed.unlink(missing_ok=True)
        sent.unlink(missing_ok=True)
        raise
    return Submission(placed, sent, out / TEXT, result, left_out)


def _write_without_embeddings(predictions: Path, sent: Path) -> None:
    """Write the rows of predictions in the order in which they are stored, without their embeddings."""
    stored = pq.read_table(predictions, columns=SENT).combine_chunks()
    footer = pq.read_metadata(predictions).metadata[b"dfad_bench"]
    subset = np.asarray(stored["subset"].to_pylist(), dtype=object)
    starts = [0, *(np.flatnonzero(subset[1:] != subset[:-1]) + 1).tolist()]
    with PredictionsWriter(sent) as writer:
        for start, end in zip(starts, [*starts[1:], len(subset)], strict=True):
            rows = stored.slice(start, end - start)
            logits = rows["logits"].combine_chunks()
            matrix = None if logits.null_count else np.stack(logits.to_numpy(zero_copy_only=False))
            writer.write(subset[start], rows, rows["fake_score"].to_numpy(), matrix)
        writer.finish(Context.model_validate_json(footer))


def branch_commands(submission: Submission, out: Path, start: Path) -> list[str]:
    """Return the commands that make a branch of a submission; none where ``start`` is in no checkout of dfad-bench.

    They are not part of the pull request's text, since they name folders of this machine. Nothing is run.
    """
    checkout = next((each for each in (start, *start.parents) if _is_checkout(each)), None)
    if checkout is None:
        return []
    protocol, model = submission.result.protocol.name, submission.result.model.name
    branch = re.sub(r"[^a-z0-9]+", "-", f"result-{protocol}-{model}".lower()).strip("-")
    sent = [f"leaderboard/results/{protocol}/{each.name}" for each in _files(submission)]
    text = shlex.quote(os.path.relpath(submission.text_path, checkout))
    return [
        f"cd {shlex.quote(str(checkout))}",
        f"git switch --create {branch}",
        f"cp -R {shlex.quote(os.path.relpath(out / 'results', checkout))}/. leaderboard/results/",
        f"dfad-bench leaderboard check {shlex.quote(sent[0])}",
        f"git add {shlex.join(sent)}",
        f"git commit --message {shlex.quote(f'Result of {model} on {protocol}')}",
        "git push --set-upstream origin HEAD",
        f"gh pr create --title {shlex.quote(f'Result of {model} on {protocol}')} --body-file {text}",
    ]


def _is_checkout(folder: Path) -> bool:
    return (folder / ".git").exists() and (folder / "dfad_bench").is_dir() and (folder / "leaderboard/results").is_dir()


def _files(submission: Submission) -> tuple[Path, Path]:
    return submission.result_path, submission.predictions_path


# --- the text of a pull request ------------------------------------------------------------------------------------


def _pull_request(result: Result, left_out: int, others: Sequence[Result]) -> str:
    """Return Markdown in which every name is escaped, and no path of this machine stands."""
    return "\n".join([markdown(_facts(result, left_out)), markdown(_numbers(result, others)), _CHECKLIST])


def _facts(result: Result, left_out: int) -> Table:
    model, code, chosen = result.model, result.code, result.config
    recipe, options = chosen.get("recipe") or {}, chosen.get("options") or {}
    commit = "an installed package" if code.commit is None else f"commit {code.commit}"
    weights = {"val": "trained here, checkpoint chosen on val", "given": "given", "nothing": "published, not trained"}
    rows = {
        "model": model.name,
        "reference": model.reference,
        "licence": model.licence,
        "protocol": f"{result.protocol.name} v{result.protocol.version}, faces {result.protocol.fingerprint}",
        "input": ", ".join(model.inputs) or "nothing",
        "parameters": f"{model.parameters:,}",
        "weights": weights[model.selected_on],
        "weights have seen": ", ".join(model.trained_on) or "nothing before this training",
        "started from": model.backbone_weights or "random weights",
        "faces": f"{result.counts.evaluated:,} of {result.counts.declared:,} evaluated",
        "command": _command(model.name, result, options),
        "recipe": ", ".join(f"{name} {value}" for name, value in recipe.items()) or NONE,
        "code": f"dfad-bench {code.version}, {commit}",
        "environment": ", ".join(f"{name} {value}" for name, value in result.environment.items()),
        "predictions": f"{result.predictions.rows:,} rows, sha256 {result.predictions.sha256}",
    }
    notes = ["The predictions are sent as the run wrote them: ids, labels and scores."]
    if left_out:
        notes = [
            "The run kept embeddings, which are not sent. The predictions are its rows without them, and the hash is that "
            f"of the file sent, not of the run's own. {left_out} scores that only embeddings give (discovery) are left out; "
            "every other score is the run's."
        ]
    return Table(f"{model.name} on {result.protocol.name}", ("what", "value"), tuple(rows.items()), tuple(notes))


def _command(name: str, result: Result, options: dict[str, object]) -> str:
    set_to = [part for option, value in options.items() for part in ("--set", f"{option}={value}")]
    base = name.partition("+")[0]
    command = ["dfad-bench", "run", "--model", base, "--protocol", result.protocol.name, "--seed", str(result.seed)]
    return shlex.join([*command, *set_to])


def _numbers(result: Result, others: Sequence[Result]) -> Table:
    """Return a result's means beside those of the best other one on the same faces, and of the one that it replaces."""
    same = [each for each in others if each.protocol == result.protocol]
    earlier = next((each for each in same if each.model.name == result.model.name), None)
    same = [each for each in same if each is not earlier and not each.ineligible]
    best = ranked_results(same)[0][1] if same else None
    rank = next((rank for rank, each in ranked_results([*same, result]) if each is result), "")
    notes = Notes()
    beside = {"best there": best, "before": earlier}
    columns = ["number", "this %"]
    for what, other in beside.items():
        if other is not None:
            columns += [f"{what} %: {other.model.name}", "difference"]
    rows = []
    for name, mine in _means(result):
        row = [name, cell(mine, notes, "not scored", interval=True)]
        for other in beside.values():
            if other is not None:
                theirs = dict(_means(other)).get(name)
                row += [cell(theirs, notes, "not scored", interval=True), _difference(mine, theirs)]
        rows.append(tuple(row))
    told = [
        f"Rank {rank} of {len(same) + 1} on these faces." if same else "It is the first result on these faces.",
        "Means over groups, face by face, with 95 % intervals; differences in percentage points. Whether chance explains "
        "one is for dfad-bench compare to say: intervals that overlap do not.",
    ]
    return Table("Numbers", tuple(columns), tuple(rows), (*notes.lines(), *told, *warned(result.protocol.warning)))


def _means(result: Result) -> Iterator[tuple[str, Score | None]]:
    """Yield the numbers of the leaderboard's columns."""
    lookup = Lookup(result.scores)
    for subset in lookup.subsets:
        for level in lookup.levels:
            score = lookup.score("attribution", "accuracy", level, subset, MEAN)
            yield f"{subset} ACC {level_name(level)}", score
        for metric, name in (("auc", "AUC"), ("accuracy@val", "ACC@val")):
            yield f"{subset} {name}", lookup.score("detection", metric, "authenticity", subset, MEAN)


def _difference(mine: Score | None, theirs: Score | None) -> str:
    if mine is None or theirs is None or mine.value is None or theirs.value is None:
        return NONE
    shown = f"{100 * (mine.value - theirs.value):+.1f}"
    return "0.0" if float(shown) == 0 else shown


# --- the report of a check -----------------------------------------------------------------------------------------


def check_report(files: Sequence[Path], problems: Sequence[Problem], base: Path) -> str:
    """Return Markdown for a comment: what is wrong with the files, and how their numbers differ from the base branch's.

    base: the results of the base branch. Problems stand as preformatted text, in which GitHub sees no link, no name and no
    markup, whatever a file made them say.
    """
    paths = sorted({path.with_suffix(".json") for path in files if path.suffix in (".json", ".parquet")})
    lines = [f"Results checked: {len(paths)}. Problems: {len(problems)}.", ""]
    lines += [f"    {_one_line(str(problem))}" for problem in problems]
    if unseen := not_recomputed(files):
        lines += [
            "",
            "Not recomputed: no predictions in the pull request. Whoever merges takes these numbers on trust.",
            "",
        ]
        lines += [f"    {_one_line(str(path))}" for path in unseen]
    tables = [markdown(table) for path in paths if (table := _changes(path, base)) is not None]
    return "\n".join(["## Leaderboard", "", *lines, "", *tables])


def _one_line(text: str) -> str:
    return re.sub(r"[\s\x00-\x1f\x7f\u2028\u2029]+", " ", text)


def _changes(path: Path, base: Path) -> Table | None:
    """Return how the numbers of one result changed; None for what cannot be read, which is a problem and told as such."""
    try:
        result = read_strictly(path)
    except (DfadError, OSError):
        return None
    before = base / path.parent.name / path.name
    earlier = read_strictly(before) if before.is_file() else None
    notes = Notes()
    old = {} if earlier is None else dict(_means(earlier))
    rows = [
        (
            *(name, NONE if earlier is None else cell(old.get(name), notes, "not scored", interval=True)),
            *(cell(score, notes, "not scored", interval=True), _difference(score, old.get(name))),
        )
        for name, score in _means(result)
    ]
    told = list(warned(result.protocol.warning))
    if earlier is None:
        told.insert(0, "It is new.")
    elif (
        earlier.protocol.fingerprint != result.protocol.fingerprint
        or earlier.protocol.version != result.protocol.version
    ):
        told.insert(0, "Before, it was on other faces: the difference says nothing about the model.")
    title = f"{result.model.name} on {result.protocol.name} v{result.protocol.version}"
    return Table(title, ("number", "before %", "now %", "difference"), tuple(rows), (*notes.lines(), *told))
