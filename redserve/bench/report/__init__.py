"""Figures of a run -> one HTML file, the same bytes every time."""
