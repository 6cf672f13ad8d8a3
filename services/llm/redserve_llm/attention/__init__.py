"""Attention of a flat batch over the paged KV cache: one interface, one file per backend.

step        what one forward pass tells its attention calls: slots, parts, cache
interface   the function that transformers' decoders call, by the name `redserve_paged`
cpu_sdpa    backend: gather blocks, then torch's scaled_dot_product_attention; any device
"""
