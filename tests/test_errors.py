from __future__ import annotations

import inspect

import grpc
import pytest

from redserve import errors
from redserve.errors import ALL_ERRORS, RedServeError, Unavailable


def test_every_concrete_error_is_listed_once():
    classes = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, RedServeError) and kind is not RedServeError
    }
    assert set(ALL_ERRORS) == classes
    assert len(ALL_ERRORS) == len(classes)


def test_reasons_are_unique_words():
    reasons = [kind.reason for kind in ALL_ERRORS]
    assert len(set(reasons)) == len(reasons)
    assert all(reason.replace("_", "").isalpha() and reason.isupper() for reason in reasons)


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_codes_exist_and_only_transient_errors_are_retryable(kind: type[RedServeError]):
    assert kind.grpc_code in grpc.StatusCode.__members__
    assert 400 <= kind.http_status < 600
    assert kind.retryable == (kind.grpc_code in {"UNAVAILABLE", "RESOURCE_EXHAUSTED"})


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_the_docstring_tree_names_every_error(kind: type[RedServeError]):
    assert errors.__doc__ is not None
    assert f"── {kind.__name__} " in errors.__doc__


def test_what_a_transfer_may_raise_is_unavailable():
    for kind in (errors.PeerLost, errors.TensorGone, errors.CorruptTransfer):
        assert issubclass(kind, Unavailable)


def test_text_names_the_field():
    assert str(errors.InvalidArgument("must be positive", field="a.b")) == "a.b: must be positive"
    assert str(errors.Overloaded("full", retry_after_s=2.0)) == "full"
