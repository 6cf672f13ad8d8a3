"""A kubelet whose containers are processes of this machine.

What a pod's author and a controller can see is meant to be as on a real node: phases, conditions,
probes, restarts, grace periods, volumes, environment. What is not there: images (a table says what
a name stands for), cgroups, users, a network per pod (pods share one and have an address each),
DNS, addresses of Services, sidecar containers, postStart hooks.
"""
