"""
Model versions, the contract that serving and monitoring share, and the offline pipeline that makes a version.

In reading order:

- ``contract``: the values both sides agree on; pure
- ``store``: versions on disk, digests, deployment state
- ``pipeline``: data -> train -> calibrate -> export -> evaluate; torch lives here
"""
