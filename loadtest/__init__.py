"""
Load tests and benchmarks of the service. They speak HTTP only and aim at loopback only.

In reading order:

"""
