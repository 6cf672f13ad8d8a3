"""Every series of a counter is there before its first event, and no event makes another one."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import pytest
from prometheus_client import CollectorRegistry, Counter

import redserve
import redserve_encoder
import redserve_llm
import redserve_router
from redserve.errors import ALL_ERRORS, RedServeError
from redserve.telemetry import words
from redserve.telemetry.first_token import PARTS
from redserve.telemetry.metrics.discovery import DiscoveryMetrics
from redserve.telemetry.metrics.encoder import EncoderMetrics
from redserve.telemetry.metrics.llm import LLMMetrics
from redserve.telemetry.metrics.router import RouterMetrics
from redserve.telemetry.metrics.transport import TransportMetrics
from redserve.wire.errors import CONTENT_MISSING
from redserve_router.discovery.problem import Kind
from redserve_router.dispatch.item_state import Outcome
from redserve_router.dispatch.retry_policy import may_try_again

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS: Final = (RouterMetrics, DiscoveryMetrics, EncoderMetrics, LLMMetrics, TransportMetrics)
PACKAGES: Final = (redserve, redserve_encoder, redserve_llm, redserve_router)
DECLARED: Final[dict[str, set[tuple[str, ...]]]] = {
    "redserve_requests": {(code,) for code in words.CODES},
    "redserve_items": {(outcome,) for outcome in words.ITEM_OUTCOMES},
    "redserve_item_retries": {(why,) for why in words.RETRIES},
    "redserve_discovery_problems": {(kind,) for kind in words.DISCOVERY_PROBLEMS},
    "redserve_encode_errors": {(reason,) for reason in words.ENCODE_ERRORS},
    "redserve_items_dropped": {(why,) for why in words.DROPS},
    "redserve_transport_check_failures": {(reason,) for reason in words.REASONS},
    "redserve_transport_errors": {("grpc", reason) for reason in words.REASONS},
    "redserve_transport_bytes": {("grpc", "in")},
    # Of promises of a manifest: see the router's ledger and its tests.
    "redserve_slo_events": set(),
}


def counters() -> Iterator[Counter]:
    for kind in KINDS:
        metrics = kind(CollectorRegistry())
        if isinstance(metrics, TransportMetrics):
            metrics.begin_pulls("grpc")
        for metric in vars(metrics).values():
            if isinstance(metric, Counter) and metric._labelnames:
                yield metric


def series(metric: Any) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels[label] for label in metric._labelnames): sample.value
        for family in metric.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }


def test_all_words_are_there_at_zero() -> None:
    found = {metric._name: series(metric) for metric in counters()}
    assert found.keys() == DECLARED.keys()
    for name, values in DECLARED.items():
        assert found[name] == dict.fromkeys(values, 0.0), name


def test_parts_of_latencies_are_there_too() -> None:
    metrics = RouterMetrics(CollectorRegistry())
    for metric, parts in (
        (metrics.first_token_part, set(PARTS)),
        (metrics.transport_item, {"exposed", "hidden"}),
    ):
        assert {labels[0] for labels in metric._metrics} == parts


def test_there_are_not_too_many() -> None:
    assert max(len(series(metric)) for metric in counters()) <= 24


def errors(kind: type[RedServeError] = RedServeError) -> set[type[RedServeError]]:
    return {kind}.union(*(errors(one) for one in kind.__subclasses__()))


@pytest.fixture(scope="module")
def every_error() -> set[type[RedServeError]]:
    """Those of the tree, and what modules make of them for themselves."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    return {kind for kind in errors() if not kind.__module__.startswith("tests.")}


def test_no_error_has_a_word_of_its_own(every_error: set[type[RedServeError]]) -> None:
    assert every_error > set(ALL_ERRORS)
    for kind in every_error:
        assert kind.grpc_code in words.CODES, kind
        assert kind.reason in words.ENCODE_ERRORS, kind
    # This one stays in encoders, which answer with its word.
    others = {kind for kind in every_error if kind.reason != CONTENT_MISSING}
    assert {kind.__module__ for kind in every_error - others} == {"redserve_encoder.pictures"}
    for kind in others:
        assert kind.reason in words.REASONS, kind
        assert kind.reason.lower() in words.DROPS, kind


def test_retries_are_of_what_may_be_mended() -> None:
    mended = {kind.reason.lower() for kind in ALL_ERRORS if may_try_again(kind(""), 1)}
    assert mended == set(words.RETRIES) - {words.NEEDED_AGAIN, words.CONTENT_MISSING}


def test_words_are_those_of_the_services() -> None:
    assert set(words.ITEM_OUTCOMES) == {outcome.value for outcome in Outcome}
    assert set(words.DISCOVERY_PROBLEMS) == set(get_args(Kind))
    assert CONTENT_MISSING in words.ENCODE_ERRORS


def counted(metrics: set[str]) -> Iterator[tuple[str, set[str]]]:
    """Attribute and written words of every place where one of these counts something."""
    for package in PACKAGES:
        for path in Path(package.__path__[0]).rglob("*.py"):
            for call in ast.walk(ast.parse(path.read_text())):
                match call:
                    case ast.Call(
                        func=ast.Attribute(value=ast.Attribute(attr=name), attr="labels")
                    ):
                        said = [*call.args, *(keyword.value for keyword in call.keywords)]
                        if name in metrics:
                            yield (
                                name,
                                {str(one.value) for one in said if isinstance(one, ast.Constant)},
                            )


def test_the_code_says_no_word_that_is_not_declared() -> None:
    kept_elsewhere = {"out", "good", "bad"}  # by producers, and by the router's ledger
    named = {
        attribute: metric._name
        for kind in KINDS
        for attribute, metric in vars(kind(CollectorRegistry())).items()
        if metric._name in DECLARED
    }
    places = list(counted(set(named)))
    assert len(places) > 10
    for attribute, said in places:
        assert said <= kept_elsewhere.union(*DECLARED[named[attribute]]), attribute
