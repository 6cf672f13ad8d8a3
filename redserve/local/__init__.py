"""The cluster of one: the workloads of a RedService as child processes of this machine."""
