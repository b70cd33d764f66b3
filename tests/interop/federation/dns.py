"""A name server for the scenes: a table of SRV and A records, by UDP, nothing else."""

import socket
import struct
import threading

A, AAAA, SRV = 1, 28, 33
# Nobody listens there.
DEAD = "127.0.1.99"


def encode(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def question(packet):
    """The name asked for, its type, and where the question ends."""
    at, labels = 12, []
    while packet[at]:
        labels.append(packet[at + 1 : at + 1 + packet[at]].decode().lower())
        at += 1 + packet[at]
    kind, _ = struct.unpack(">HH", packet[at + 1 : at + 5])
    return ".".join(labels), kind, at + 5


class NameServer(threading.Thread):
    def __init__(self, address, domains, dead=(), silent=()):
        """`domains`: where the server of each domain is. Those that are `dead` name a server before it that is not
        there; those that are `silent` say that they have none (RFC 2782)."""
        super().__init__(daemon=True)
        self.domains, self.dead, self.silent = domains, dead, silent
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 53))
        self.start()

    def records(self, name, kind):
        for domain, address in self.domains.items():
            if name == f"_xmpp-server._tcp.{domain}" and kind == SRV:
                if domain in self.silent:
                    yield struct.pack(">HHH", 0, 0, 0) + b"\0"
                    continue
                yield struct.pack(">HHH", 10, 5, 5269) + encode(f"host.{domain}")
                if domain in self.dead:
                    # The better one comes later in the answer.
                    yield struct.pack(">HHH", 5, 0, 5269) + encode(f"dead.{domain}")
            if name in (f"host.{domain}", domain) and kind == A:
                yield socket.inet_aton(address)
            if name == f"dead.{domain}" and kind == A:
                yield socket.inet_aton(DEAD)

    def exists(self, name):
        return any(name == domain or name.endswith("." + domain) for domain in self.domains)

    def run(self):
        while True:
            packet, peer = self.socket.recvfrom(4096)
            try:
                name, kind, end = question(packet)
            except (IndexError, struct.error, UnicodeDecodeError):
                continue
            records = list(self.records(name, kind))
            code = 0 if records or self.exists(name) else 3
            answer = packet[:2] + struct.pack(">HHHHH", 0x8580 | code, 1, len(records), 0, 0) + packet[12:end]
            for record in records:
                answer += b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(record)) + record
            self.socket.sendto(answer, peer)
