"""A client that sends requests at a steady pace whatever becomes of them (open loop), and notes each from the time at which it was to
be sent."""

import asyncio
import collections
import socket
import time

Outcome = collections.namedtuple("Outcome", "due took ok origin")

REQUEST = b"GET / HTTP/1.1\r\nHost: faults.example\r\n\r\n"
LIMIT = 10  # seconds after which a request has failed


class Client(asyncio.Protocol):
    def __init__(self, load):
        self.load, self.due, self.rest, self.transport = load, None, b"", None

    def connection_made(self, transport):
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, due):
        self.due, self.rest = due, b""
        self.load.busy.add(self)
        self.transport.write(REQUEST)

    def data_received(self, data):
        self.rest += data
        head, end, body = self.rest.partition(b"\r\n\r\n")
        if not end or self.due is None:
            return
        fields = head.lower()
        at = fields.find(b"content-length:")
        if at < 0 or len(body) < int(fields[at + 15:].split(b"\r\n", 1)[0]):
            if at < 0 and b"chunked" in fields and not body.endswith(b"0\r\n\r\n"):
                return
            if at >= 0:
                return
        self.done(head[9:12] == b"200", body[-1:].decode() if at >= 0 else "")
        if b"connection: close" in fields:
            self.transport.close()
        else:
            self.load.idle.append(self)

    def done(self, ok, origin=""):
        due, self.due = self.due, None
        self.load.busy.discard(self)
        self.load.outcomes.append(Outcome(due - self.load.start, time.monotonic() - due, ok, origin))

    def connection_lost(self, _):
        if self in self.load.idle:
            self.load.idle.remove(self)
        if self.due is not None:
            self.done(False)


class Load:
    """Sends `rate` requests a second to a port of this machine."""

    def __init__(self, port, rate):
        self.port, self.rate = port, rate
        self.idle, self.busy, self.outcomes = collections.deque(), set(), []
        self.start = time.monotonic()
        self.sent, self.late, self.opening = 0, 0.0, set()
        self.ends = False

    async def run(self):
        while not self.ends:
            now = time.monotonic()
            while self.start + self.sent / self.rate <= now:
                due = self.start + self.sent / self.rate
                self.sent += 1
                self.late = max(self.late, now - due)
                self.begin(due)
            for client in [client for client in self.busy if now - client.due > LIMIT]:
                client.done(False)
                client.transport.abort()
            await asyncio.sleep(0.001)

    def begin(self, due):
        # The last one used: those that are not needed stay idle.
        while self.idle:
            client = self.idle.pop()
            if not client.transport.is_closing():
                return client.send(due)
        task = asyncio.get_running_loop().create_task(self.open(due))
        self.opening.add(task)
        task.add_done_callback(self.opening.discard)

    async def open(self, due):
        try:
            loop = asyncio.get_running_loop()
            _, client = await loop.create_connection(lambda: Client(self), "127.0.0.1", self.port)
            client.send(due)
        except OSError:
            self.outcomes.append(Outcome(due - self.start, time.monotonic() - due, False, ""))

    def now(self):
        return time.monotonic() - self.start

    async def end(self):
        """Waits for what is in flight."""
        self.ends = True
        until = time.monotonic() + LIMIT
        while (self.busy or self.opening) and time.monotonic() < until:
            await asyncio.sleep(0.02)
        for client in list(self.busy):
            client.done(False)
        for client in [*self.idle]:
            client.transport.abort()
