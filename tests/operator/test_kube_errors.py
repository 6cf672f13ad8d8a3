from __future__ import annotations

import json

import pytest

from redserve_operator.kube.errors import (
    Conflict,
    Forbidden,
    Invalid,
    KubeError,
    NamespaceEnds,
    NotFound,
    Retryable,
    Unauthorized,
    error_from,
)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Invalid), (401, Unauthorized), (403, Forbidden), (404, NotFound), (409, Conflict),
        (415, Invalid), (418, KubeError), (422, Invalid), (429, Retryable), (500, Retryable),
        (502, Retryable), (503, Retryable), (504, Retryable), (599, Retryable),
    ],
)  # fmt: skip
def test_each_status_has_its_kind(status: int, kind: type[KubeError]) -> None:
    body = json.dumps({"kind": "Status", "message": "no", "reason": "Because"}).encode()
    error = error_from(status, body, None)
    assert type(error) is kind
    assert (error.message, error.reason, error.status) == ("no", "Because", status)


@pytest.mark.parametrize(
    ("header", "details", "expected"),
    [
        ("7", {}, 7.0),
        (None, {"retryAfterSeconds": 3}, 3.0),
        ("Wed, 21 Oct", {}, None),
        ("0", {}, None),
    ],
)
def test_when_to_come_back(header: str | None, details: object, expected: float | None) -> None:
    body = json.dumps({"message": "busy", "details": details}).encode()
    assert error_from(429, body, header).retry_after_s == expected


def test_a_proxy_in_between_may_say_anything() -> None:
    assert error_from(502, b"<html>bad gateway</html>", None).message.startswith("<html>")
    assert error_from(502, b"", None).message == "HTTP 502"
    assert error_from(500, b"[1]", None).message == "[1]"


def test_a_missing_right_is_not_an_admission() -> None:
    right = 'pods is forbidden: User "op" cannot create resource "pods" in API group ""'
    security = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": privileged'
    quota = 'pods "x" is forbidden: exceeded quota: gpus, requested: 1'
    assert not Forbidden(right).by_admission
    assert Forbidden(security).by_admission
    assert not Forbidden(security).by_quota
    assert Forbidden(quota).by_admission
    assert Forbidden(quota).by_quota


def test_a_namespace_that_ends_is_no_refusal() -> None:
    message = "unable to create new content in namespace x because it is being terminated"
    error = error_from(403, json.dumps({"message": message}).encode(), None)
    assert type(error) is NamespaceEnds


def test_a_field_that_the_api_server_does_not_know_is_wrong_for_good() -> None:
    sentence = "failed to create typed patch object (ns/x; apps/v1, Kind=Deployment): .spec.nope"
    body = json.dumps({"kind": "Status", "message": sentence}).encode()
    error = error_from(500, body, None)
    assert type(error) is Invalid
    assert error.message == sentence
