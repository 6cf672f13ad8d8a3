"""What a process tells about itself: time, logs, metrics and the timeline of a request.

clock            now_ns: one time line for every process of a machine
timeline         Bar, Timeline, overlap_ratio
transport_times  exposed and hidden transport time per item
intervals        union, intersection and length of intervals
render           a timeline as text and as a Chrome trace
log              structured logs on stderr, without request content
figures          numbers as people read them
foreign          what others say -> what is safe to show, and to count with
metrics          the Prometheus metrics of each service, and /metrics
"""
