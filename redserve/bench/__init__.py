"""Load against a service, and what it measured. `redserve bench` is its command.

Pure, without clocks and I/O: whoever drives it says when things happened.

arrivals   when requests are sent in an open loop
questions  what is asked: a function of the seed and the request's number
pictures   pictures that no cache has seen
numbers    ranges that a command line names
pace       tokens that came with the first piece
outcome    what one request brought
quantiles  nearest rank
summary    outcomes -> figures, goodput and attainment included
tables     figures -> rows, for the terminal and the report
report/    figures -> one HTML file

With clocks and sockets:

clients/   an OpenAI-compatible server by HTTP; our router by gRPC
load       open and closed loop, warm-up
room       how many connections this process can open
run        a plan against a client
"""
