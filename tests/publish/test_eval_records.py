"""A result in the formats of others: the same numbers, marked where they must not be read alone."""

from __future__ import annotations

import datetime
import json
import math
from importlib.util import find_spec
from typing import Any

import pytest
import yaml

from dfad_bench.errors import DataError, UsageError
from dfad_bench.publish.eval_records import (
    EVERY_EVAL_EVER,
    eval_results_yaml,
    every_eval_ever,
    headlines,
    model_card_block,
    task_id,
)
from dfad_bench.records.results import PerturbationRecord, Result
from tests.publish.builders import a_protocol, a_result

HOSTILE = "<script>alert(1)</script>|\"'\n---\nlicense: mit"
NOW = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)
WHO: dict[str, Any] = {"model_id": "org/xception", "organisation": "A laboratory", "retrieved": NOW}


@pytest.fixture(scope="module")
def result() -> Result:
    """A result of seven faces, whose means are given the intervals that so few faces do not have."""
    found = a_result(protocol=a_protocol(warning="Only a toy."))
    scores = [
        score.model_copy(update={"low": score.value / 2, "high": (1 + score.value) / 2, "interval": "bca"})
        if score.group == "mean" and score.value is not None
        else score
        for score in found.scores
    ]
    return found.model_copy(update={"scores": scores})


def needs_hub() -> None:
    if find_spec("huggingface_hub") is None:
        pytest.skip("the package huggingface_hub is not installed")


def test_headlines_are_the_means_of_the_leaderboard(result: Result) -> None:
    found = {(score.subset, score.task, score.level, score.metric) for score in headlines(result)}
    assert ("unseen", "attribution", "family", "accuracy") in found
    assert ("unseen", "detection", "authenticity", "auc") in found
    assert {score.group for score in headlines(result)} == {"mean"}
    assert {score.unit for score in headlines(result)} == {"frame"}
    assert all(score.value is not None for score in headlines(result))


def test_eval_results_are_what_huggingface_hub_reads_back(result: Result) -> None:
    needs_hub()
    from huggingface_hub import parse_eval_result_entries

    text = eval_results_yaml(
        result, "org/toy", revision="a" * 40, source_url="https://example.org/run", date=datetime.date(2026, 1, 31)
    )
    entries = parse_eval_result_entries(yaml.safe_load(text))
    assert {entry.task_id: entry.value for entry in entries} == {task_id(result, s): s.value for s in headlines(result)}
    assert len(entries) == len(headlines(result)) > 4
    for entry in entries:
        assert (entry.dataset_id, entry.dataset_revision, entry.date) == ("org/toy", "a" * 40, "2026-01-31")
        assert (entry.source_url, entry.source_name) == ("https://example.org/run", "dfad-bench")
        assert entry.notes is not None and "demo v1" in entry.notes and "warning: Only a toy" in entry.notes
        assert "not measured" not in entry.notes
    assert "demo_unseen_attribution_family_accuracy" in {entry.task_id for entry in entries}
    bounded = [score for score in headlines(result) if score.low is not None]
    assert bounded and all(f"95 % interval {score.low:.4f} to" in text for score in bounded)


def test_the_model_card_is_what_huggingface_hub_reads_back(result: Result) -> None:
    needs_hub()
    from huggingface_hub import ModelCard

    card = ModelCard(model_card_block(result, "org/toy", revision="a" * 40, source_url="https://example.org/run"))
    assert card.data.model_name == "xception"
    found = card.data.eval_results
    assert found is not None
    assert sorted(each.metric_value for each in found) == sorted(score.value or 0 for score in headlines(result))
    for each in found:
        assert (each.dataset_type, each.dataset_config, each.dataset_revision) == ("org/toy", "demo", "a" * 40)
        assert "Warning: Only a toy." in each.dataset_name
    assert {each.dataset_split for each in found} == {"test_seen", "test_unseen"}
    assert {each.metric_type for each in found} == {"accuracy", "roc_auc"}


@pytest.mark.parametrize("name", ["eval_results", "model_card", "every_eval_ever"])
def test_an_ineligible_result_is_refused_with_the_reasons(name: str) -> None:
    refused = a_result(ineligible=["limited to 5 faces", "the code has changes that are not committed"])
    with pytest.raises(DataError, match="limited to 5 faces; the code has changes that are not committed"):
        if name == "eval_results":
            eval_results_yaml(refused, "org/toy")
        elif name == "model_card":
            model_card_block(refused, "org/toy")
        else:
            every_eval_ever(refused, **WHO)


def test_what_was_reported_and_not_measured_is_marked_everywhere() -> None:
    needs_hub()
    reported = a_result(origin="reported")
    entries = yaml.safe_load(eval_results_yaml(reported, "org/toy"))
    assert entries and all("reported by its authors, not measured" in entry["notes"] for entry in entries)
    (model,) = yaml.safe_load(model_card_block(reported, "org/toy").strip("-\n"))["model-index"]
    names = [metric["name"] for each in model["results"] for metric in each["metrics"]]
    assert names and all("reported by its authors, not measured" in name for name in names)
    record = every_eval_ever(reported, **WHO)
    assert record["source_metadata"]["source_type"] == "documentation"
    assert record["source_metadata"]["additional_details"]["origin"] == "reported by its authors, not measured"
    assert record["model_info"]["additional_details"]["deployment_type"] == "unknown"


def test_perturbed_faces_are_named() -> None:
    needs_hub()
    bent = a_result(perturbation=PerturbationRecord(name="jpeg", severity=3, strength="JPEG quality 30"))
    assert all("jpeg, severity 3" in entry["notes"] for entry in yaml.safe_load(eval_results_yaml(bent, "org/toy")))


def test_the_same_result_gives_the_same_text(result: Result) -> None:
    needs_hub()
    assert eval_results_yaml(result, "org/toy") == eval_results_yaml(result, "org/toy")
    assert model_card_block(result, "org/toy") == model_card_block(result, "org/toy")
    assert json.dumps(every_eval_ever(result, **WHO)) == json.dumps(every_eval_ever(result, **WHO))


def test_hostile_names_stay_values() -> None:
    needs_hub()
    hostile = a_result(HOSTILE, protocol=a_protocol(warning=HOSTILE))
    entries = yaml.safe_load(eval_results_yaml(hostile, "org/toy"))
    assert {key for entry in entries for key in entry} == {"dataset", "value", "notes"}
    text = model_card_block(hostile, "org/toy")
    assert [line for line in text.splitlines() if line == "---"] == ["---", "---"]
    assert set(yaml.safe_load(text.removeprefix("---\n").removesuffix("---\n"))) == {"model-index"}
    assert every_eval_ever(hostile, **WHO)["model_info"]["name"] == HOSTILE


@pytest.mark.parametrize("name", ["toy", "org/toy/more", "../toy", "org/<script>", "", "org/"])
def test_names_that_are_none_are_told(name: str, result: Result) -> None:
    with pytest.raises(UsageError, match="not of the form owner/name"):
        eval_results_yaml(result, name)
    with pytest.raises(UsageError, match="not of the form owner/name"):
        every_eval_ever(result, **(WHO | {"model_id": name}))


def test_without_the_extra_one_line_says_what_to_install(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    for call in (eval_results_yaml, model_card_block):
        with pytest.raises(UsageError, match=r"pip install 'dfad-bench\[hub\]'"):
            call(result, "org/toy")


def test_a_result_without_a_value_has_nothing_to_say() -> None:
    with pytest.raises(DataError, match="no score of the leaderboard"):
        every_eval_ever(a_result(scored=[]), **WHO)


# --- Every Eval Ever -----------------------------------------------------------------------------------------------


def test_every_mean_and_pooled_score_is_an_evaluation(result: Result) -> None:
    record = every_eval_ever(result, **WHO, relationship="third_party", dataset_id="org/toy")
    kept = [s for s in result.scores if s.group in ("mean", "pooled") and s.value is not None]
    evaluations = record["evaluation_results"]
    assert [each["score_details"]["score"] for each in evaluations] == [score.value for score in kept]
    assert len({each["evaluation_result_id"] for each in evaluations}) == len(kept) > 20
    for each in evaluations:
        metric = each["metric_config"]
        assert metric["min_score"] <= each["score_details"]["score"] <= metric["max_score"]
        assert math.isfinite(each["score_details"]["score"])
        assert each["source_data"]["hf_repo"] == "org/toy"
    lower = {
        each["metric_config"]["metric_name"].partition("@")[0]
        for each in evaluations
        if each["metric_config"]["lower_is_better"]
    }
    assert {"eer", "brier", "ece"} <= lower and not {"accuracy", "auc", "macro_f1"} & lower
    assert record["source_metadata"]["evaluator_relationship"] == "third_party"
    assert record["evaluation_id"] == f"dfad_bench_demo/org_xception/{int(NOW.timestamp())}"
    with_interval = [
        each["score_details"]["uncertainty"] for each in evaluations if "uncertainty" in each["score_details"]
    ]
    assert with_interval and all(each["confidence_interval"]["confidence_level"] == 0.95 for each in with_interval)


def test_the_record_has_what_the_schema_requires(result: Result) -> None:
    record = every_eval_ever(result, **WHO)
    assert record.keys() == {
        *("schema_version", "evaluation_id", "retrieved_timestamp", "source_metadata", "model_info", "eval_library"),
        "evaluation_results",
    }  # fmt: skip
    assert (record["schema_version"], record["retrieved_timestamp"]) == (EVERY_EVAL_EVER, str(int(NOW.timestamp())))
    assert record["model_info"]["developer"] == "org" and record["eval_library"]["version"] == "0.1.0"
    flat = [record["source_metadata"]["additional_details"], record["model_info"]["additional_details"]]
    flat += [each["score_details"]["details"] for each in record["evaluation_results"]]
    assert all(isinstance(value, str) for each in flat for value in each.values())
    with pytest.raises(UsageError, match="no time zone"):
        every_eval_ever(result, **(WHO | {"retrieved": NOW.replace(tzinfo=None)}))


def test_the_schema_itself_finds_nothing_wrong(result: Result) -> None:
    if find_spec("every_eval_ever") is None or find_spec("jsonschema") is None:
        pytest.skip("the package every-eval-ever, which needs Python 3.12, is not installed: its schema was not asked")
    from importlib.resources import files

    import jsonschema  # type: ignore[import-untyped]

    schema = json.loads(files("every_eval_ever").joinpath("schemas", "eval.schema.json").read_text(encoding="utf-8"))
    for each in (result, a_result(origin="reported")):
        for faces in (None, "org/toy"):
            jsonschema.Draft7Validator(schema).validate(every_eval_ever(each, **WHO, dataset_id=faces))
