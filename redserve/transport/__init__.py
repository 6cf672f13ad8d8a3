"""Moving embeddings (later KV blocks): consumers pull, under a lease, into room they reserved.

Modules:

    base          PeerInfo, Descriptor, and the Transport and Producer protocols
    pages         which pages are free
    pool          one slab of memory per process, and regions of it
    lease_table   what a producer offers, and who reads it until when
    puller        prepare, pull, check, release: the same for every backend
    connections   the control paths of a puller
    inproc        backend within a process, for tests and all-in-one services
    grpc_stream   backend over gRPC streams
    factory       the only place that knows the kinds
"""
