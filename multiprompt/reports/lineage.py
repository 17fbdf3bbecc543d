"""Lineage drawn and written down: a tree, a mermaid flowchart, Graphviz, W3C PROV-JSON and OpenLineage events."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit
from uuid import NAMESPACE_URL, uuid5

from multiprompt.catalog.catalog import Catalog
from multiprompt.catalog.labels import parse_label
from multiprompt.errors import ConfigError, counted
from multiprompt.records import Edge, VersionRecord

NAMESPACE = "https://multiprompt.invalid/"
# The relations to a version's materials; the other edges lead to its parents.
MATERIALS = ("runs-on", "trained-on", "validated-on", "evaluated-on", "made-by", "asked-by")
_READ = ("runs-on", "trained-on", "validated-on", "evaluated-on")


def draw(catalog: Catalog, label: str, form: str) -> str:
    """The lineage of a version, or of all of a task's, as "tree", "mermaid", "dot", "prov" or "openlineage".

    Raises ConfigError for another form.
    """
    name, number = parse_label(label)
    edges = named_lineage(catalog, name, number)
    if form in ("prov", "openlineage"):
        versions = {version.label: version for version in catalog.versions.with_labels({edge.child for edge in edges})}
        return {"prov": prov_json, "openlineage": openlineage}[form](edges, versions)
    drawings = {"tree": tree, "mermaid": mermaid, "dot": dot}
    if form not in drawings:
        raise ConfigError(f"no form {form!r}: give tree, mermaid, dot, prov or openlineage.")
    start = [version.label for version in catalog.versions.of(name) if number in (None, version.number)]
    return drawings[form](edges, start)


def named_lineage(catalog: Catalog, task: str, number: int | None = None) -> list[Edge]:
    """The edges of a version, or of all of a task's; data and base models have names."""
    edges = catalog.lineage.of(task, number)
    children = {version.label: version for version in catalog.versions.with_labels({edge.child for edge in edges})}
    files = {label: catalog.versions.task(version).data.data_files or {} for label, version in children.items()}
    return [_named(edge, children[edge.child].base_model.name, files[edge.child]) for edge in edges]


def _named(edge: Edge, base_model: str, files: Mapping[str, Sequence[str]]) -> Edge:
    short = _short(edge.parent)
    if edge.relation == "runs-on":
        return replace(edge, name=f"{base_model}, {short}")
    if edge.split is None or edge.rows is None:
        return edge
    split, held_out, _ = edge.split.partition("[")
    paths = [PurePosixPath(urlsplit(path).path).name for path in files.get(split, ())]
    source = ", ".join(paths) or f"split {split}"
    part = " (held out)" if held_out else ""
    return replace(edge, name=f"{source}{part}, {counted(edge.rows, 'row')}, {short}")


def tree(edges: Sequence[Edge], start: Sequence[str]) -> str:
    """Each version with its parents indented below it, and what it is made of."""
    return "\n".join(line for root in start for line in _branch(root, edges, "", "", frozenset()))


def mermaid(edges: Sequence[Edge], start: Sequence[str]) -> str:
    """A flowchart for Markdown."""
    ids = _ids(edges, start)
    told = _told(edges)
    nodes = [f'    {ids[name]}["{_entities(told.get(name) or _short(name))}"]' for name in ids]
    arrows = [f"    {ids[edge.parent]} -->|{edge.relation}| {ids[edge.child]}" for edge in edges]
    return "\n".join(["flowchart TD", *nodes, *arrows])


def dot(edges: Sequence[Edge], start: Sequence[str]) -> str:
    """A digraph for Graphviz."""
    ids = _ids(edges, start)
    told = _told(edges)
    nodes = [f"  {ids[name]} [label={_quoted(told.get(name) or _short(name))}];" for name in ids]
    arrows = [f'  {ids[edge.parent]} -> {ids[edge.child]} [label="{edge.relation}"];' for edge in edges]
    return "\n".join(["digraph lineage {", *nodes, *arrows, "}"])


def prov_json(edges: Sequence[Edge], versions: Mapping[str, VersionRecord]) -> str:
    """W3C PROV-JSON: versions, data and base models are entities, runs are activities.

    Raises ConfigError when the package prov is not installed.
    """
    try:
        from prov.model import ProvDocument
    except ModuleNotFoundError:
        raise ConfigError("PROV-JSON needs the package prov: pip install 'multiprompt[lineage]'.") from None
    document = ProvDocument()
    document.add_namespace("mp", NAMESPACE)
    for name in _ids(edges, []):
        version = versions.get(name)
        facts: dict[Any, Any] = {"prov:label": name}
        if version is not None:
            facts |= {"mp:digest": version.digest, "mp:method": version.method}
        if not _is_activity(name, edges):
            document.entity(_identifier(name), facts)
    for edge in edges:
        child, parent = _identifier(edge.child), _identifier(edge.parent)
        if edge.relation == "made-by":
            document.activity(parent, endTime=versions[edge.child].created_at)
            document.wasGeneratedBy(child, parent)
            for used in edges:
                if used.child == edge.child and used.relation in _READ:
                    document.used(parent, _identifier(used.parent))
        elif edge.relation == "asked-by":
            document.wasAttributedTo(child, document.agent(parent))
        else:
            document.wasDerivedFrom(child, parent, other_attributes={"prov:type": edge.relation})
    return str(document.serialize(indent=2))


def openlineage(edges: Sequence[Edge], versions: Mapping[str, VersionRecord]) -> str:
    """OpenLineage run events, one a version, as a JSON list.

    Raises ConfigError when the package openlineage-python is not installed.
    """
    try:
        from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
        from openlineage.client.serde import Serde
    except ModuleNotFoundError:
        raise ConfigError("OpenLineage needs openlineage-python: pip install 'multiprompt[lineage]'.") from None
    events = []
    for label, version in versions.items():
        read = [edge.parent for edge in edges if edge.child == label and edge.relation not in ("made-by", "asked-by")]
        events.append(
            RunEvent(
                eventType=RunState.COMPLETE,
                eventTime=version.created_at.isoformat(),
                run=Run(str(uuid5(NAMESPACE_URL, f"{NAMESPACE}{label}/{version.digest}"))),
                job=Job("multiprompt", f"learn.{version.task}"),
                producer=NAMESPACE,
                inputs=[InputDataset("multiprompt", parent) for parent in dict.fromkeys(read)],
                outputs=[OutputDataset("multiprompt", label)],
            )
        )
    return json.dumps([Serde.to_dict(event) for event in events], indent=2)


def _branch(name: str, edges: Sequence[Edge], relation: str, indent: str, seen: frozenset[str]) -> list[str]:
    lines = [f"{indent}{_short(name)}" + f"  ({relation})" * bool(relation)]
    mine = [edge for edge in edges if edge.child == name and name not in seen]
    made_of = [edge for edge in mine if edge.relation in MATERIALS and not indent]
    lines += [f"  {edge.name or _short(edge.parent)}  ({edge.relation})" for edge in made_of]
    for edge in mine:
        if edge.relation not in MATERIALS:
            lines += _branch(edge.parent, edges, edge.relation, f"{indent}  ", seen | {name})
    return lines


def _ids(edges: Sequence[Edge], start: Sequence[str]) -> dict[str, str]:
    names = dict.fromkeys([*start, *(name for edge in edges for name in (edge.parent, edge.child))])
    return {name: f"n{i}" for i, name in enumerate(names)}


def _is_activity(name: str, edges: Sequence[Edge]) -> bool:
    return any(edge.parent == name and edge.relation in ("made-by", "asked-by") for edge in edges)


def _identifier(name: str) -> Any:
    return f"mp:{uuid5(NAMESPACE_URL, NAMESPACE + name)}"


def _told(edges: Sequence[Edge]) -> dict[str, str | None]:
    """The names of parents that have one."""
    return {edge.parent: edge.name for edge in edges}


def _short(name: str) -> str:
    return f"{name[:19]}…" if name.startswith("sha256:") else name


def _entities(name: str) -> str:
    """A label of mermaid, which knows no backslash: what would end it, or be markup, by its number."""
    return "".join(c if c.isprintable() and c not in '"#<>&`' else f"#{ord(c)};" for c in name)


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)
