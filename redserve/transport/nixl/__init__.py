"""Backend over NIXL, which is UCX: one-sided reads by RDMA, or by TCP where that is asked for.

    library     the bindings, and the only place that knows them
    rdma        whether this process can do RDMA, and what is missing if not
    peers       who is connected, and who not any more
    reads       one pull: which transfers are under way, and when the last byte has landed
    endpoint    the thread that owns the agent
    transport   `Transport` on an endpoint

What decides the shape of all this (NIXL 1.5.1, UCX 1.23, measured):

* A transfer that has begun cannot be cancelled: bytes land after its handle was released, after
  the peer was removed, after the memory was deregistered. So transfers are small, few at once, and
  their destination returns to the pool only when each has ended.
* A peer that hangs leaves transfers under way for ever. Deadlines are kept by the caller's event
  loop; what is under way then stays quarantined until it ends.
* Destroying an agent while it reads aborts the process it reads from. An endpoint that cannot
  drain is left alone, and the process leaves without tearing down (`redserve.transport.leave`).
* A known peer whose entry is loaded again from damaged metadata is lost until the agent is made
  anew. So names are unique per process start, and metadata is checked before it is loaded.
"""
