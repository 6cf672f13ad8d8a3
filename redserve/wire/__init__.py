"""gRPC as every service uses it: servers, channels, errors, and protobuf to domain values.

errors         the error tree as google.rpc.Status and back
interceptors   one place that turns exceptions into status codes
server         ServiceServer: health, reflection, readiness, drain
channel        open_channel, wait_ready
own_address    what peers are told when nobody has said
types, router, encoder, llm, transport   converters, one module per proto
"""
