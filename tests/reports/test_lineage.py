"""Drawings of a lineage: names in them are text, whatever they hold."""

from __future__ import annotations

from multiprompt.records import Edge
from multiprompt.reports import lineage


def test_a_name_is_no_markup_of_mermaid() -> None:
    name = 'a"]; click n0 "x" <b>#1\n`@1'
    drawn = lineage.mermaid([Edge(name, "retrained-from", "b@1")], [name])
    (line,) = [line for line in drawn.splitlines() if "click" in line]
    label = line.partition("[")[2].rpartition("]")[0]
    assert label[0] == label[-1] == '"'
    assert not set('"<>`\n') & set(label[1:-1])
    assert label[1:-1].startswith("a#34;]; click n0 #34;x#34; #60;b#62;#35;1#10;")
