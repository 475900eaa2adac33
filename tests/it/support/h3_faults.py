

# What breaks the rules of QUIC itself: aioquic, put up to it.

from aioquic import tls
from aioquic.buffer import encode_uint_var


def altered(parameters, changes):
    """Transport parameters without these, or with other values of them."""
    before, after = Buffer(data=parameters), b""
    while not before.eof():
        name, value = before.pull_uint_var(), before.pull_bytes(before.pull_uint_var())
        if name not in changes:
            after += encode_uint_var(name) + encode_uint_var(len(value)) + value
    for name, value in changes.items():
        if value is not None:
            after += encode_uint_var(name) + encode_uint_var(len(value) // 2) + bytes.fromhex(value)
    return after


class Faulty(Client):
    """A client that says what the case tells it to."""

    def __init__(self, case, quic, **more):
        super().__init__(quic, **more)
        self.case = case
        initialize, serialize = quic._initialize, quic._serialize_transport_parameters
        changes = {int(name): value for name, value in case.get("parameters", {}).items()}
        quic._serialize_transport_parameters = lambda: altered(serialize(), changes)

        def initialized(*arguments):
            initialize(*arguments)
            if case.get("extensions") == []:
                quic.tls.handshake_extensions = []
            if case.get("extensions") == "draft":
                quic.tls.handshake_extensions = [(0xFFA5, value) for _, value in quic.tls.handshake_extensions]
            for name, epoch in [("handshake", tls.Epoch.HANDSHAKE), ("application", tls.Epoch.ONE_RTT)]:
                if name in case:
                    self.corrupt(quic._cryptos[epoch], **case[name])

        quic._initialize = initialized

    def corrupt(self, crypto, bits=0, frames=""):
        """Has packets with these bits in their first byte, and these frames in place of their own."""
        encrypt, frames = crypto.encrypt_packet, bytes.fromhex(frames)

        def encrypted(header, payload, number):
            if len(frames) <= len(payload) and frames:
                payload = frames.ljust(len(payload), b"\0")
            return encrypt(bytes([header[0] | bits]) + header[1:], payload, number)

        crypto.encrypt_packet = encrypted

    def put(self, frames):
        """Says frames in the next packet."""
        frames = Buffer(data=bytes.fromhex(frames))
        kind, rest = frames.pull_uint_var(), frames.pull_bytes(frames.capacity - frames.tell())
        ping = self._quic._write_ping_frame

        def write(builder, uids=(), comment=""):
            self._quic._write_ping_frame = ping
            builder.start_frame(kind, capacity=len(rest) + 8).push_bytes(rest)

        self._quic._write_ping_frame = write
        self._quic.send_ping(0)
        self.transmit()


async def fault(case):
    make = lambda quic, **more: Faulty(case, quic, **more)
    async with client(protocol=make, alpn_protocols=case.get("alpn", ["h3"])) as c:
        c.transmit()
        if "frames" in case:
            await c.wait_connected()
            c.put(case["frames"])
        await c.settle(lambda: False)
        return c.last


async def faults():
    """Tells what each case's connection is closed with."""
    for closed in await asyncio.gather(*map(fault, SPEC["cases"])):
        say(close=closed and closed["code"])
