"""LLM engine: prefill over the ready prefix, decode, one flat batch per step."""
