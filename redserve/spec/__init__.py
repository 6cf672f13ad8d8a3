"""What the user writes (`RedService`) and what it becomes (workloads, settings)."""
