"""Encoders and LLM replicas: connections, load, and which of them may work together."""
