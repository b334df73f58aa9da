"""Says a result in the formats of others: ``.eval_results`` and ``model-index`` of the Hugging Face Hub, Every Eval Ever."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from typing import Any, Literal

import yaml

from dfad_bench import registry
from dfad_bench.errors import DataError, UsageError
from dfad_bench.publish.export_dataset import split_name
from dfad_bench.publish.tables import Lookup, level_name
from dfad_bench.records.results import EVERY_SUBSET, MEAN, POOLED, Result, Score

EVERY_EVAL_EVER = "0.3.0"
"""The version of ``eval.schema.json`` (https://github.com/evaleval/every_eval_ever) that records are written for."""

Relationship = Literal["first_party", "third_party", "collaborative", "other"]
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_NOT_MEASURED = "reported by its authors, not measured"
_BOUNDED_BELOW_BY = {"ari": -1.0}  # every other value is a fraction
_CANONICAL = {"auc": "auroc", "average_precision": "average_precision", "accuracy": "accuracy", "macro_f1": "f1_macro"}


def headlines(result: Result) -> list[Score]:
    """Return the scores that stand on the leaderboard and have a value: per test subset ACC at each level, AUC and ACC@val,
    each a mean over groups, face by face."""
    lookup = Lookup(result.scores)
    found = [
        score
        for subset in lookup.subsets
        for score in (
            *(lookup.score("attribution", "accuracy", level, subset, MEAN) for level in lookup.levels),
            lookup.score("detection", "auc", "authenticity", subset, MEAN),
            lookup.score("detection", "accuracy@val", "authenticity", subset, MEAN),
        )
    ]
    return [score for score in found if score is not None and score.value is not None]


def eval_results_yaml(
    result: Result,
    dataset_id: str,
    *,
    revision: str | None = None,
    source_url: str | None = None,
    date: datetime.date | None = None,
) -> str:
    """Return the YAML of a file ``.eval_results/<name>.yaml`` in a model's repository: the headlines, as fractions.

    dataset_id: the benchmark's dataset on the Hub, ``org/name``, whose ``eval.yaml`` must list the tasks (``task_id``);
    revision: its commit; source_url: where the result or its predictions lie; date: when it ran, by default that of the commit.
    Raises DataError for a result that is ineligible or has no headline, UsageError for a name that is none and without the
    extra ``hub``. Format: https://huggingface.co/docs/hub/eval-results, written by huggingface_hub.
    """
    scores = _publishable(result)
    _check_repository("dataset", dataset_id)
    try:
        from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    except ImportError:
        raise _hub_missing("eval_results") from None
    entries = [
        EvalResultEntry(
            dataset_id=dataset_id,
            task_id=task_id(result, score),
            value=score.value,
            dataset_revision=revision,
            date=None if date is None else date.isoformat(),
            source_url=source_url,
            source_name=None if source_url is None else "dfad-bench",
            notes=_notes(result, score),
        )
        for score in scores
    ]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True, width=1000)


def model_card_block(
    result: Result, dataset_id: str, *, revision: str | None = None, source_url: str | None = None
) -> str:
    """Return front matter with the older ``model-index`` of a model card, between its two lines ``---``.

    Arguments and errors are those of ``eval_results_yaml``. Written by ``huggingface_hub.ModelCardData``.
    """
    scores = _publishable(result)
    _check_repository("dataset", dataset_id)
    try:
        from huggingface_hub import EvalResult, ModelCardData
    except ImportError:
        raise _hub_missing("model_card") from None
    protocol = result.protocol
    found = [
        EvalResult(
            task_type="image-classification",
            task_name="Face forgery attribution and detection",
            dataset_type=dataset_id,
            dataset_name=_subset_named(result, score.subset),
            dataset_config=protocol.name,
            dataset_split=split_name(score.subset),
            dataset_revision=revision,
            metric_type="roc_auc" if score.metric == "auc" else score.metric.partition("@")[0],
            metric_value=score.value,
            metric_name=_named(score) + ("" if result.origin == "measured" else f" ({_NOT_MEASURED})"),
            metric_args={"notes": _notes(result, score)},
            source_name=None if source_url is None else "dfad-bench",
            source_url=source_url,
        )
        for score in scores
    ]
    card = ModelCardData(model_name=result.model.name, eval_results=found)
    return f"---\n{card.to_yaml(line_break=chr(10)).strip()}\n---\n"


def every_eval_ever(
    result: Result,
    *,
    model_id: str,
    organisation: str,
    retrieved: datetime.datetime,
    relationship: Relationship = "other",
    dataset_id: str | None = None,
) -> dict[str, Any]:
    """Return a record of Every Eval Ever: every mean and pooled score that has a value, face by face and by video.

    model_id: the model as ``developer/name``; organisation: who ran it, and ``relationship`` to the developer; retrieved: when
    the record is made, with a time zone (the schema wants it, so it is asked for rather than read from a clock); dataset_id:
    the faces on the Hub, where they are. Raises DataError for an ineligible result, UsageError for a name that is none.
    """
    _publishable(result)
    _check_repository("model", model_id)
    if dataset_id is not None:
        _check_repository("dataset", dataset_id)
    if retrieved.tzinfo is None:
        raise UsageError("The time of retrieval has no time zone. Give one, such as 2026-01-31T12:00:00+00:00.")
    stamp = f"{retrieved.timestamp():.0f}"
    protocol, measured = result.protocol, result.origin == "measured"
    name = f"dfad_bench_{protocol.name}"
    scores = [score for score in result.scores if score.group in (MEAN, POOLED) and score.value is not None]
    lower = _lower_is_better(scores)
    about = {"origin": "measured" if measured else _NOT_MEASURED, "predictions_sha256": result.predictions.sha256}
    return {
        "schema_version": EVERY_EVAL_EVER,
        "evaluation_id": f"{name}/{model_id.replace('/', '_')}/{stamp}",
        "retrieved_timestamp": stamp,
        "source_metadata": {
            "source_name": "dfad-bench",
            "source_type": "evaluation_run" if measured else "documentation",
            "source_organization_name": organisation,
            "evaluator_relationship": relationship,
            "additional_details": about | ({} if protocol.warning is None else {"warning": protocol.warning}),
        },
        "eval_library": {
            "name": "dfad-bench",
            "version": result.code.version,
            "additional_details": {"commit": result.code.commit or "unknown"},
        },
        "model_info": _model(result, model_id, measured),
        "evaluation_results": [_evaluation(result, score, lower, dataset_id) for score in scores],
    }


# --- parts ---------------------------------------------------------------------------------------------------------


def _publishable(result: Result) -> list[Score]:
    """Return the headlines; raise DataError where the result may not be published, or has none."""
    told = f"{result.model.name} on {result.protocol.name}"
    if result.ineligible:
        raise DataError(f"{told} may not be published: {'; '.join(result.ineligible)}. Run it again without that.")
    scores = headlines(result)
    if not scores:
        raise DataError(f"{told} has no score of the leaderboard with a value. Score it again: 'dfad-bench score'.")
    return scores


def _check_repository(what: str, name: str) -> None:
    if not _REPOSITORY.fullmatch(name):
        raise UsageError(f"The {what} is named {name!r}, which is not of the form owner/name.")


def _hub_missing(format: str) -> UsageError:
    return UsageError(f"{format} needs the package huggingface_hub. Install it: pip install 'dfad-bench[hub]'.")


def task_id(result: Result, score: Score) -> str:
    """Return the name of a headline as a task of a benchmark, such as ``demo_unseen_attribution_family_accuracy``."""
    level = () if score.task == "detection" else (score.level,)
    return re.sub(r"\W+", "_", "_".join((result.protocol.name, score.subset, score.task, *level, score.metric)))


def _named(score: Score) -> str:
    """Return a score in words, such as ``attribution accuracy, family, unseen, mean``."""
    level = [] if score.level == "authenticity" else [level_name(score.level)]
    by = ["by video"] if score.unit == "video" else []
    return ", ".join([f"{level_name(score.task)} {score.metric}", *level, score.subset, score.group, *by])


def _subset_named(result: Result, subset: str) -> str:
    """Return protocol and subset with what the protocol wants on every page that shows its numbers."""
    protocol = result.protocol
    warning = "" if protocol.warning is None else f". Warning: {' '.join(protocol.warning.split())}"
    return f"{protocol.name} v{protocol.version}, {subset}{warning}"


def _notes(result: Result, score: Score) -> str:
    """Return in one line what a number must not be read without."""
    protocol = result.protocol
    said = [f"{protocol.name} v{protocol.version}", f"faces {protocol.fingerprint}", f"seed {result.seed}"]
    if score.low is not None and score.high is not None:
        said.append(f"95 % interval {score.low:.4f} to {score.high:.4f}")
    if score.unknown:
        said.append(f"leaves out {score.unknown} faces of a class that training does not have")
    if result.perturbation is not None:
        said.append(f"{result.perturbation.name}, severity {result.perturbation.severity}")
    if protocol.warning is not None:
        said.append(f"warning: {protocol.warning.rstrip('.')}")
    if result.origin == "reported":
        said.insert(0, _NOT_MEASURED)
    return " ".join("; ".join([*said, f"dfad-bench {result.code.version}"]).split())


def _metric_id(score: Score) -> str:
    base = score.metric.partition("@")[0]
    return _CANONICAL.get(base, f"dfad_bench.{base}")


def _lower_is_better(scores: Sequence[Score]) -> set[str]:
    """Return the metrics, without what stands behind the @, whose lower values are better."""
    known = registry.entries("metrics")
    names = {score.metric.partition("@")[0] for score in scores}
    # those that are no plugins (open set, discovery) all are better when higher, save a rate of false positives
    return {
        name
        for name in names
        if (not registry.get("metrics", name).higher_is_better if name in known else name.startswith("fpr"))
    }


def _model(result: Result, model_id: str, measured: bool) -> dict[str, Any]:
    model = result.model
    known = {
        "reference": model.reference,
        "licence": model.licence,
        "parameters": str(model.parameters),
        "weights_sha256": model.weights_sha256,
        "backbone_weights": model.backbone_weights,
        "selected_on": model.selected_on,
        "trained_on": ", ".join(model.trained_on),
        "inputs": ", ".join(model.inputs),
        "seed": str(result.seed),
    }
    return {
        "name": model.name,
        "id": model_id,
        "developer": model_id.partition("/")[0],
        "additional_details": {
            "deployment_type": "self_deployed" if measured else "unknown",
            "model_availability": "unknown",
            **{name: value for name, value in known.items() if value},
        },
    }


def _evaluation(result: Result, score: Score, lower: set[str], dataset_id: str | None) -> dict[str, Any]:
    protocol = result.protocol
    about = {"protocol": protocol.name, "version": str(protocol.version), "fingerprint": protocol.fingerprint}
    source: dict[str, Any] = {"dataset_name": protocol.name, "source_type": "other", "additional_details": about}
    if dataset_id is not None:
        source |= {"source_type": "hf_dataset", "hf_repo": dataset_id, "hf_split": "test"}
    metric, _, at = score.metric.partition("@")
    coordinates = (score.task, score.level, score.unit, score.subset, score.group, score.metric)
    return {
        "evaluation_result_id": "/".join(coordinates),
        "evaluation_name": f"{protocol.name} v{protocol.version}",
        "source_data": source,
        "metric_config": {
            "evaluation_description": f"{_named(score)}: {_notes(result, score)}",
            "metric_id": _metric_id(score),
            "metric_name": score.metric,
            "metric_kind": _CANONICAL.get(metric, metric),
            "metric_unit": "proportion",
            "metric_parameters": {"at": at} if at else {},
            "lower_is_better": metric in lower,
            "score_type": "continuous",
            "min_score": _BOUNDED_BELOW_BY.get(metric, 0.0),
            "max_score": 1.0,
        },
        "score_details": _score_details(result, score),
    }


def _score_details(result: Result, score: Score) -> dict[str, Any]:
    told = {
        "task": score.task,
        "level": score.level,
        "unit": score.unit,
        "subset": "every subset" if score.subset == EVERY_SUBSET else score.subset,
        "group": score.group,
        "groups" if score.group == MEAN else f"{score.unit}s": str(score.n),
        "clusters": "unknown" if score.clusters is None else str(score.clusters),
        "left_out_as_unknown": str(score.unknown),
    }
    details: dict[str, Any] = {"score": score.value, "details": told}
    if score.low is not None and score.high is not None:
        details["uncertainty"] = {
            "confidence_interval": {
                "lower": score.low,
                "upper": score.high,
                "confidence_level": 0.95,
                "method": f"{'BCa' if score.interval == 'bca' else 'percentile'} bootstrap of clusters of faces",
            },
            "num_bootstrap_samples": result.scoring.resamples,
        }
    return details
