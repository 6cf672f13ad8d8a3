"""Which replicas there are, from the EndpointSlices of this router's own revision.

slices       EndpointSlices -> members of a pool; pure
account      a pod's token and certificate authority
timing       how long to wait for what
problem      why the API server is not heard
api          list and watch over HTTP
status       what discovery knows of itself, and how it says so
follower     list, watch, and again after every failure
discovery    both pools
"""
