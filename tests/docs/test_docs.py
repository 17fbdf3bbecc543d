"""The guide: every block runs, every link leads somewhere, sentences are short, reference pages are the code's."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

import multiprompt as mp
from benchmarks.structure import LONG_SENTENCE, sentence_lengths
from multiprompt.cli.docs import page_names, read_page
from multiprompt.engine import loading
from multiprompt.quickstart import samples
from multiprompt.tasks.task import Task
from tests.docs.blocks import RUN, Block, Page, find_blocks
from tests.docs.reference import PAGES

ROOT = Path(mp.__file__).parents[1]
README = ROOT / "README.md"
# Pages whose text other tests hold to the code.
GENERATED = {f"reference/{name}" for name in PAGES}
RUN_PAGES = [name for name in page_names() if name not in GENERATED | {"quickstart"}]
NOTEBOOKS = sorted((ROOT / "multiprompt" / "docs" / "notebooks").glob("*.ipynb"))
_LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


def page(name: str) -> str:
    return README.read_text(encoding="utf-8") if name == "README" else read_page(name)


@pytest.fixture(scope="module", autouse=True)
def one_base_model() -> Iterator[None]:
    """The base model is loaded once, and not anew for each command; other modules' tests load it as it is."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loading, "load_base_model", functools.cache(loading.load_base_model))
        yield


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the quickstart's catalog: its tasks on its model, learned in a few steps of a few rows."""
    folder = tmp_path_factory.mktemp("guide")
    quickstart = folder / "multiprompt-quickstart"
    quickstart.mkdir()
    with mp.open(quickstart / "catalog.db") as ws:
        for sample in samples.SAMPLES:
            path = samples.write_sample(sample, quickstart)
            for split in ("train", "validation", "test"):
                rows = path.with_name(f"{split}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
                path.with_name(f"{split}.jsonl").write_text("".join(rows[:12]), encoding="utf-8")
            training = {"steps": 2, "batch_size": 4, "validate_every": 2, "validation_rows": 4}
            settings = {"training": training, "regression": {"floor": "none"}, "max_input_tokens": 48}
            mapping = {**Task.from_file(path).mapping, "metadata": {"multiprompt": settings}}
            path.write_text(mp_yaml(mapping), encoding="utf-8")
            ws.add_task(path)
            ws.learn(sample.name)
    return folder


def mp_yaml(mapping: object) -> str:
    import yaml

    return str(yaml.safe_dump(mapping, sort_keys=False))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README", *RUN_PAGES])
def test_every_block_of_a_page_runs(name: str, learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = list(find_blocks(name, page(name)))
    if not any(block.language in RUN and block.mark != "not run" for block in blocks):
        pytest.skip("no block of this page is run")
    folder = tmp_path / "guide"
    shutil.copytree(learned, folder)
    # Task files are found where the catalog's copy says that they were added.
    monkeypatch.setenv("MULTIPROMPT_CATALOG", "multiprompt-quickstart/catalog.db")
    run = Page(folder)
    for block in blocks:
        run.run(block)


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_every_cell_of_a_notebook_runs(file: Path, learned: Path, tmp_path: Path) -> None:
    shutil.copytree(learned, tmp_path / "guide")
    run = Page(tmp_path / "guide")
    for number, cell in enumerate(nbformat.read(file, as_version=4).cells):
        if cell.cell_type == "code":
            # Fewer steps than a reader's take less time, and run the same code.
            code = re.sub(r'"training\.steps": \d+', '"training.steps": 2', cell.source)
            run.run(Block(f"{file.stem}, cell", number, "python", code, "", ""))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_the_saved_outputs_of_a_notebook_hold_no_error_and_no_place_of_a_machine(file: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert outputs
    assert {output.output_type for output in outputs} <= {"execute_result", "display_data", "stream"}
    assert re.search(r"/(root|home|work|tmp|Users)/", json.dumps(outputs)) is None


@pytest.mark.parametrize("name", ["README", *page_names()])
def test_every_link_of_a_page_leads_to_a_file(name: str) -> None:
    folder = ROOT if name == "README" else (ROOT / "multiprompt" / "docs" / name).parent
    missing = [link for link in _LINK.findall(page(name)) if not (folder / link).exists()]
    assert missing == []


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_is_what_the_code_says(name: str) -> None:
    assert read_page(f"reference/{name}") == PAGES[name](), "run `python -m tests.docs.reference`"


def test_a_block_that_is_not_run_says_why() -> None:
    for name in ("README", *RUN_PAGES):
        for block in find_blocks(name, page(name)):
            assert block.mark != "not run" or len(block.value) > 10, block.where


def written_by_hand() -> Iterator[str]:
    yield page("README")
    yield from (page(name) for name in page_names() if name not in GENERATED)


def test_at_most_one_sentence_in_twenty_is_long() -> None:
    lengths = sentence_lengths(written_by_hand())
    assert sum(length > LONG_SENTENCE for length in lengths) <= len(lengths) / 20


def test_readme_is_short() -> None:
    assert len(page("README").splitlines()) <= 180


def test_the_glossary_has_at_most_25_words() -> None:
    words = re.findall(r"^\| (?!word )([^|]+) \|", read_page("glossary"), re.MULTILINE)
    assert 20 <= len(words) == len(set(words)) <= 25


def test_a_page_is_found_by_the_last_part_of_its_name() -> None:
    assert read_page("schedule") == read_page("howto/schedule")
    with pytest.raises(mp.errors.NotFoundError, match="did you mean 'glossary'"):
        read_page("glosary")


def test_the_figures_of_the_structure_end_quietly_when_their_reader_goes_away() -> None:
    command = f"{sys.executable} -m benchmarks.structure | true"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
