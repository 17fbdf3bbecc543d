"""A draft of a task: texts and answers, split by a seed, and the keys of a readable task file."""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multiprompt.errors import ConfigError, DataError, NotFoundError, counted, nearest

TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
MAX_TEST_ROWS, MAX_VALIDATION_ROWS = 1000, 200
MAX_LABELS = 100
SPLITS = ("train", "validation", "test")
# The longest list of labels that a default instruction names.
_NAMED_LABELS = 30
_RESERVED = {"self", "super", "range", "loop", "true", "false", "none", "not"}
# The most tokens of a generated answer: half of the bytes of the longest one, within these bounds.
_MIN_NEW_TOKENS, _MAX_NEW_TOKENS = 64, 1024


@dataclass(frozen=True)
class Draft:
    """A task without a place for its rows: the rows of each split, the labels of a choice, notes of left-out rows."""

    splits: Mapping[str, tuple[Mapping[str, Any], ...]]
    labels: tuple[str, ...]
    notes: tuple[str, ...]
    keys: Mapping[str, Any]

    def mapping(self, dataset_path: str, data_files: Mapping[str, str]) -> dict[str, Any]:
        """The task file whose rows are read from `data_files`."""
        source = {"dataset_path": dataset_path, "dataset_kwargs": {"data_files": dict(data_files)}}
        return {"task": self.keys["task"], **source, **self.keys}


def answer_column(label: str | None, target: str | None) -> str:
    """The column of the answers. Raises DataError unless one of both is given."""
    answer = label or target
    if answer is None or (label and target):
        raise DataError("give one of label (a column of choices) and target (a column of texts to generate).")
    return answer


def draft_task(
    rows: Sequence[Mapping[str, Any]],
    text: str,
    label: str | None,
    target: str | None,
    *,
    name: str,
    instruction: str | None = None,
    seed: int = 0,
) -> Draft:
    """Split rows into training, validation and test rows, each text in one of them, and draft the task file.

    A `label` column makes a multiple-choice task, a `target` column a generation task. Raises DataError, and
    NotFoundError for an unknown column.
    """
    answer = answer_column(label, target)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ConfigError(f"seed is {str(seed)[:100]!r}; it must be a whole number.")
    if not isinstance(instruction, str | None):
        raise ConfigError(f"instruction is a {type(instruction).__name__}, but it must be a text.")
    pairs, notes = _pairs(rows, text, answer)
    labels = _labels(pairs, answer) if label else ()
    splits = _split(pairs, labels, seed)
    notes += _untested(splits["test"], labels)
    fields = _fields(text, answer)
    keys = _task_file(name, fields, (text, answer), labels, instruction)
    if not labels:
        keys |= _generation([answer for _, answer in pairs])
    written = {
        split: tuple(dict(zip(fields, _row(pair, labels), strict=True)) for pair in part)
        for split, part in splits.items()
    }
    return Draft(written, labels, notes, keys)


def default_name(text: str) -> str:
    """The name of a task that is made from a file or column of this name."""
    return re.sub(r"\W+", "_", text.lower()).strip("_") or "task"


def _pairs(rows: Sequence[Mapping[str, Any]], text: str, answer: str) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """Texts and answers, each text once however it is spaced, and notes of the rows that were left out."""
    for column in (text, answer):
        if column not in rows[0]:
            raise NotFoundError(f"there is no column {column!r}; {nearest(column, rows[0])}")
    kept: dict[str, tuple[str, str]] = {}
    left_out: Counter[str] = Counter()
    for row in rows:
        one, other = (_cell(row[column], column) for column in (text, answer))
        key = " ".join(unicodedata.normalize("NFC", one).split())
        if not one or not other:
            left_out["without a text or an answer"] += 1
        elif key not in kept:
            kept[key] = (one, other)
        else:
            left_out["with a known text" if kept[key][1] == other else "with a known text and another answer"] += 1
    if not kept:
        raise DataError(f"no row has both {text!r} and {answer!r}.")
    return list(kept.values()), tuple(f"left out: {counted(count, 'row')} {why}" for why, count in left_out.items())


def _cell(value: Any, column: str) -> str:
    if isinstance(value, (list, dict)):
        raise DataError(f"the column {column!r} holds a {type(value).__name__}; give a column of texts or numbers.")
    return "" if value is None else str(value).strip()


def _labels(rows: Sequence[tuple[str, str]], column: str) -> tuple[str, ...]:
    labels = sorted({answer for _, answer in rows})
    if len(labels) < 2:
        raise DataError(f"the column {column!r} holds one label only; a choice needs two.")
    if len(labels) > MAX_LABELS:
        raise DataError(
            f"the column {column!r} holds {len(labels)} labels, and the most are {MAX_LABELS}: a generation task takes "
            f"`target={column!r}`."
        )
    return tuple(labels)


def _split(rows: Sequence[tuple[str, str]], labels: Sequence[str], seed: int) -> dict[str, list[tuple[str, str]]]:
    """Shuffle rows with a seed, and give each split its share of every label."""
    shuffled = random.Random(seed).sample(rows, len(rows))
    groups = [[row for row in shuffled if row[1] == label] for label in labels] if labels else [shuffled]
    # Of many rows the bounds, and not the shares, decide.
    test_share = min(TEST_SHARE, MAX_TEST_ROWS / len(rows))
    validation_share = min(VALIDATION_SHARE, MAX_VALIDATION_ROWS / len(rows))
    splits: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
    for group in groups:
        test = round(test_share * len(group))
        validation = round(validation_share * len(group))
        splits["test"] += group[:test]
        splits["validation"] += group[test : test + validation]
        splits["train"] += group[test + validation :]
    for split, part in splits.items():
        if not part:
            raise DataError(f"{len(rows)} rows are too few, as split {split} is empty; ten rows a label are enough.")
    return {split: random.Random(seed).sample(part, len(part)) for split, part in splits.items()}


def _untested(test: Sequence[tuple[str, str]], labels: Sequence[str]) -> tuple[str, ...]:
    """A note of labels that are too rare for a test row."""
    missing = len(set(labels) - {label for _, label in test})
    return (f"no test row has {counted(missing, 'label')}, as rows of it are too few",) if missing else ()


def _task_file(
    name: str, fields: tuple[str, str], columns: tuple[str, str], labels: Sequence[str], instruction: str | None
) -> dict[str, Any]:
    text, answer = fields
    common = {
        "task": name,
        "training_split": "train",
        "validation_split": "validation",
        "test_split": "test",
        "description": _as_template((instruction or "").rstrip() or _instruction(columns, labels)) + "\n\n",
        "doc_to_text": f"{{{{{text}}}}}\n{_as_template(columns[1].strip().capitalize())}:",
    }
    if labels:
        return {
            **common,
            "output_type": "multiple_choice",
            "doc_to_target": answer,
            "doc_to_choice": list(labels),
            "metric_list": [{"metric": "acc"}],
        }
    return {
        **common,
        "output_type": "generate_until",
        "doc_to_target": answer,
        "filter_list": [{"name": "none", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}],
        "metric_list": [{"metric": "exact_match"}],
    }


def _generation(answers: Sequence[str]) -> dict[str, Any]:
    """Generation ends at a line's end unless an answer has several lines, and has room for the longest."""
    longest = max(len(answer.encode()) for answer in answers)
    limit = min(max(_MIN_NEW_TOKENS, longest // 2), _MAX_NEW_TOKENS)
    until = [] if any("\n" in answer for answer in answers) else ["\n"]
    return {"generation_kwargs": {"until": until, "max_gen_toks": limit}}


def _instruction(columns: tuple[str, str], labels: Sequence[str]) -> str:
    text, answer = columns
    if not labels:
        return f"Write the {answer} for the {text}."
    named = f" It is one of: {', '.join(labels)}." if len(labels) <= _NAMED_LABELS else ""
    return f"Name the {answer} of the {text}.{named}"


def _as_template(text: str) -> str:
    """A template that writes a text out as it is: jinja's marks in it are quoted."""
    return re.sub(r"\{(?=[{%#])", "{{ '{' }}", text)


def _row(pair: tuple[str, str], labels: Sequence[str]) -> tuple[str, Any]:
    """Labels of digits are written as the number of the choice, as the harness reads them."""
    text, answer = pair
    digits = bool(labels) and all(label.isdecimal() for label in labels)
    return text, labels.index(answer) if digits else answer


def _fields(text: str, answer: str) -> tuple[str, str]:
    """The columns' names as a template can read them; plain ones where both would have one name."""
    fields = _field(text, "text"), _field(answer, "answer")
    return fields if fields[0] != fields[1] else ("text", "answer")


def _field(column: str, otherwise: str) -> str:
    name = field_name(column)
    return name if name.isidentifier() and name.lower() not in _RESERVED else otherwise


def field_name(column: str) -> str:
    """A column's name as a template reads it: other signs than letters and digits become an underscore."""
    return re.sub(r"\W+", "_", column).strip("_")
