"""Performance claims live here: a script each, results with commit and hardware in `results/`."""
