"""The cluster of many: a RedService as Kubernetes objects. Pure functions of values.

`render` says what a service needs, `check` what this release or this cluster cannot keep. The
operator applies the result, `redserve render` prints it; neither adds anything of its own.
"""
