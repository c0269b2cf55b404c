"""Verdicts as JUnit XML, which CI systems show beside their tests: one test case a gate.

The order of elements and their attributes are those that both common schemas take: Apache Ant's JUnit task
(github.com/windyroad/JUnit-Schema) and Jenkins' xUnit plugin. A gate that fails is a `failure`; one that is
inconclusive is an `error` of the type "inconclusive": it is no pass, and `skipped` would hide it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as Xml

from compress.report.derived import verdicts
from compress.report.derived.recorded import Json

_KINDS = {"fails": "failure", "inconclusive": "error"}
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no place for, not even escaped (section 2.2)."""


def to_junit(report: Mapping[str, Any]) -> str:
    """The gates of a report, `Report.as_dict()` or report.json read back, as one test suite."""
    gates: Sequence[Json] = report["gates"]
    count = Counter(_KINDS.get(gate["verdict"], "") for gate in gates)
    sums = {"tests": len(gates), "failures": count["failure"], "errors": count["error"]}
    # The stricter schema has no attributes here.
    root = _element(None, "testsuites")
    date = str((report.get("made") or {}).get("date") or "1970-01-01T00:00:00")[:19]
    about = {"name": report["name"], "package": "segpress", "timestamp": date, "hostname": "localhost", "time": "0"}
    suite = _element(root, "testsuite", id=0, **about, **sums)
    properties = _element(suite, "properties")
    for name, value in {"seed": report["seed"], **report["versions"]}.items():
        _element(properties, "property", name=name, value=value)
    for name, gate in zip(_names(gates), gates, strict=True):
        _case(suite, name, report["name"], gate)
    _element(suite, "system-out").text = _clean(verdicts.conclusion(report).sentence)
    _element(suite, "system-err")
    Xml.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{Xml.tostring(root, encoding="unicode")}\n'


def _names(gates: Sequence[Json]) -> Iterator[str]:
    """What each is called from run to run, whatever its limit; two of one name, as two percentiles, are numbered."""
    seen: Counter[str] = Counter()
    for gate in gates:
        name = verdicts.named(gate)
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name} ({seen[name]})"


def _case(suite: Xml.Element, name: str, run: str, gate: Json) -> None:
    case = _element(suite, "testcase", name=name, classname=f"segpress.{run}", time="0")
    kind = _KINDS.get(gate["verdict"])
    if kind:
        value, upper, limit = verdicts.in_numbers(gate)
        why = f": {gate['reason']}" if gate["reason"] else ""
        fault = _element(case, kind, type=gate["verdict"], message=f"{gate['verdict']}: {value}, {limit}{why}")
        fault.text = _clean(f"value {value}, upper limit {upper}, limit {limit}{why}")


def _element(parent: Xml.Element | None, tag: str, **attributes: Any) -> Xml.Element:
    plain = {name: _clean(str(value)) for name, value in attributes.items()}
    return Xml.Element(tag, plain) if parent is None else Xml.SubElement(parent, tag, plain)


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
