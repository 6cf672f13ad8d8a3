"""Who asks: one class per protocol, all with the same verbs."""
