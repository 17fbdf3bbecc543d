"""The commands. Exit status: 0 done, 1 a regression or a rejected prompt, 2 an error, 130 interrupted."""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import click

from multiprompt.catalog.labels import parse_label
from multiprompt.cli import jobs as job_commands
from multiprompt.cli import keeping, listings
from multiprompt.cli.docs import docs
from multiprompt.cli.new import new
from multiprompt.cli.options import (
    catalog_option,
    force_option,
    hub_metrics_option,
    json_option,
    reason_option,
    working,
)
from multiprompt.cli.output import (
    echo,
    print_added,
    print_check,
    print_diff,
    print_json,
    print_learned,
    print_matrix,
    print_table,
    told_in_json,
)
from multiprompt.cli.rendering import render
from multiprompt.errors import ConfigError, DataError, MultipromptError, NotFoundError, counted
from multiprompt.records import AddedTask, LearnReport, Prediction
from multiprompt.workspace import Workspace, open_workspace

_FILE = click.Path(path_type=Path, dir_okay=False, writable=True)


def main() -> NoReturn:
    """Run the command line; every expected failure is one line on standard error."""
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted; no prompt was changed, run the command again to go on", 130)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        where = f" (see `{context.command_path} --help`)" if context is not None else ""
        _fail(f"{' '.join(error.format_message().split()).rstrip('.')}{where}", 2)
    except MultipromptError as error:
        _fail(" ".join(str(error).split()), 2)
    except BrokenPipeError:
        # The reader went away, as with `| head`; keep the interpreter from complaining when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(2)
    except OSError as error:
        _fail(f"{error.filename or 'the system'}: {error.strerror or error}", 2)
    except Exception as error:  # a fault of ours, told in full, and not to be taken for a regression
        traceback.print_exc()
        _fail(f"{type(error).__name__}: {error}", 2)


def _fail(message: str, status: int) -> NoReturn:
    echo(f"error: {message}", err=True)
    sys.exit(status)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="multiprompt")
def cli() -> None:
    """One frozen language model, many soft prompts: a catalog of them, and a gate that checks for forgetting."""


for command in (*listings.COMMANDS, *keeping.COMMANDS, *job_commands.COMMANDS, render, docs, new):
    cli.add_command(command)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default="multiprompt-quickstart")
@json_option
def quickstart(folder: Path, as_json: bool) -> None:
    """Learn three real tasks on a real model into FOLDER, and check the earlier ones each time.

    An interrupted run continues when it runs again.
    """
    from multiprompt.cli.quickstart import print_summary, run

    folder.mkdir(parents=True, exist_ok=True)
    with working(str(folder / "catalog.db"), create=True) as workspace:
        summary = run(workspace, folder)
    if as_json:
        print_json(summary)
    else:
        print_summary(summary, workspace)
    sys.exit(0 if summary["verdict"] == "pass" else 1)


@cli.command()
@catalog_option
@click.option("--base-model", metavar="M", help="An alias, a folder, or a hub id (owner/name[@revision]).")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="What the weights are held in; auto is bfloat16 where the hardware has it.",
)
def init(catalog: str, base_model: str | None, dtype: str) -> None:
    """Make a catalog and bind it to a base model."""
    with working(catalog, base_model, create=True, dtype=None if dtype == "auto" else dtype) as workspace:
        base = workspace.base_model()
    echo(f"{workspace.location} is bound to {base.record}")


@cli.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="TASK.yaml…")
@click.option(
    "--group",
    "groups",
    multiple=True,
    metavar="NAME_OR_FILE",
    help="Add the tasks of a group file, or of a group or tag named in a file at or below the current folder.",
)
@catalog_option
@json_option
def add(files: tuple[Path, ...], groups: tuple[str, ...], catalog: str, as_json: bool) -> None:
    """Add tasks, or give known ones a new task file; says which are new, changed (and how) or unchanged.

    What learning needs is checked, and warned of where a task's rows are too few, or used twice.
    """
    from multiprompt.tasks.group import group_files

    if not files and not groups:
        raise click.UsageError("Give a task file or --group.")
    files = (*files, *(file for group in groups for file in group_files(group)))
    added: list[AddedTask] = []
    with working(catalog) as workspace, told_in_json(added, as_json):
        for file in files:
            added.append(workspace.add_task(file))
            if not as_json:
                print_added(added[-1])


@cli.command()
@click.argument("tasks", nargs=-1, metavar="TASK…")
@click.option("--all", "everything", is_flag=True, help="Every task that has no published version yet.")
@click.option("--together", is_flag=True, help="Train them in the same passes over the base model.")
@click.option("--as-added", is_flag=True, help="Learn from the task file that was added, though it was edited since.")
@catalog_option
@hub_metrics_option
@json_option
def learn(
    tasks: tuple[str, ...],
    everything: bool,
    together: bool,
    as_added: bool,
    catalog: str,
    hub_metrics: bool,
    as_json: bool,
) -> None:
    """Train a prompt for each task, check the others, publish, hold or reject it.

    A first version that beats neither its instruction nor the most frequent answer stays a candidate.
    """
    if bool(tasks) == everything:
        raise click.UsageError("name tasks, or give --all")
    reports: list[LearnReport] = []
    with working(catalog, hub_metrics=hub_metrics) as workspace, told_in_json(reports, as_json):
        known = {record.name: record for record in workspace.tasks()}
        for name in tasks:
            workspace.task(name)
        names = list(tasks) or [name for name, record in known.items() if record.published is None]
        for group in [names] if together else [[name] for name in names]:
            for report in workspace.learn_each(group, as_added=as_added):
                reports.append(report)
                if not as_json:
                    print_learned(report)
    sys.exit(0 if all(report.published or report.state == "retired" for report in reports) else 1)


@cli.command()
@click.argument("task", required=False, metavar="TASK[@V]")
@click.argument("texts", nargs=-1, metavar="TEXT…")
@click.option(
    "--input", "source", type=click.File("rb"), help="JSON lines of rows, or one JSON array; - is standard input."
)
@catalog_option
@json_option
def predict(task: str | None, texts: tuple[str, ...], source: Any, catalog: str, as_json: bool) -> None:
    """Answer TEXTs of one task, or the rows of a file.

    A row of --input is an object with the task's fields, and with "task" where no TASK is given. A row that cannot be
    answered is named on standard error, the others are answered, and the exit status is 2. A file with a row for
    another task than TASK is refused.
    """
    if bool(texts) == (source is not None) or (task is None and source is None):
        raise click.UsageError("give TASK and TEXT…, or --input")
    rows: list[tuple[str, Any]] = [(task, text) for text in texts] if task and texts else []
    lines = () if rows else _read_rows(source, task)
    with working(catalog) as workspace:
        if task and lines:
            _refuse_other_tasks(workspace, task, lines)
        found = workspace.predict(rows or [(row.label, row.fields) for row in lines], strict=source is None)
    predictions = [_on_line(row.line, one) for row, one in zip(lines, found, strict=True)] if lines else found
    failed = [prediction.error for prediction in predictions if prediction.error is not None]
    for error in failed:
        echo(f"error: {error}", err=True)
    cut = sum(prediction.truncated for prediction in predictions)
    if cut:
        echo(f"{cut} of {len(predictions)} texts were cut at their end to fit the model's context", err=True)
    if as_json:
        print_json(predictions)
    else:
        for prediction in predictions:
            chance = (prediction.probabilities or {}).get(prediction.output)
            echo(prediction.output if chance is None else f"{prediction.output}\t{chance:.4f}")
    sys.exit(2 if failed else 0)


@cli.command()
@click.option("--full", is_flag=True, help="Run every row of every task, whether anything changed or not.")
@click.option("--base-model", metavar="M", help="Try another base model: an alias, a folder, or a hub id.")
@click.option("--dry-run", is_flag=True, help="A trial: store nothing, move nothing, trigger nothing.")
@click.option("--html", "page", type=_FILE, help="Write the report as a page that needs no network.")
@click.option("--junit", type=_FILE, help="Write JUnit XML for a build server.")
@catalog_option
@hub_metrics_option
@json_option
def check(
    full: bool,
    base_model: str | None,
    dry_run: bool,
    page: Path | None,
    junit: Path | None,
    catalog: str,
    hub_metrics: bool,
    as_json: bool,
) -> None:
    """Compare every published prompt with its baseline. Exit 0: no regression, 1: a regression, 2: an error.

    An unchanged key needs a few canary rows only; otherwise rows run until the verdict is certain. A drop counts where
    the task does not tolerate it and chance does not explain it. On another base model the check is a trial.
    """
    for file in (page, junit):
        if file is not None and not file.parent.is_dir():
            raise ConfigError(f"{file.parent} does not exist: create the folder, or write the report elsewhere.")
    with working(catalog, base_model, hub_metrics=hub_metrics) as workspace:
        report = workspace.check(full=full, dry_run=dry_run)
        for file, text in ((page, workspace.report_html), (junit, workspace.report_junit)):
            if file is not None:
                file.write_text(text(report), encoding="utf-8")
    if as_json:
        print_json({"passed": report.passed, **asdict(report)})
    else:
        print_check(report)
        echo(f"{'pass' if report.passed else 'REGRESSION'}: {report.summary}; {report.cost}")
    sys.exit(0 if report.passed else 1)


@cli.command()
@click.argument("label", metavar="TASK[@V]")
@reason_option
@catalog_option
@hub_metrics_option
def bless(label: str, reason: str, catalog: str, hub_metrics: bool) -> None:
    """Make the present score of a published version its baseline; nothing else changes a baseline."""
    with working(catalog, hub_metrics=hub_metrics) as workspace:
        version = workspace.version(label).label
        evaluation = workspace.bless(label, reason)
    echo(
        f"{version} is held against {evaluation.metric} {evaluation.score:.4f} on {counted(evaluation.rows, 'row')} now"
    )


@cli.command()
@click.argument("policy", required=False, metavar="[block|warn|rollback]")
@reason_option
@catalog_option
def policy(policy: str | None, reason: str, catalog: str) -> None:
    """Show or set the effect of a regression where a task file names none.

    block: a new regression keeps candidates of other tasks out, and a check fails. warn: it is told only. rollback: as
    block, and a check gives the task its previous version back where that one is better now.
    """
    workspace = open_workspace(catalog, create=False)
    if policy is not None:
        workspace.set_policy(policy, reason)
    echo(workspace.policy())


@cli.command()
@click.argument("number", type=int, metavar="ID")
@catalog_option
@json_option
def evaluation(number: int, catalog: str, as_json: bool) -> None:
    """Show an evaluation with the prediction of each row; `multiprompt evaluations` gives the IDs."""
    found = open_workspace(catalog, create=False).evaluation(number)
    if as_json:
        print_json(found)
        return
    echo(f"{found.task}, {found.kind} prompt: {found.metric} {found.score:.4f}")
    print_table(("row", "prediction", "reference"), list(zip(count(), found.predictions, found.references)))


@cli.command()
@click.argument("label", metavar="TASK[@V]")
@catalog_option
@json_option
def show(label: str, catalog: str, as_json: bool) -> None:
    """Show a task with its published prompt, or one version."""
    workspace = open_workspace(catalog, create=False)
    name, number = parse_label(label)
    task = workspace.task(name)
    version = workspace.version(label) if number is not None or task.published is not None else None
    baseline = workspace.catalog.baseline(version) if version is not None and version.score is not None else None
    notes = workspace.notes(name)
    if as_json:
        evaluation = (
            None if baseline is None else {"metrics": baseline.metrics, "rows": baseline.rows, "key": baseline.key}
        )
        engine = {"fallback": workspace.catalog.forward()}
        print_json({"task": task, "version": version, "baseline": evaluation, "engine": engine, "notes": notes})
        return
    echo(f"task         {task.name}\ninstruction  {task.description}\nmetric       {task.metric}")
    echo(f"guarded      {'yes' if task.guarded else 'no'}")
    for note in notes:
        echo(f"note         {note.at:%Y-%m-%d %H:%M} {note.actor}: {note.reason}")
    if version is None:
        echo(f"published    nothing yet; run `multiprompt learn {task.name}`")
        return
    echo(
        f"version      {version.label} ({version.state})\nmethod       {version.method}, "
        f"{version.num_virtual_tokens} virtual tokens\nbase model   {version.base_model}\n"
        f"digest       {version.digest}\n{_engine_line(workspace.catalog.forward())}"
    )
    if baseline is not None:
        scores = ", ".join(f"{name} {value:.4f}" for name, value in baseline.metrics.items())
        echo(f"baseline     {scores} on {counted(baseline.rows, 'row')} ({baseline.truncated} cut)")


@cli.command()
@click.argument("label", metavar="TASK[@V]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["tree", "mermaid", "dot", "json", "prov", "openlineage"]),
    default="tree",
    show_default=True,
    help="How it is drawn.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@catalog_option
def lineage(label: str, form: str, as_json: bool, catalog: str) -> None:
    """Show what a version came from, and what came from it."""
    workspace = open_workspace(catalog, create=False)
    if as_json or form == "json":
        print_json(workspace.lineage(label))
    else:
        echo(workspace.provenance(label, form))


@cli.command()
@click.argument("what", type=click.Choice(["base", "data"]))
@click.argument("name")
@catalog_option
@json_option
def impact(what: str, name: str, catalog: str, as_json: bool) -> None:
    """List the published prompts that a change would touch: of a base model (name or digest) or data (fingerprint)."""
    workspace = open_workspace(catalog, create=False)
    found = workspace.impact_of_base(name) if what == "base" else workspace.impact_of_data(name)
    if as_json:
        print_json(found)
        return
    print_table(("version", "relation", "rows", "seconds"), [(i.version, i.relation, i.rows, i.seconds) for i in found])
    touched = {i.version: i for i in found}.values()
    rows, seconds = sum(i.rows for i in touched), sum(i.seconds for i in touched)
    echo(
        f"{counted(len(touched), 'prompt')}, {counted(rows, 'row')} to evaluate again, which took {seconds:.1f} s last"
    )


@cli.command()
@click.argument("before", metavar="TASK@V")
@click.argument("after", metavar="TASK[@V]")
@click.option("--no-tokens", is_flag=True, help="Leave the virtual tokens out; the base model is not loaded then.")
@catalog_option
@json_option
def diff(before: str, after: str, no_tokens: bool, catalog: str, as_json: bool) -> None:
    """Show what differs between two versions: how they were made, scores, rows that flipped, virtual tokens."""
    if no_tokens:
        found = open_workspace(catalog, create=False).diff(before, after, tokens=False)
    else:
        with working(catalog) as workspace:
            found = workspace.diff(before, after)
    if as_json:
        print_json(found)
    else:
        print_diff(found)


@cli.command()
@click.option("--plot", "picture", type=_FILE, help="Draw it as a heat map instead: a .png, .svg or .pdf.")
@catalog_option
@json_option
def matrix(picture: Path | None, catalog: str, as_json: bool) -> None:
    """Print the accuracy matrix: the score on each task after learning each task, and the measures of forgetting."""
    from multiprompt.reports.measures import measures

    found = open_workspace(catalog, create=False).matrix()
    if picture is not None:
        from multiprompt.reports.plot import plot_matrix

        plot_matrix(found, picture)
        echo(f"wrote {picture}")
    elif as_json:
        print_json({**asdict(found), "measures": measures(found)})
    else:
        print_matrix(found)
        print_table(
            ("measure", "value", "formula", "source"), [(m.name, m.value, m.formula, m.source) for m in measures(found)]
        )


@cli.command()
@click.argument("task")
@click.option("--to", type=int, metavar="V", help="The version to publish again; by default the one retired last.")
@reason_option
@force_option
@catalog_option
def rollback(task: str, to: int | None, reason: str, force: bool, catalog: str) -> None:
    """Publish an earlier version of a task again."""
    version = open_workspace(catalog, create=False).rollback(task, to, reason, force=force)
    echo(f"{version.label} is published")


@cli.command()
@click.argument("label", metavar="TASK[@V]")
@reason_option
@force_option
@catalog_option
def publish(label: str, reason: str, force: bool, catalog: str) -> None:
    """Publish a candidate that was held: its task is guarded, or it did not learn."""
    version = open_workspace(catalog, create=False).publish(label, reason, force=force)
    echo(f"{version.label} is published")


@cli.command()
@click.argument("task")
@click.option("--off", is_flag=True, help="Guard it no longer.")
@reason_option
@catalog_option
def guard(task: str, off: bool, reason: str, catalog: str) -> None:
    """Hold new versions of TASK until `publish --force --reason` publishes one."""
    open_workspace(catalog, create=False).guard(task, not off, reason)
    echo(f"{task} is {'guarded no longer' if off else 'guarded'}")


@cli.command()
@click.argument("task")
@click.argument("text")
@catalog_option
def note(task: str, text: str, catalog: str) -> None:
    """Keep a note on TASK among its events; `tasks "matches('…')"` finds it."""
    open_workspace(catalog, create=False).note(task, text)
    echo(f"noted on {task}")


@cli.command()
@click.argument("label", metavar="TASK[@V]")
@click.argument("folder", type=click.Path(path_type=Path))
@catalog_option
def export(label: str, folder: Path, catalog: str) -> None:
    """Write a version as a PEFT adapter folder."""
    with working(catalog) as workspace:
        target = workspace.export(label, folder)
    echo(f"wrote {target}")


@cli.command("import")
@click.argument("task")
@click.argument("folder", type=click.Path(path_type=Path))
@catalog_option
@hub_metrics_option
@json_option
def import_adapter(task: str, folder: Path, catalog: str, hub_metrics: bool, as_json: bool) -> None:
    """Take a PEFT adapter of any prompt method as a new version; it is checked like a trained one."""
    with working(catalog, hub_metrics=hub_metrics) as workspace:
        report = workspace.import_adapter(task, folder)
    if as_json:
        print_json(report)
    else:
        print_learned(report)
    sys.exit(0 if report.published else 1)


def _engine_line(fallback: str | None) -> str:
    if fallback:
        return f"engine       plain forward, a row at a time, as the packed one is wrong here: {fallback}"
    return "engine       packed forward" if fallback == "" else "engine       not loaded yet"


@dataclass(frozen=True)
class _InputRow:
    """A row of --input, with the line that it begins on and the label that it asks."""

    line: int
    label: str
    fields: dict[str, Any]


def _read_rows(source: Any, task: str | None) -> list[_InputRow]:
    """Rows as training reads them from a data file, each with the name of its task."""
    from multiprompt.tasks.formats import read_rows
    from multiprompt.tasks.rows import MAX_SPLIT_ROWS
    from multiprompt.tasks.streams import FileStream

    rows = []
    try:
        for line, row in read_rows(FileStream(source), "json", []):
            name = task or row.pop("task", None)
            if not isinstance(name, str):
                raise NotFoundError(f'line {line} of --input names no task: add "task", or give TASK before --input.')
            rows.append(_InputRow(line, name, row))
            if len(rows) > MAX_SPLIT_ROWS:
                raise DataError(f"it holds over {MAX_SPLIT_ROWS} rows; use fewer at a time.")
    except DataError as error:
        raise DataError(f"--input: {error}") from None
    if not rows:
        raise DataError("--input holds no rows.")
    return _with_all_fields(rows)


def _with_all_fields(rows: list[_InputRow]) -> list[_InputRow]:
    """The rows, each with every field that rows of its label have, as in a split: one that it lacks is None."""
    from multiprompt.tasks.rows import MAX_MISSING_VALUES

    names: dict[str, dict[str, None]] = {}
    for row in rows:
        names.setdefault(row.label, {}).update(dict.fromkeys(row.fields))
    if sum(len(names[row.label]) - len(row.fields) for row in rows) > MAX_MISSING_VALUES:
        raise DataError(f"the rows of --input lack over {MAX_MISSING_VALUES} values; give each row the same fields.")
    return [replace(row, fields=names[row.label] | row.fields) for row in rows]


def _refuse_other_tasks(workspace: Workspace, label: str, rows: list[_InputRow]) -> None:
    """Raises DataError where a row's "task" names another task or version of the catalog, unless `label` reads it."""
    own = parse_label(label)[0]
    named = {row.fields["task"]: row.line for row in reversed(rows) if isinstance(row.fields.get("task"), str)}
    known = {record.name for record in workspace.tasks()} if named.keys() - {own, label} else set()
    others = [name for name in named if name not in (own, label) and name.partition("@")[0] in known]
    if others and "task" not in workspace.catalog.task_file(workspace.version(label)).fields:
        first = min(others, key=named.__getitem__)
        raise DataError(
            f"line {named[first]} of --input names the task {first}, but TASK is {label}; leave TASK out, and "
            "each row is answered by the task that it names."
        )


def _on_line(line: int, prediction: Prediction) -> Prediction:
    """A prediction whose error names the line of --input."""
    error = prediction.error
    return prediction if error is None else replace(prediction, error=f"line {line} of --input: {error}")
