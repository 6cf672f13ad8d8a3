"""The command line of `redserve bench`, and what it asks for."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from redserve.bench.clients.base import Manners
from redserve.bench.clients.openai_http import HttpClient, without_login
from redserve.bench.clients.router import GrpcClient
from redserve.bench.numbers import IntRange
from redserve.bench.pictures import media_type
from redserve.bench.questions import DEFAULT_SIZE, DEFAULT_TOKENS, Workload
from redserve.bench.room import room_for_connections
from redserve.bench.run import MAX_INFLIGHT, Plan
from redserve.cli.bench_types import (
    MAX_IMAGES,
    base_url,
    count,
    images,
    not_negative,
    picture_size,
    positive,
    tokens,
    whole,
)
from redserve.cli.common import host_port, read_image
from redserve.errors import ConfigError
from redserve.local.state import find_service
from redserve.spec.manifest import open_manifest
from redserve.spec.objectives import objectives_of
from redserve.spec.settings import runtime_directory

if TYPE_CHECKING:
    import argparse

    from redserve.bench.clients.base import Client
    from redserve.slo import Objective

DEFAULT_IMAGES: Final = IntRange(0, MAX_IMAGES)


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure, how, and what is promised.

    Attributes:
        url: Base address of an OpenAI-compatible server; empty asks a router by gRPC.
        address: gRPC address of a router; empty when there is a URL.
    """

    url: str
    address: str
    api_key: str
    plan: Plan
    workload: Workload
    manners: Manners
    objectives: tuple[Objective, ...]

    def client(self) -> Client:
        """Whoever asks; not connected yet."""
        if self.url:
            return HttpClient(self.url, self.manners, self.api_key)
        return GrpcClient(self.address, self.manners)

    def room(self) -> int:
        """How many requests can be under way at once; raises the limit of open files for it.

        Raises:
            ConfigError: Fewer than the closed loop wants.
        """
        # By gRPC all requests share a connection.
        room = room_for_connections(MAX_INFLIGHT) if self.url else MAX_INFLIGHT
        if self.plan.rate_per_s is None and self.plan.concurrency > room:
            why = "" if room == MAX_INFLIGHT else ": this process may open few files (ulimit -Hn)"
            raise ConfigError(f"{room} at most{why}", field="--concurrency")
        return room

    def facts(self, model: str) -> dict[str, str]:
        """What was run, for people; `model` is the one that answered."""
        plan, work = self.plan, self.workload
        length = f"{plan.num_requests} requests"
        if plan.duration_s is not None:
            length = f"{plan.duration_s:g} s"
        drawn = f"drawn, {work.size}, none twice"
        return {
            "model": model,
            "target": f"{without_login(self.url)} (OpenAI API)"
            if self.url
            else f"{self.address} (gRPC)",
            "load": f"{plan}, {length}, after {plan.num_warm_up} to warm up",
            "seed": str(work.seed),
            "images per request": str(work.images),
            "images": f"{len(work.gallery)} of --image" if work.gallery else drawn,
            "text": f"{work.num_words} words" if work.prompt is None else repr(work.prompt),
            "most output tokens": str(work.max_tokens)
            + (", end tokens ignored" if self.manners.ignore_eos else ""),
            "temperature": f"{self.manners.temperature:g}",
            "deadline": f"{self.manners.timeout_s:g} s",
        }


def add_options(parser: argparse.ArgumentParser) -> None:
    """All options."""
    _add_target(parser)
    _add_load(parser)
    _add_questions(parser)
    told = parser.add_argument_group("what it tells")
    told.add_argument("--report", type=Path, metavar="FILE", help="write a page with plots (HTML)")
    told.add_argument("--json", action="store_true", help="every request too, for machines")


def _add_target(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("whom it asks")
    target = group.add_mutually_exclusive_group()
    target.add_argument(
        "--url", metavar="URL", type=base_url,
        help="base address of an OpenAI-compatible server, for example http://127.0.0.1:8000/v1",
    )  # fmt: skip
    target.add_argument("--address", metavar="HOST:PORT", type=host_port, help="a router by gRPC")
    target.add_argument("--service", metavar="NAME", help="a service that runs here, by gRPC")
    group.add_argument("--model", default="", metavar="NAME", help="default: the one that it lists")
    group.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="with --url: a key to show"
    )
    group.add_argument(
        "-f", "--file", type=Path, metavar="FILE",
        help="manifest with the SLOs that goodput means (default: that of the service here)",
    )  # fmt: skip


def _add_load(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how much, and when")
    loop = group.add_mutually_exclusive_group()
    loop.add_argument(
        "--rate", type=positive, metavar="R", help="open loop: R requests/s on average (Poisson)"
    )
    loop.add_argument(
        "--concurrency", type=count, default=1, metavar="N",
        help="closed loop: N requests at any time (default: 1)",
    )  # fmt: skip
    group.add_argument(
        "--requests", type=count, metavar="N", help="requests that count (default: 100)"
    )
    group.add_argument(
        "--duration", type=positive, metavar="SECONDS", help="send for so long, instead or at most"
    )
    group.add_argument(
        "--warm-up", type=whole, default=5, metavar="N", help="requests before (default: 5)"
    )
    group.add_argument(
        "--timeout", type=positive, default=300.0, metavar="SECONDS",
        help="deadline of a request (default: 300)",
    )  # fmt: skip


def _add_questions(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what it asks")
    group.add_argument(
        "--seed", type=whole, default=0, metavar="N", help="same seed, same questions (default: 0)"
    )
    group.add_argument(
        "--images", type=images, default=DEFAULT_IMAGES, metavar="N-M",
        help=f"images per request, a number or a range (default: {DEFAULT_IMAGES})",
    )  # fmt: skip
    group.add_argument(
        "--image-size", type=picture_size, default=DEFAULT_SIZE, metavar="PIXELS",
        help=f"of images that are drawn: 448 or 640x480 (default: {DEFAULT_SIZE})",
    )  # fmt: skip
    group.add_argument(
        "--image", type=Path, action="append", default=[], metavar="PATH",
        help="choose from these images instead; may be repeated. Caches will know them",
    )  # fmt: skip
    group.add_argument("--prompt", metavar="TEXT", help="ask this each time")
    group.add_argument(
        "--words", type=count, default=32, metavar="N",
        help="words of a question without --prompt (default: 32)",
    )  # fmt: skip
    group.add_argument(
        "--max-tokens", type=tokens, default=DEFAULT_TOKENS, metavar="N-M",
        help=f"most tokens of an answer, a number or a range (default: {DEFAULT_TOKENS})",
    )  # fmt: skip
    group.add_argument(
        "--ignore-eos", action="store_true",
        help="answers always have their most tokens (vLLM and SGLang know it too)",
    )  # fmt: skip
    group.add_argument("--temperature", type=not_negative, default=0.0, metavar="T")


def options_of(arguments: argparse.Namespace) -> Options:
    """What the command line asks for.

    Raises:
        ConfigError: A file cannot be read, or no service runs here.
    """
    address, manifest = _target(arguments)
    key_file: Path | None = arguments.api_key_file
    gallery = tuple(_picture(path) for path in arguments.image)
    return Options(
        url=arguments.url or "",
        address=address,
        api_key=_key(key_file) if key_file is not None else "",
        plan=Plan(
            rate_per_s=arguments.rate,
            concurrency=arguments.concurrency,
            num_requests=_num_requests(arguments),
            duration_s=arguments.duration,
            num_warm_up=arguments.warm_up,
        ),
        workload=Workload(
            seed=arguments.seed,
            images=arguments.images,
            max_tokens=arguments.max_tokens,
            size=arguments.image_size,
            gallery=gallery,
            prompt=arguments.prompt,
            num_words=arguments.words,
        ),
        manners=Manners(
            model=arguments.model,
            temperature=arguments.temperature,
            ignore_eos=arguments.ignore_eos,
            timeout_s=arguments.timeout,
        ),
        objectives=manifest,
    )


def _num_requests(arguments: argparse.Namespace) -> int | None:
    if arguments.requests is None and arguments.duration is None:
        return 100
    requests: int | None = arguments.requests
    return requests


def _target(arguments: argparse.Namespace) -> tuple[str, tuple[Objective, ...]]:
    """The gRPC address, empty with a URL, and the promises."""
    objectives = () if arguments.file is None else _objectives(arguments.file)
    if arguments.url is not None:
        return "", objectives
    if arguments.address is not None:
        return arguments.address, objectives
    state = find_service(runtime_directory(), arguments.service)
    if arguments.file is None:
        try:
            objectives = _objectives(Path(state.manifest))
        except ConfigError as error:
            # The service runs; only its file has changed or gone since it was started.
            print(f"no goodput, for the manifest cannot be read: {error}", file=sys.stderr)
    return state.grpc_address, objectives


def _objectives(path: Path) -> tuple[Objective, ...]:
    return objectives_of(open_manifest(path).service.spec.slos)


def _picture(path: Path) -> bytes:
    data = read_image(path)
    if media_type(data) is None:
        raise ConfigError(f"{path} is no picture of a known format", field="--image")
    return data


def _key(path: Path) -> str:
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read", field="--api-key-file") from error
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"{path} is no key: it may have one line of printable ASCII", field="--api-key-file"
        )
    return key
