"""Probes: what is asked of a container, how often, and what its answers amount to."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tools.kubernetes.async_api import JsonObject

_HTTP_WELL: Final = range(200, 400)


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """How often a container is asked, and how many answers count.

    Attributes:
        initial_delay_s, period_s, timeout_s: Seconds.
        success_threshold, failure_threshold: Equal answers in a row that make a verdict.
        grace_s: Grace period of the restart that a failed liveness or startup probe causes; None
            is the pod's.
    """

    initial_delay_s: float = 0.0
    period_s: float = 10.0
    timeout_s: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3
    grace_s: float | None = None

    @classmethod
    def of(cls, probe: JsonObject) -> ProbePlan:
        """From a container's probe."""
        return cls(
            probe.get("initialDelaySeconds", 0),
            probe.get("periodSeconds", 10),
            probe.get("timeoutSeconds", 1),
            probe.get("successThreshold", 1),
            probe.get("failureThreshold", 3),
            probe.get("terminationGracePeriodSeconds"),
        )


@dataclass(slots=True)
class Verdict:
    """Counts answers; its value changes only after enough of the same in a row.

    Attributes:
        plan: The thresholds.
        value: True, False, or None as long as nothing is known.
    """

    plan: ProbePlan
    value: bool | None = None
    _last: bool | None = field(default=None, init=False)
    _in_a_row: int = field(default=0, init=False)

    def hear(self, *, well: bool) -> bool | None:
        """Count one answer; returns the value after it."""
        self._in_a_row = self._in_a_row + 1 if well == self._last else 1
        self._last = well
        needed = self.plan.success_threshold if well else self.plan.failure_threshold
        if self._in_a_row >= needed:
            self.value = well
        return self.value


@dataclass(frozen=True, slots=True)
class Target:
    """Whom a probe asks.

    Attributes:
        ip: Address of the pod.
        ports: The container's ports by name.
        execute: Runs a command in the container; its exit code and output.
    """

    ip: str
    ports: dict[str, int]
    execute: Callable[[Sequence[str]], Awaitable[tuple[int, str]]]

    def port(self, wanted: int | str) -> int:
        """A port by its number or name."""
        return wanted if isinstance(wanted, int) else self.ports[wanted]


async def ask(probe: JsonObject, target: Target, timeout_s: float) -> tuple[bool, str]:
    """Ask once: whether the container is well, and what was heard where it is not."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _ask(probe, target, timeout_s)
    except TimeoutError:
        return False, f"no answer within {timeout_s:g} s"
    except (OSError, KeyError, aiohttp.ClientError) as error:
        return False, repr(error)


async def _ask(probe: JsonObject, target: Target, timeout_s: float) -> tuple[bool, str]:
    if action := probe.get("grpc"):
        # In a thread: grpc.aio wants to be at home in one event loop only, and that is the tests'.
        address = f"{target.ip}:{action['port']}"
        return await asyncio.to_thread(_ask_grpc, address, action.get("service") or "", timeout_s)
    if action := probe.get("httpGet"):
        return await _ask_http(action, target)
    if action := probe.get("tcpSocket"):
        host, port = action.get("host") or target.ip, target.port(action["port"])
        _, writer = await asyncio.open_connection(host, port, family=socket.AF_INET)
        writer.close()
        return True, ""
    code, output = await target.execute(probe["exec"]["command"])
    return code == 0, f"exit code {code}: {output}"


def _ask_grpc(address: str, service: str, timeout_s: float) -> tuple[bool, str]:
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout_s)
        except grpc.RpcError as error:
            return False, str(error.details() or error.code())
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return name == "SERVING", f"service {service!r} is {name}"


async def _ask_http(action: JsonObject, target: Target) -> tuple[bool, str]:
    scheme = action.get("scheme", "HTTP").lower()
    host, port = action.get("host") or target.ip, target.port(action["port"])
    url = f"{scheme}://{host}:{port}{action.get('path', '/')}"
    headers = {item["name"]: item["value"] for item in action.get("httpHeaders", [])}
    options: dict[str, Any] = {"headers": headers, "ssl": False, "allow_redirects": False}
    async with aiohttp.ClientSession() as session, session.get(url, **options) as answer:
        return answer.status in _HTTP_WELL, f"HTTP status {answer.status}"
