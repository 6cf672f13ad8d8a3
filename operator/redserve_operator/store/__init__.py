"""What the cluster looked like when it was last told of: objects, slimmed, by service."""
