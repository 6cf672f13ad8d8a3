"""The router's side of the services that it calls: typed, without protobuf to the outside.

Every method raises errors of `redserve.errors` only.
"""
