"""`python -m benchmarks.tracing.receiver`: an OTLP receiver that counts batches and reads none.

A collector is not ours to measure, and it would take its share of the machine from the services.
It prints its port, and on the end of its input the number of bytes that came.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class _Counter(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        self.num_bytes = 0

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        if handler_call_details.method != METHOD:
            return None
        handler: Callable[..., grpc.RpcMethodHandler[bytes, bytes]]
        handler = grpc.unary_unary_rpc_method_handler
        return handler(self._take)

    def _take(self, batch: bytes, _context: grpc.ServicerContext) -> bytes:
        self.num_bytes += len(batch)
        return b""


def main() -> None:
    """Serve until the input ends."""
    counter = _Counter()
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((counter,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(0).wait()
    print(counter.num_bytes, flush=True)


if __name__ == "__main__":
    main()
