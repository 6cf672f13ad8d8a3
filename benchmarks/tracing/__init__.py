"""What tracing costs: the same requests to services that trace none, some and all of them."""
