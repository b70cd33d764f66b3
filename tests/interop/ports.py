"""Ports to listen on."""

import random
import socket

# Below those that the kernel gives to connections (net.ipv4.ip_local_port_range): what is free stays so until it is used.
PORTS = range(20_000, 32_000)
given = set()


def free_port(kind=socket.SOCK_STREAM):
    """One that nobody listens on, and that was not given before."""
    for port in random.sample(PORTS, 1_000):
        if port in given:
            continue
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        given.add(port)
        return port
    raise RuntimeError(f"no port of {PORTS} is free")
