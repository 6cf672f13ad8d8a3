"""How fast tensors move: every data path of the transport beside the limits of the machine.

__main__    one consumer process per backend, asked in turn, so that noise hits all alike
consumer    the process that measures: one backend, and the producer that belongs to it
producer    the process that is read from
raw         the limits: a copy between two processes, a socket
pulls       the data paths of `redserve.transport`
plan        sizes, how many, what UCX is told
report      medians, ratios, the page
"""
