"""Encoder: turns items into embeddings and publishes each as soon as it is done."""
