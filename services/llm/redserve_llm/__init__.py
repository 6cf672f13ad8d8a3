"""LLM engine: prefill over the ready prefix, decode, one flat batch per step.

engine        schedule, run, update: the loop and its thread; everybody else talks to it
ledger        who is live, and which rows the engine has of them
harvest       tokens of a step become text (live_sequence, detokenizer, sequence_timeline)
notices, hub  what the engine tells, and how it reaches the event loop
runner/       from a micro-batch to sampled tokens
attention/    flat batches over the paged KV cache, one file per backend
arena, pulls, delivery   where embeddings land, first needed first
servicer, limits, load, readiness   the door
model, checkpoint_model, fake   what is run: a checkpoint, or a digest that needs no weights
memory, budget, sampling_defaults   what the settings and the checkpoint ask for
replica       one process, put together; arguments and __main__ start it
"""
