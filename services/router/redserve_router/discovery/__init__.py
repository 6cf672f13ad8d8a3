"""Which replicas there are, from the EndpointSlices of this router's own revision.

slices       EndpointSlices -> members of a pool; pure
api          list and watch over HTTP, as a pod's ServiceAccount
status       what discovery knows of itself, and how it says so
follower     list, watch, and again after every failure
discovery    both pools
"""
