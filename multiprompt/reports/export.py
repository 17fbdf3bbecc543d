"""Exporting: a version as a PEFT adapter folder with its model card."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from multiprompt.context import Context
from multiprompt.engine.adapter import CONFIG_FILE, claim_folder, write_adapter
from multiprompt.errors import AdapterError, HubError, StateError
from multiprompt.reports.model_card import model_card


def export(context: Context, label: str, folder: Path) -> Path:
    """Write a version into a new or empty folder. Raises StateError for any other."""
    version = context.catalog.versions.labelled(label)
    adapter, card = context.catalog.versions.adapter(version), model_card(context.catalog, version)
    if not claim_folder(folder):
        raise StateError(f"{folder} exists and is no empty folder: choose another, nothing was written.")
    try:
        write_adapter(adapter, folder, card)
    except AdapterError:
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        raise
    return folder


def push_to_hub(context: Context, label: str, repo_id: str, *, private: bool = True) -> str:
    """Upload a version as an adapter folder; gives the repository's URL. Raises HubError.

    A missing repository is made. The environment names the hub (HF_ENDPOINT) and the token (HF_TOKEN).
    """
    from huggingface_hub import HfApi

    with TemporaryDirectory() as work:
        version = context.catalog.versions.labelled(label)
        folder = export(context, version.label, Path(work) / "adapter")
        context.notify(f"uploading {version.label} to {repo_id}")
        try:
            url = HfApi().create_repo(repo_id, private=private, exist_ok=True)
            HfApi().upload_folder(folder_path=folder, repo_id=repo_id, commit_message=f"{version.label}")
        except Exception as error:  # the hub client raises errors of several libraries
            said = " ".join(str(error).split())[:200]
            raise HubError(
                f"{version.label} could not be uploaded to {repo_id} ({type(error).__name__}: {said}). Check the "
                "network, HF_ENDPOINT and the token (HF_TOKEN or `hf auth login`), or upload an exported folder."
            ) from error
    return str(url)
