"""Every Prometheus metric of the system, one class per service.

A class registers on the registry that it is given, so that a test or an all-in-one process can
hold several. Names are `redserve_*` in base units (seconds, bytes); labels never hold request ids.

Modules:

    router, discovery, encoder, llm, transport, tracing, operator    a class each
    buckets                                                         of their histograms
    endpoint                                                        `/metrics` over HTTP
"""

from prometheus_client import disable_created_metrics

# `..._created` series of every counter and histogram: nobody asks for them, every scrape has them.
disable_created_metrics()  # type: ignore[no-untyped-call]
