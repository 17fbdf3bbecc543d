"""A Python program that answers with an exported prompt by transformers and PEFT alone."""

from __future__ import annotations

from multiprompt.records import VersionRecord
from multiprompt.tasks.task import Task
from multiprompt.tasks.template import Column, Template

_HEAD = """\
{imports}import torch
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

BASE = {base!r}  # the base model
ADAPTER = "."  # this folder
OPTIONS = {options!r}

tokenizer = AutoTokenizer.from_pretrained(BASE, **OPTIONS)
model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.{dtype}, **OPTIONS)
model = PeftModel.from_pretrained(model, ADAPTER).eval()

INSTRUCTION = {instruction!r}
TEXT = {text!r}
templates = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
{filters}
first = tokenizer.bos_token_id
FIRST = [tokenizer.eos_token_id if first is None else first]  # in place of a text without tokens


def context(row):
    return "".join(templates.from_string(part).render(row) for part in (INSTRUCTION, TEXT))


def logits(ids):
    with torch.inference_mode():
        found = model(input_ids=torch.tensor([ids]), use_cache=False{inputs}).logits
    return found[0, -len(ids):].float()
"""

_CHOICE = """\


CHOICES = {choices!r}
DELIMITER = {delimiter!r}


def answer(row, choices=CHOICES):
    text = context(row)
    asked = tokenizer(text.rstrip())["input_ids"]
    wholes = [tokenizer(text + DELIMITER + choice)["input_ids"] for choice in choices]
    same = [sum(whole[: n + 1] == asked[: n + 1] for n in range(len(asked))) for whole in wholes]
    start, scores = min(same), {{}}
    head = FIRST if start == 0 else []
    for choice, whole in zip(choices, wholes):
        chances = logits(head + whole).log_softmax(-1)
        likelihood = sum(float(chances[len(head) + n - 1, whole[n]]) for n in range(start, len(whole)))
        scores[choice] = likelihood{length}
    return max(scores, key=scores.get)
"""

_GENERATION = """\


UNTIL = [*{until!r}, tokenizer.eos_token]
settings = model.get_base_model().generation_config
ends = settings.eos_token_id
END = {{tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}}
PENALTY = {penalty}


def penalised(scores, ids):
    seen = torch.zeros(len(scores), dtype=torch.bool)
    seen[ids] = True
    return torch.where(seen, torch.where(scores < 0, scores * PENALTY, scores / PENALTY), scores)


def answer(row):
    ids = list(tokenizer(context(row))["input_ids"]) or FIRST
    start, text = len(ids), ""
    while len(ids) < start + {most}:
        token = int(penalised(logits(ids)[-1], ids).argmax())
        if token in END:
            break
        ids.append(token)
        text = tokenizer.decode(ids[start:], skip_special_tokens=True)
        if any(stop in text for stop in UNTIL):
            break
    for stop in UNTIL:
        text = text.split(stop)[0]
    return text{filters}
"""

_REGEX_REPLACE = """
templates.filters["regex_replace"] = lambda text, old, new, count=0: re.sub(old, new, text, count=count)

"""
_LENGTHS = {"acc_norm": " / len(choice)", "acc_bytes": " / len(choice.encode())"}
_FILTERS = {"remove_whitespace": ".strip()", "lowercase": ".lower()", "uppercase": ".upper()"}


def snippet(version: VersionRecord, task: Task, base: str, options: dict[str, str]) -> str:
    """A program with a function `answer(row)`. It loads the base model from `base` with `options`."""
    instruction = task.description.source if task.config.keep_description else ""
    text = _as_jinja(task.doc_to_text)
    replaces = "regex_replace" in instruction + text
    head = _HEAD.format(
        base=base,
        options=options,
        dtype=version.base_model.dtype,
        instruction=instruction,
        text=text,
        imports="import re\n\n" if replaces else "",
        filters=_REGEX_REPLACE if replaces else "",
        inputs=", task_ids=torch.tensor([0])" if version.method == "multitask-prompt-tuning" else "",
    )
    return head + (_choice(task) if task.is_multiple_choice else _generation(task))


def differs(task: Task) -> list[str]:
    """The parts of a task that the program leaves to its reader."""
    told = ["a text that is too long for the base model is not cut"]
    if task.is_multiple_choice and not isinstance(task.doc_to_choice, tuple):
        told.append("each row brings its own choices: call `answer(row, choices)`")
    if not task.is_multiple_choice and task.generation.temperature:
        told.append(
            f"answers are greedy here, but the task file samples at temperature {task.generation.temperature:g}"
        )
    if not task.is_multiple_choice and any(step.function == "regex" for step in task.pipelines[0].filters):
        told.append("the regex filter of the task file is not applied")
    return told


def _choice(task: Task) -> str:
    choices = list(task.doc_to_choice) if isinstance(task.doc_to_choice, tuple) else []
    length = _LENGTHS.get(task.metrics[0].metric, "")
    return _CHOICE.format(choices=choices, delimiter=task.target_delimiter, length=length)


def _generation(task: Task) -> str:
    steps = "".join(_FILTERS.get(step.function, "") for step in task.pipelines[0].filters)
    own = task.generation.repetition_penalty
    penalty = "settings.repetition_penalty or 1" if own is None else own
    until, most = list(task.generation.until), task.generation.max_new_tokens
    return _GENERATION.format(until=until, most=most, filters=steps, penalty=penalty)


def _as_jinja(template: Template) -> str:
    """A bare name of a column as the template that gives the column."""
    return f"{{{{ {template.source} }}}}" if isinstance(template, Column) and template.fields else template.source
