"""What the repository keeps for those who send results: JSON Schemas that are current, and workflows that run no stranger's
code with the right to write."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from dfad_bench.cli import app
from dfad_bench.records.schemas import RECORDS, json_schema

WRITES, READS = "leaderboard-comment", "leaderboard"


def workflow(repository: Path, name: str) -> dict[Any, Any]:
    loaded = yaml.safe_load((repository / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def steps(loaded: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in loaded["jobs"].values() for step in job["steps"]]


# --- schemas -------------------------------------------------------------------------------------------------------


def test_every_record_has_its_schema_and_no_other_lies_there(repository: Path) -> None:
    assert {path.name for path in (repository / "leaderboard" / "schema").iterdir()} == {
        f"{name}.json" for name in RECORDS
    }


@pytest.mark.parametrize("name", RECORDS)
def test_the_schemas_are_current(repository: Path, name: str) -> None:
    path = repository / "leaderboard" / "schema" / f"{name}.json"
    current = json.dumps(json_schema(name), indent=1, ensure_ascii=False) + "\n"
    assert path.read_text(encoding="utf-8") == current, (
        f"renew it: dfad-bench schema {name} > leaderboard/schema/{name}.json"
    )


# --- workflows -----------------------------------------------------------------------------------------------------


def test_the_check_runs_on_pull_requests_that_touch_results_and_may_read_alone(repository: Path) -> None:
    loaded = workflow(repository, READS)
    # YAML reads the key ``on`` as true
    assert loaded[True] == {"pull_request": {"paths": ["leaderboard/results/**"]}}
    assert loaded["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in loaded["jobs"].values())


def test_the_check_is_the_base_branchs_code_and_the_pull_request_only_data(repository: Path) -> None:
    found = steps(workflow(repository, READS))
    checkouts = {step["with"]["path"]: step["with"] for step in found if "checkout" in step.get("uses", "")}
    assert checkouts["base"]["ref"] == "${{ github.event.pull_request.base.sha }}" and "ref" not in checkouts["pull"]
    assert all(each["persist-credentials"] is False for each in checkouts.values())
    installs = [step["run"] for step in found if "pip" in step.get("run", "")]
    assert installs and all("pull" not in run for run in installs)
    assert all("working-directory" not in step for step in found)


def test_the_comment_runs_no_code_and_may_do_nothing_but_comment(repository: Path) -> None:
    loaded = workflow(repository, WRITES)
    assert loaded[True] == {
        "workflow_run": {"workflows": [workflow(repository, READS)["name"]], "types": ["completed"]}
    }
    assert loaded["permissions"] == {}
    (job,) = loaded["jobs"].values()
    assert job["permissions"] == {"actions": "read", "pull-requests": "write"}
    assert job["if"] == "github.event.workflow_run.event == 'pull_request'"
    assert [step["uses"].partition("@")[0] for step in job["steps"] if "uses" in step] == ["actions/download-artifact"]
    (run,) = [step["run"] for step in job["steps"] if "run" in step]
    assert not re.search(r"\b(checkout|clone|pip|python|eval|source|npm|make|sh|dfad-bench)\b", run)


@pytest.mark.parametrize("name", [READS, WRITES])
def test_actions_are_pinned_and_nothing_of_an_event_is_pasted_into_a_shell(repository: Path, name: str) -> None:
    found = steps(workflow(repository, name))
    assert all(re.fullmatch(r"actions/[a-z-]+@(v\d+|[0-9a-f]{40})", step["uses"]) for step in found if "uses" in step)
    assert all("${{" not in step.get("run", "") for step in found)
    text = (repository / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    assert "pull_request_target" not in text and "secrets." not in text


def test_both_speak_of_one_file(repository: Path) -> None:
    (upload,) = [step for step in steps(workflow(repository, READS)) if "upload-artifact" in step.get("uses", "")]
    (download,) = [step for step in steps(workflow(repository, WRITES)) if "download-artifact" in step.get("uses", "")]
    assert upload["with"]["name"] == download["with"]["name"]
    (run,) = [step["run"] for step in steps(workflow(repository, WRITES)) if "run" in step]
    assert f"{download['with']['path']}/{upload['with']['path']}" in run


def test_the_commands_that_are_named_exist(repository: Path) -> None:
    runs = "\n".join(step.get("run", "") for step in steps(workflow(repository, READS)))
    named = re.findall(r"dfad-bench ((?:[a-z-]+ )+?)((?:--[a-z]+ \S+ )*)--", runs)
    assert named
    for words, options in named:
        command: Any = typer.main.get_command(app)
        for word in words.split():
            command = command.commands[word]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {each for each in options.split() if each.startswith("--")} <= known
