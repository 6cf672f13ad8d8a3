"""Grafana dashboards, built in Python and committed as JSON in the Helm chart."""
