"""From a micro-batch to sampled tokens.

kv_cache       keys and values of every layer, in blocks
input_batch    micro-batch -> flat tensors
sampling_state what the sampler must know of one sequence
sampler        logits -> tokens
model_runner   one forward pass
interface      what the engine asks of a runner; the fake one answers it without torch
"""
