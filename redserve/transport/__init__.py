"""Moving embeddings (and later KV blocks): consumers pull, under a lease, into room they reserved."""
