"""Pictures: what may come in, from where, and what its header says."""
