"""One forward pass over a micro-batch, with transformers' own model code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from redserve.domain import SequenceKey, SequenceRequest
from redserve.errors import InvalidArgument, Overloaded
from redserve.modeling.positions import prompt_positions
from redserve.scheduling.micro_batch import MicroBatch, ScheduledChunk
from redserve_llm.attention.cpu_sdpa import attend
from redserve_llm.attention.interface import install
from redserve_llm.attention.step import AttentionBackend, AttentionStep, attention_step
from redserve_llm.runner.input_batch import BatchBuilder, PromptPlan
from redserve_llm.runner.interface import ItemRows, RunnerDead, SampledToken
from redserve_llm.runner.sampler import Draw, sample
from redserve_llm.runner.sampling_state import SamplingState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from redserve.modeling.language import LanguagePart
    from redserve_llm.runner.input_batch import InputBatch
    from redserve_llm.runner.interface import RowSource
    from redserve_llm.runner.kv_cache import KVCache

_WARM_UP = SequenceKey("warm-up")


class TorchRunner:
    """A `ModelRunner` on a loaded language side.

    Args:
        part: The language side; its decoder is given our attention and must not be called by
            anybody else afterwards.
        cache: Blocks for its layers, on its device.
        backend: Who computes attention.
        warm_up_tokens: Tokens of the step that `warm_up` runs: the budget on a device whose memory
            has to be proved, few where time matters more.
    """

    def __init__(
        self,
        part: LanguagePart,
        cache: KVCache,
        *,
        backend: AttentionBackend = attend,
        warm_up_tokens: int = 8,
    ) -> None:
        install(part.model)
        self.part = part
        self._cache = cache
        self._backend = backend
        self._warm_up_tokens = warm_up_tokens
        self._plans: dict[SequenceKey, PromptPlan] = {}
        self._sampling: dict[SequenceKey, SamplingState] = {}
        self._builder = BatchBuilder(
            block_size=cache.block_size,
            mrope=part.family.mrope,
            image_token_id=part.image_token_id,
            token_row=_token_row(part),
            device=part.device,
            dtype=part.dtype,
        )

    def add(self, request: SequenceRequest) -> None:
        """See `ModelRunner`."""
        self._check(request)
        grids = [item.grid for item in request.items]
        positions, delta = prompt_positions(self.part, request.token_ids, grids)
        spans: tuple[tuple[int, int], ...] = ()
        if self.part.family.bidirectional_items:
            spans = tuple((span.start, span.end) for item in request.items for span in item.spans)
        self._sampling[request.key] = SamplingState(
            request.sampling,
            request.token_ids,
            request.resume_token_ids,
            self.part.vocab_size,
            self.part.device,
        )
        self._plans[request.key] = PromptPlan(positions, delta, spans)

    def remove(self, key: SequenceKey) -> None:
        """See `ModelRunner`."""
        self._plans.pop(key, None)
        self._sampling.pop(key, None)

    @torch.inference_mode()
    def run(self, batch: MicroBatch, rows: RowSource) -> Mapping[SequenceKey, SampledToken]:
        """See `ModelRunner`."""
        try:
            inputs = self._builder.build(batch, self._plans, rows)
            logits = self._forward(inputs)
            return self._sample(logits, inputs) if inputs.sampling_keys else {}
        except torch.OutOfMemoryError as error:
            raise Overloaded(
                "the device ran out of memory for this step; lower memory_percent or token_budget",
                retry_after_s=1.0,
            ) from error
        except torch.AcceleratorError as error:
            raise RunnerDead(f"the device failed: {error}") from error

    def warm_up(self) -> None:
        """See `ModelRunner`. Writes garbage into the first blocks, which nobody holds yet."""
        num_blocks = min(self._cache.num_blocks, -(-self._warm_up_tokens // self._cache.block_size))
        num_tokens = num_blocks * self._cache.block_size
        self.add(SequenceRequest(_WARM_UP, (_any_text_token(self.part),) * num_tokens))
        blocks = tuple(range(num_blocks))
        try:
            for start in (0, num_tokens - 1):  # a prefill, then a decode
                chunk = ScheduledChunk(
                    key=_WARM_UP,
                    start=start,
                    end=num_tokens,
                    token_ids=(_any_text_token(self.part),) * (num_tokens - start),
                    block_table=blocks,
                    rows=(),
                    samples=True,
                    is_decode=start > 0,
                )
                self.run(MicroBatch(0, (chunk,)), _no_rows)
        finally:
            self.remove(_WARM_UP)

    def _forward(self, inputs: InputBatch) -> Tensor:
        """[k, vocab] logits of the sampling rows."""
        step = AttentionStep(self._cache, inputs.slots, inputs.parts, self._backend)
        extra = {}
        if inputs.rows is not None:
            extra["mm_encoder_outputs"] = self.part.image_rows(inputs.rows)
        with attention_step(step):
            output = self.part.model(
                input_ids=inputs.input_ids,
                position_ids=inputs.position_ids,
                logits_to_keep=inputs.logits_to_keep,
                use_cache=False,
                **extra,
            )
        logits: Tensor = output.logits[0]
        return logits

    def _sample(self, logits: Tensor, inputs: InputBatch) -> dict[SequenceKey, SampledToken]:
        draws = []
        for key, end in zip(inputs.sampling_keys, inputs.sampling_ends, strict=True):
            num_prompt = self._plans[key].positions.shape[1]
            draws.append(Draw(self._sampling[key], end - num_prompt))
        sampled = dict(zip(inputs.sampling_keys, sample(logits, draws), strict=True))
        for key, token in sampled.items():
            self._sampling[key].append(token.token_id)
        return sampled

    def _check(self, request: SequenceRequest) -> None:
        """Refuse what would otherwise fail, or be answered wrongly, in the middle of a batch."""
        vocab = self.part.vocab_size
        for field, ids in (
            ("token_ids", request.token_ids),
            ("resume_token_ids", request.resume_token_ids),
        ):
            if ids and not (min(ids) >= 0 and max(ids) < vocab):
                raise InvalidArgument(
                    f"token ids must lie in [0, {vocab}), the model's vocabulary", field=field
                )
        places = {
            position
            for item in request.items
            for span in item.spans
            for position in range(span.start, span.end)
        }
        image = self.part.image_token_id
        marked = {n for n, token in enumerate(request.token_ids) if token == image}
        if places != marked:
            wrong = min(places ^ marked)
            raise InvalidArgument(
                f"position {wrong}: the spans of the items must be exactly the positions of the "
                f"image token {image}",
                field="items",
            )
        if self.part.family.mrope and any(len(item.grid) != 3 for item in request.items):
            raise InvalidArgument(
                f"{self.part.family.model_type} needs the grid (t, h, w) of every item",
                field="items.grid",
            )


def _any_text_token(part: LanguagePart) -> int:
    return 0 if part.image_token_id != 0 else 1


def _no_rows(key: SequenceKey, item_index: int) -> ItemRows:
    raise InvalidArgument(f"{key.request_id} has no item {item_index}")


@torch.inference_mode()
def _token_row(part: LanguagePart) -> Tensor:
    """[num_layers, 1, hidden]: the image token's own embedding, then zeros."""
    ids = torch.tensor([part.image_token_id], device=part.device)
    own = part.model.get_input_embeddings()(ids).to(part.dtype)
    zeros = own.new_zeros(part.num_deepstack, *own.shape)
    return torch.cat((own[None], zeros))
