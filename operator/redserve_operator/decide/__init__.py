"""Decisions: what is observed and what is desired go in, actions, status and events come out.

Pure: no kopf, no API server, no clock. The shell around it (`redserve_operator.worker`) observes,
calls `reconcile`, carries out the plan, and is called again by the changes that it made itself.
"""
