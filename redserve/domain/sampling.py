"""How the next token is chosen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Sampling of one request, every default resolved.

    Attributes:
        temperature: 0 means greedy.
        top_k: Keep the k most likely tokens; 0 keeps all.
        top_p: Keep the smallest set of tokens whose probability reaches top_p; 1 keeps all.
        seed: Seed of a counter-based generator: token n of a request depends on (seed, n) only, so
            a request that is preempted or moved to another replica goes on as it would have.
        repetition_penalty: Divides (multiplies when negative) logits of tokens in prompt or output.
        presence_penalty: Subtracted once from logits of tokens already generated.
        frequency_penalty: Subtracted per occurrence from logits of tokens already generated.
        stop: Texts that end the output; they are not part of it.
        stop_token_ids: Tokens that end the output, next to the checkpoint's end tokens.
        max_tokens: Most tokens to generate.
        ignore_eos: Go on after the checkpoint's end tokens.
        num_logprobs: None: no logprobs; n: the chosen token's and the n most likely ones'.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    max_tokens: int = 256
    ignore_eos: bool = False
    num_logprobs: int | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is taken always."""
        return self.temperature == 0.0
