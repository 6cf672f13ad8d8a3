"""`make bench-operator`: many services on many fake nodes of a real control plane."""
