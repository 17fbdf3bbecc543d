"""Figures of the code's structure and prose: modules, functions, import cycles, hops of three journeys, sentences.

    python -m benchmarks.structure [--journeys]

A journey's hops are the modules and functions of the package that receive the task's name, its task or its text, seen
by a profiler on a random two-layer model. `--journeys` takes about a minute.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

PACKAGE = Path(__file__).parents[1] / "multiprompt"
README = PACKAGE.parent / "README.md"
LONG_SENTENCE = 25
_BLOCK = re.compile(r"^```(?s:.*?)^```$|^ {4}.*$", re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n\s*\n|\n\s*[-*|#]|:\s*\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--journeys", action="store_true", help="Run the three journeys, too.")
    arguments = parser.parse_args()
    modules = sorted(PACKAGE.rglob("*.py"))
    trees = {_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in modules}
    lengths = {_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in modules}
    longest = max(lengths, key=lambda name: lengths[name])
    print(f"modules {len(modules)}, lines {sum(lengths.values())}, median {statistics.median(lengths.values()):.0f}, "
          f"longest {lengths[longest]} ({longest})")  # fmt: skip
    print(_function_line(trees))
    cycles = _cycles(_imports(trees))
    print(f"import cycles {len(cycles)}" + "".join(f"\n  {' '.join(sorted(cycle))}" for cycle in cycles))
    pages = [README, *sorted((PACKAGE / "docs").rglob("*.md"))]
    prose = {page: _BLOCK.sub("\n\n", page.read_text(encoding="utf-8")) for page in pages}
    print(f"README {len(README.read_text(encoding='utf-8').splitlines())} lines, {len(prose[README].split())} words")
    print(_sentence_line("sentences of README", sentence_lengths([prose[README]])))
    print(_sentence_line("sentences of all pages", sentence_lengths(prose.values())))
    print(_sentence_line("sentences of docstrings", sentence_lengths(_docstrings(trees.values()))))
    if arguments.journeys:
        _journeys()


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _function_line(trees: dict[str, ast.Module]) -> str:
    sizes = [
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{name}.{node.name}")
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    ]
    lengths = sorted(size for size, _ in sizes)
    p90 = lengths[int(0.9 * len(lengths))]
    size, where = max(sizes)
    return f"functions {len(sizes)}, median {statistics.median(lengths):.0f}, p90 {p90}, longest {size} ({where})"


def _imports(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """The modules of the package that each imports, in functions and for types as well."""
    found: dict[str, set[str]] = {}
    for name, tree in trees.items():
        targets = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("multiprompt"):
                targets |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
            elif isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
        found[name] = {target for target in targets if target in trees and trees[target].body} - {name}
    return found


def _cycles(imports: dict[str, set[str]]) -> list[set[str]]:
    """The groups of modules that import each other (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[set[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in imports[name]:
            if other not in index:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == index[name]:
            group = set(stack[stack.index(name) :])
            del stack[stack.index(name) :]
            if len(group) > 1:
                groups.append(group)

    for name in imports:
        if name not in index:
            visit(name)
    return groups


def _docstrings(trees: Any) -> Iterator[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for tree in trees:
        yield from filter(None, (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)))


def sentence_lengths(texts: Iterable[str]) -> list[int]:
    """The words of each sentence of three words or more."""
    words = [len(part.split()) for text in texts for part in _SENTENCE_END.split(_BLOCK.sub("\n\n", text))]
    return [count for count in words if count >= 3]


def _sentence_line(what: str, counts: Sequence[int]) -> str:
    long = sum(count > LONG_SENTENCE for count in counts)
    return f"{what} {len(counts)}, over {LONG_SENTENCE} words {long} ({long / max(1, len(counts)):.1%})"


def _journeys() -> None:
    import multiprompt as mp
    from multiprompt.jobs.steps import JobContext, run_job
    from tests.conftest import write_tiny_model

    with tempfile.TemporaryDirectory() as folder:
        model = write_tiny_model(Path(folder) / "model")
        ws = mp.open(Path(folder) / "catalog.db", str(model), dtype="float32")
        ws.add_task(_task_file(Path(folder)))
        ws.base_model()
        print(_hops("learn", "colour", lambda: ws.learn("colour")))
        ws.predict([("colour", "the sky")])
        print(_hops("predict, warm", "the sky again", lambda: ws.predict([("colour", "the sky again")])))
        claim, _ = ws.catalog.ledger.claim("job", "owner", "worker", datetime.now(UTC))
        context = ws.context.claimed_by(claim, lambda what, done, total: None)
        job = JobContext(context, claim, "retrain", "colour")
        print(_hops("retraining as a job, in its process", "colour", lambda: run_job(job, lambda _: None)))


def _hops(what: str, value: str, run: Callable[[], object]) -> str:
    seen: set[tuple[str, str]] = set()

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and str(PACKAGE) in frame.f_code.co_filename and not frame.f_code.co_name.startswith("<"):
            names = frame.f_code.co_varnames[: frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount]
            if any(_carries(frame.f_locals.get(name), value) for name in names):
                seen.add((frame.f_code.co_filename, frame.f_code.co_qualname))

    sys.setprofile(look)
    try:
        run()
    finally:
        sys.setprofile(None)
    return f"{what}: {len({file for file, _ in seen})} modules, {len(seen)} functions"


def _carries(argument: Any, value: str) -> bool:
    """Whether an argument is the name or text, or a list of them."""
    if isinstance(argument, str):
        return argument == value
    if isinstance(argument, list | tuple):
        return any(_carries(one, value) for one in argument[:4])
    return isinstance(argument, dict) and any(_carries(one, value) for one in argument.values())


def _task_file(folder: Path) -> Path:
    import yaml

    from tests.conftest import task_mapping

    rows = [f'{{"text": "sky {number}", "label": "{("red", "green")[number % 2]}"}}\n' for number in range(24)]
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text("".join(rows), encoding="utf-8")
    file = folder / "task.yaml"
    file.write_text(yaml.safe_dump(task_mapping()), encoding="utf-8")
    return file


if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader went away, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
