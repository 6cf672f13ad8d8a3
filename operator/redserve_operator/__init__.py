"""Kubernetes operator: reconciles RedService objects (see the roadmap in docs/architecture.md)."""
