"""Uploads a folder to the Hugging Face Hub, and says in one line what to do where that fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from dfad_bench.config import file_sha256
from dfad_bench.errors import DataError, DfadError, UsageError
from dfad_bench.publish.export_dataset import CARD, CROISSANT_FILE

RepoType = Literal["dataset", "model", "space"]


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    repo_type: RepoType,
    private: bool = True,
    revision: str | None = None,
    create_pr: bool = False,
    message: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Upload what lies in a folder, and return the URL of the commit, or of the pull request.

    huggingface_hub makes several commits of a large folder; where one fails, the same call goes on from there.

    repo_id: ``owner/name``; a repository that does not exist is created, private unless said otherwise (one that exists keeps
    its visibility), except with ``create_pr``, which proposes the commit to a repository of anyone. revision: a branch that
    exists, by default ``main``, which is what pull requests are made against; endpoint: of the Hub, by default that of
    huggingface_hub (``HF_ENDPOINT``). The token is the one that 'hf auth login' stored, or ``HF_TOKEN``.
    Of a dataset only what ``export_dataset`` wrote is uploaded, since that looks at licences. Raises UsageError for a wrong
    call, without a token and without the extra ``hub``; DataError where files are not those that were exported, and where the
    Hub refuses or cannot be reached.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        raise UsageError(f"{folder} is no folder with files in it. 'dfad-bench export' writes one.")
    if create_pr and revision is not None:
        raise UsageError(f"A pull request is made against main. Leave out the revision {revision}, or --create-pr.")
    only = _exported_files(folder) if repo_type == "dataset" else None
    try:
        import huggingface_hub
    except ImportError:
        raise UsageError("push needs the package huggingface_hub. Install it: pip install 'dfad-bench[hub]'.") from None
    if huggingface_hub.get_token() is None:
        raise UsageError(
            "There is no token for the Hub. Make one with write access at https://huggingface.co/settings/tokens, then run "
            "'hf auth login' or set HF_TOKEN."
        )
    hub = huggingface_hub.HfApi(endpoint=endpoint, library_name="dfad-bench")
    try:
        if not create_pr:
            hub.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=only,
            repo_type=repo_type,
            revision=revision,
            create_pr=create_pr,
            commit_message=message or "Upload by dfad-bench",
        )
    except Exception as error:
        if (explained := _explained(error, repo_id, repo_type, hub.endpoint)) is None:
            raise
        raise explained from None
    return str(commit.pr_url or commit.commit_url)


def _exported_files(folder: Path) -> list[str]:
    """Return the files that ``export_dataset`` wrote to a folder; raise for a folder or files that are not its work."""
    if not all((folder / name).is_file() for name in (CARD, CROISSANT_FILE)):
        raise UsageError(f"{folder} lacks {CARD} or {CROISSANT_FILE}. Write it by 'dfad-bench export dataset' first.")
    try:
        described = json.loads((folder / CROISSANT_FILE).read_text(encoding="utf-8"))["distribution"]
        hashes = {str(each["contentUrl"]): str(each["sha256"]) for each in described if "contentUrl" in each}
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{folder / CROISSANT_FILE} does not list files. Export the dataset again.") from None
    for path, expected in hashes.items():
        if not (folder / path).is_file() or file_sha256(folder / path) != expected:
            raise DataError(f"{folder / path} is not the file that was exported. Export the dataset again.")
    return [CARD, CROISSANT_FILE, *hashes]


def _explained(error: Exception, repo_id: str, repo_type: RepoType, endpoint: str) -> DfadError | None:
    """Return one line for what goes wrong when the user or the world is at fault, None for anything else."""
    import huggingface_hub.errors as of_hub

    # of the HTTP client, which differs from one version of huggingface_hub to the next
    http_error = getattr(of_hub, "HTTPError", ConnectionError)
    said = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, of_hub.HFValidationError):
        return UsageError(f"{repo_id!r} is no name of a repository ({said}). Give owner/name.")
    if isinstance(error, of_hub.OfflineModeIsEnabled):
        return UsageError(
            "The Hub is switched off by HF_HUB_OFFLINE. Unset it, and run the same command where there is a network."
        )
    if isinstance(error, ValueError) and said.startswith("Invalid metadata in README.md"):
        return DataError(f"The Hub does not accept the card: {said}. Correct the YAML at the head of README.md.")
    if isinstance(error, of_hub.RevisionNotFoundError):
        return UsageError(f"{repo_id} has no branch of that name. Create it on the Hub, or leave it out for main.")
    if isinstance(error, of_hub.HfHubHTTPError):
        return _refused(error.response.status_code, said, repo_id, repo_type)
    if isinstance(error, ConnectionError | http_error):
        return DataError(
            f"{endpoint} cannot be reached ({said or type(error).__name__}). Run the same command where there is a network."
        )
    return None


def _refused(status: int, said: str, repo_id: str, repo_type: RepoType) -> DfadError:
    """Return what to do about an answer of the Hub."""
    if status == 401:
        return DataError(
            f"The Hub does not accept the token for {repo_id} (401). Make a new one with write access at "
            "https://huggingface.co/settings/tokens, then 'hf auth login'."
        )
    if status == 403:
        return DataError(
            f"The token may not write to the {repo_type} {repo_id} (403). Give it write access for "
            f"{repo_id.partition('/')[0]}, use a name of your own, or propose the change: --create-pr."
        )
    if status == 404:
        return UsageError(
            f"There is no {repo_type} {repo_id} on the Hub, or the token does not see it (404). Check the name."
        )
    if status == 429 or status >= 500:
        return DataError(
            f"The Hub cannot answer now ({status}). Run the same command later; what was uploaded is kept."
        )
    return DataError(f"The Hub refused {repo_id} ({status}): {said}.")
