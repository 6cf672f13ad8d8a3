"""The table of reasons is complete, and nothing says what is not in it."""

from __future__ import annotations

import re
from typing import Any

from redserve.spec.status import CONDITIONS as DOCUMENTED
from redserve_operator.decide import event_kinds, reasons
from tests.operator.decide.golden_files import SCENES
from tests.spec.manifests import ROOT


def test_names_are_words_and_meanings_are_sentences():
    everything: list[Any] = [*reasons.REASONS, *event_kinds.EVENTS]
    for one in everything:
        if one is not reasons.CHECKS:
            assert re.fullmatch(r"[A-Z][A-Za-z]+", one.name)
        assert one.meaning.endswith(".")
        assert one.meaning[0].isupper() or one.meaning.startswith("reconcile")
    names = [reason.name for reason in reasons.REASONS]
    assert len(names) == len(set(names))


def test_every_reason_and_event_is_in_its_table():
    told = {one for one in vars(reasons).values() if isinstance(one, reasons.Reason)}
    assert told == set(reasons.REASONS)
    events = {one for one in vars(event_kinds).values() if isinstance(one, event_kinds.EventKind)}
    assert events | set(event_kinds.SCALED.values()) == set(event_kinds.EVENTS)


def test_the_troubleshooting_page_knows_every_word():
    page = (ROOT / "docs/how-to/kubernetes-troubleshooting.md").read_text()
    names = [one.name for one in reasons.REASONS if one is not reasons.CHECKS]
    names += [one.name for one in event_kinds.EVENTS]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_conditions_are_those_of_the_definition():
    assert tuple(DOCUMENTED) == reasons.CONDITIONS
    assert all(set(one.conditions) <= set(reasons.CONDITIONS) for one in reasons.REASONS)


def test_conditions_use_reasons_that_are_listed_for_them():
    allowed = {(kind, one.name) for one in reasons.REASONS for kind in one.conditions}
    for scene in SCENES.values():
        status = scene().plan().status or {}
        for condition in status.get("conditions", ()):
            if condition["reason"] != "TransportUnsupported":
                assert (condition["type"], condition["reason"]) in allowed
