"""Moving embeddings (later KV blocks): consumers pull, under a lease, into room they reserved.

Modules:

    base          PeerInfo, Descriptor, and the Transport and Producer protocols
    slab          the memory of a pool: the host's or a device's
    placement     which of the two, and why
    pages         which pages are free
    pool          one slab per process, and regions of it
    buffer        a tensor in one region or in many
    cutting       what is moved at once
    lease_table   what a producer offers, and who reads it until when
    puller        prepare, pull, check, release: the same for every backend
    connections   the control paths of a puller
    probe         a tensor to measure with
    pair_check    what two processes can do together
    inproc        backend within a process, for tests and all-in-one services
    grpc_stream   backend over gRPC streams
    nixl          backend over NIXL and UCX: one-sided reads
    either        RDMA to those who have it too, gRPC to everybody else
    leave         how a process that moved tensors ends
    factory       the only place that knows the kinds
"""
