"""From a question to a sequence that can run: every span known, nothing encoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from redserve.errors import Unavailable
from redserve.routing import RequestFacts
from redserve.telemetry.clock import now_ns
from redserve_router.prompt import check_item_sizes, resolve_sampling

if TYPE_CHECKING:
    from redserve.domain import Item, SamplingParams
    from redserve_router.clients.llm import LlmInfo
    from redserve_router.deadline import Deadline
    from redserve_router.dispatch.services import RouterServices
    from redserve_router.media.collect import Picture
    from redserve_router.question import Question
    from redserve_router.timelines import TimelineBuilder


@dataclass(frozen=True, slots=True)
class Prepared:
    """A sequence that can run.

    Attributes:
        fingerprint: Of the checkpoint that answers. A request stays with it, for tokens of one
            checkpoint must never meet rows of another.
        token_ids: Prompt with every placeholder expanded.
        pictures: One per item.
    """

    fingerprint: str
    token_ids: tuple[int, ...]
    items: tuple[Item, ...]
    pictures: tuple[Picture, ...]
    sampling: SamplingParams
    facts: RequestFacts


async def prepare(
    question: Question, services: RouterServices, deadline: Deadline, timeline: TimelineBuilder
) -> Prepared:
    """Read the pictures, ask for their rows, render and tokenize.

    Raises:
        InvalidArgument: The question is wrong; names its field.
        Unavailable: A pool that is needed is away for longer than the router waits.
    """
    start_ns = now_ns()
    pictures = await services.collector.collect(question.messages)
    if pictures:
        timeline.add("preprocess", start_ns, detail=f"{len(pictures)} images")
    info = await _find_checkpoint(services, needs_encoder=bool(pictures))
    described_ns = now_ns()
    metadata = await services.metadata.of(pictures, info.fingerprint, deadline)
    if pictures:
        timeline.add("describe", described_ns)
    tokenize_ns = now_ns()
    prompt = await services.prompts.build(question.messages, pictures, metadata, info.max_tokens)
    timeline.add("tokenize", tokenize_ns, num_tokens=len(prompt.token_ids))
    sampling = resolve_sampling(question, info, len(prompt.token_ids))
    _check_sizes(services, info, prompt.items, pictures)
    facts = RequestFacts.of(prompt.token_ids, prompt.items, sampling.max_tokens)
    services.metrics.preprocess.observe((now_ns() - start_ns) / 1e9)
    return Prepared(info.fingerprint, prompt.token_ids, prompt.items, pictures, sampling, facts)


async def _find_checkpoint(services: RouterServices, *, needs_encoder: bool) -> LlmInfo:
    """The checkpoint that answers; each pool is waited for as long as its own grace says."""
    pools, limits = services.pools, services.limits
    info = await pools.find(lambda: pools.checkpoint(needs_encoder=False), limits.llm_grace_s)
    if info is not None and needs_encoder:
        info = await pools.find(
            lambda: pools.checkpoint(needs_encoder=True), limits.encoder_grace_s
        )
    if info is None:
        raise Unavailable(pools.why_not_ready or "the replicas are changing", retry_after_s=1.0)
    return info


def _check_sizes(
    services: RouterServices,
    info: LlmInfo,
    items: tuple[Item, ...],
    pictures: tuple[Picture, ...],
) -> None:
    if not items:
        return
    for encoder in services.pools.serving_encoders(info.fingerprint)[:1]:
        if encoder.info is not None:
            check_item_sizes(items, pictures, encoder.info.row_bytes, info.max_item_bytes)
