"""An HTTP/3 client on aioquic, told by JSON what to do. It prints a line of JSON for each thing that happened."""

import asyncio
import hashlib
import json
import socket
import sys
import time
from contextlib import asynccontextmanager

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import Buffer
from aioquic.h3.connection import FrameType, H3Connection, StreamType
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration

SPEC = json.loads(sys.argv[1])
LIMIT = 30
# The server's first stream of its own.
CONTROL = 3


def say(**what):
    print(json.dumps(what), flush=True)


class Http3(H3Connection):
    """Knows that a response to HEAD, and a 304, has no body (RFC 9114 section 4.1.2)."""

    def __init__(self, quic):
        super().__init__(quic)
        self.head_only = set()

    def _check_content_length(self, stream):
        if stream.stream_id not in self.head_only and stream.content_length > 0:
            super()._check_content_length(stream)


class Exchange:
    def __init__(self):
        self.interim, self.status, self.fields, self.trailers = [], None, None, None
        self.size, self.digest, self.body = 0, hashlib.sha256(), b""
        self.reset = self.stopped = self.failed = None
        self.begun, self.some, self.asked, self.ended = (asyncio.Event() for _ in range(4))

    def event(self, event):
        if isinstance(event, HeadersReceived):
            fields = [(name.decode(), value.decode("latin-1")) for name, value in event.headers]
            status = dict(fields).get(":status")
            rest = [field for field in fields if field[0] != ":status"]
            if status is None:
                self.trailers = rest
            elif status.startswith("1"):
                self.interim.append([int(status), rest])
                self.asked.set()
            else:
                self.status, self.fields = int(status), rest
                self.begun.set()
        elif isinstance(event, DataReceived):
            self.size += len(event.data)
            self.digest.update(event.data)
            if len(self.body) < 4096:
                self.body += event.data[:4096]
            if event.data:
                self.some.set()
        if getattr(event, "stream_ended", False):
            self.end()

    def end(self, failed=None):
        self.failed = failed
        for event in (self.begun, self.some, self.asked, self.ended):
            event.set()

    def told(self):
        return {
            "status": self.status,
            "fields": self.fields,
            "interim": self.interim,
            "trailers": self.trailers,
            "size": self.size,
            "sha256": self.digest.hexdigest(),
            "body": self.body.decode("latin-1"),
            "reset": self.reset,
            "stopped": self.stopped,
            "failed": self.failed,
        }


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = None if SPEC["do"] in ("raw", "faults") else Http3(self._quic)
        self.exchanges, self.last, self.closed, self.goaway = {}, None, asyncio.Event(), []
        self.resets, self.stops, self.data, self.ended, self.changed = {}, {}, {}, set(), asyncio.Event()

    def quic_event_received(self, event):
        if isinstance(event, events.ConnectionTerminated):
            self.last = {"code": event.error_code, "reason": event.reason_phrase}
            for exchange in self.exchanges.values():
                if not exchange.ended.is_set():
                    exchange.end("closed")
            self.closed.set()
        elif isinstance(event, events.StreamReset):
            self.resets[event.stream_id] = event.error_code
            if exchange := self.exchanges.get(event.stream_id):
                exchange.reset = event.error_code
                exchange.end("reset")
        elif isinstance(event, events.StopSendingReceived):
            self.stops[event.stream_id] = event.error_code
            if exchange := self.exchanges.get(event.stream_id):
                exchange.stopped = event.error_code
        elif isinstance(event, events.StreamDataReceived):
            self.data[event.stream_id] = self.data.get(event.stream_id, b"") + event.data[:64]
            if event.stream_id == CONTROL:
                self.note_goaway()
            if event.end_stream:
                self.ended.add(event.stream_id)
        self.changed.set()
        if self.http:
            for event in self.http.handle_event(event):
                if exchange := self.exchanges.get(event.stream_id):
                    exchange.event(event)

    def note_goaway(self):
        """aioquic passes over it."""
        frames = Buffer(data=self.data[CONTROL])
        assert frames.pull_uint_var() == StreamType.CONTROL
        self.goaway = []
        while not frames.eof():
            kind, payload = frames.pull_uint_var(), frames.pull_bytes(frames.pull_uint_var())
            if kind == FrameType.GOAWAY:
                self.goaway.append(Buffer(data=payload).pull_uint_var())

    def begin(self, asked):
        stream = self._quic.get_next_available_stream_id()
        if asked.get("method") == "HEAD":
            self.http.head_only.add(stream)
        exchange = self.exchanges[stream] = Exchange()
        fields = [
            (":method", asked.get("method", "GET")),
            (":scheme", asked.get("scheme", "https")),
            (":authority", asked.get("host", f"{SPEC.get('name', 'localhost')}:{SPEC['port']}")),
            (":path", asked.get("path", "/")),
        ]
        fields += asked.get("fields", [])
        # A number stands for so many letters.
        text = lambda value: "y" * value if isinstance(value, int) else value
        fields = [(name.encode(), text(value).encode("latin-1")) for name, value in fields]
        has_body = any(key in asked for key in ("body", "size", "trailers", "hold"))
        self.http.send_headers(stream, fields, end_stream=not has_body)
        self.transmit()
        return stream, exchange

    async def ask(self, asked):
        stream, exchange = self.begin(asked)
        await self.send_body(stream, exchange, asked)
        if "cancel" in asked:
            await getattr(exchange, asked.get("after", "begun")).wait()
            if "hold" in asked:
                self._quic.reset_stream(stream, asked["cancel"])
            self._quic.stop_stream(stream, asked["cancel"])
            self.transmit()
            exchange.end("cancelled")
        if "stop" in asked:
            await exchange.some.wait()
            self._quic.stop_stream(stream, asked["stop"])
            self.transmit()
            exchange.end("stopped")
        try:
            await asyncio.wait_for(exchange.ended.wait(), LIMIT)
        except asyncio.TimeoutError:
            raise SystemExit(f"no end of {asked}: {exchange.told()}")
        if "refused" in asked:
            # It may come after the response's end.
            await self.settle(lambda: exchange.stopped is not None)
        return exchange

    async def send_body(self, stream, exchange, asked):
        if "expect" in asked:
            await asyncio.wait_for(exchange.asked.wait(), LIMIT)
            if exchange.ended.is_set():
                # Answered without it.
                return
        trailers = [(name.encode(), value.encode()) for name, value in asked.get("trailers", [])]
        open_end = "hold" in asked
        if "body" in asked:
            self.http.send_data(stream, asked["body"].encode("latin-1"), not trailers and not open_end)
        if "size" in asked:
            left = asked["size"]
            while left and exchange.stopped is None and not exchange.ended.is_set():
                piece = min(left, 65536)
                left -= piece
                self.http.send_data(stream, b"x" * piece, not left and not trailers and not open_end)
                self.transmit()
                # What waits to be sent is kept small, so that it can be seen when the server takes no more.
                while self.waiting(stream) > 1 << 20 and exchange.stopped is None:
                    await asyncio.sleep(0.001)
        if trailers:
            self.http.send_headers(stream, trailers, end_stream=True)
        self.transmit()

    def waiting(self, stream):
        """How much of a body has not been taken yet; nothing of a stream that is over."""
        known = self._quic._streams.get(stream)
        return known.sender._buffer_stop - known.sender._buffer_start if known else 0

    async def settle(self, condition):
        """Waits until a condition holds, or the connection's end."""
        end = time.monotonic() + SPEC.get("limit", LIMIT)
        while not condition() and not self.closed.is_set():
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), max(end - time.monotonic(), 0.001))
            except asyncio.TimeoutError:
                return False
        return True


@asynccontextmanager
async def client(**more):
    ticket = {"session_ticket_handler": more.pop("keep")} if "keep" in more else {}
    # With a session to take up, requests may go before the handshake is over; and one that is faulty may never be.
    ticket["wait_connected"] = not more.keys() & {"session_ticket", "protocol"}
    protocol = more.pop("protocol", Client)
    settings = QuicConfiguration(**{"alpn_protocols": SPEC.get("alpn", ["h3"]), "is_client": True, **more})
    settings.server_name = SPEC.get("name", "localhost")
    settings.load_verify_locations(SPEC["ca"])
    # Where nobody listens, nobody says so.
    settings.idle_timeout = 2 if SPEC["do"] == "refused" else 60
    settings.max_data = settings.max_stream_data = SPEC.get("window", 1 << 20)
    if "certificate" in SPEC:
        settings.load_cert_chain(SPEC["certificate"], SPEC["key"])
    address = ("127.0.0.1", SPEC["port"])
    async with connect(*address, configuration=settings, create_protocol=protocol, **ticket) as connected:
        yield connected


async def requests():
    """Asks for all at once, or one after the other, on one connection."""
    async with client() as c:
        if SPEC.get("serial"):
            done = [await c.ask(asked) for asked in SPEC["requests"]]
        else:
            done = await asyncio.gather(*(c.ask(asked) for asked in SPEC["requests"]))
        for exchange in done:
            say(**exchange.told())


async def begun():
    """Says what has come of a request as soon as there is some of the body, then the rest."""
    async with client() as c:
        task = asyncio.create_task(c.ask(SPEC["request"]))
        while not c.exchanges:
            await asyncio.sleep(0)
        exchange = next(iter(c.exchanges.values()))
        await asyncio.wait_for(exchange.some.wait(), LIMIT)
        say(**exchange.told())
        say(**(await task).told())


async def follow():
    """Asks again and again on one connection, until the body is another."""
    async with client() as c:
        count, first = 0, None
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            exchange = await c.ask(SPEC["request"])
            count += 1
            if first is None:
                first = exchange.body
                say(**exchange.told())
            if exchange.body != first or exchange.failed:
                break
            await asyncio.sleep(0.01)
        if c.goaway:
            await c.settle(lambda: False)
        say(count=count, closed=c.last, goaway=c.goaway, **exchange.told())


async def drain():
    """Has a request at work while the server goes, and asks for more after it said so."""
    async with client() as c:
        first = asyncio.create_task(c.ask(SPEC["request"]))
        while not c.exchanges:
            await asyncio.sleep(0)
        exchange = next(iter(c.exchanges.values()))
        await asyncio.wait_for(exchange.some.wait(), LIMIT)
        say(**exchange.told())
        await c.settle(lambda: len(c.goaway) == 2)
        late = await c.ask({"path": "/late"})
        say(goaway=c.goaway, late=late.told())
        say(**(await first).told())
        await c.settle(lambda: False)
        say(close=c.last)


async def idle():
    """Asks once, may say that it goes, and waits for the connection's end."""
    async with client() as c:
        await c.ask({})
        if SPEC.get("goaway"):
            c._quic.send_stream_data(c.http._local_control_stream_id, bytes([FrameType.GOAWAY, 1, 0]))
            c.transmit()
        await c.settle(lambda: False)
        say(close=c.last, goaway=c.goaway)


async def rebind():
    """Changes its port in the middle of a download."""
    async with client() as c:
        task = asyncio.create_task(c.ask(SPEC["request"]))
        while not c.exchanges:
            await asyncio.sleep(0)
        exchange = next(iter(c.exchanges.values()))
        await asyncio.wait_for(exchange.some.wait(), LIMIT)
        before = c._transport.get_extra_info("sockname")[1]
        old = c._transport
        other = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        other.bind(("::", 0))

        class Relay(asyncio.DatagramProtocol):
            def datagram_received(self, data, addr):
                c.datagram_received(data, addr)

        c._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Relay, sock=other)
        # What comes to the old port is lost, as behind a NAT that forgot it.
        old.close()
        if SPEC.get("migrate"):
            c._quic.change_connection_id()
        # Only what comes by the new port tells the server of it, and there may be nothing to acknowledge just now.
        c._quic.send_ping(0)
        c.transmit()
        done = (await task).told()
        after = c._transport.get_extra_info("sockname")[1]
        say(moved=before != after, **done)


async def raw():
    """Says bytes on streams and tells which codes the server answers with."""
    for case in SPEC["cases"]:
        async with client() as c:
            quic = c._quic
            asked = []
            for stream in case["streams"]:
                number = quic.get_next_available_stream_id(is_unidirectional=stream.get("uni", False))
                quic.send_stream_data(number, bytes.fromhex(stream["hex"]), stream.get("end", False))
                c.transmit()
                if not stream.get("uni"):
                    asked.append(number)
                stream["number"] = number
            if case.get("stop_control"):
                await c.settle(lambda: CONTROL in c.data)
                quic.stop_stream(CONTROL, 0x10C)
                c.transmit()
            over = lambda number: number in c.resets or number in c.ended
            answered = lambda: bool(asked) and all(over(number) for number in asked)
            if "reset" in case["streams"][0]:
                # When what it said has been read.
                await c.settle(answered)
                quic.reset_stream(case["streams"][0]["number"], case["streams"][0]["reset"])
                c.transmit()
            await c.settle(lambda: not case.get("close") and answered())
            numbers = [stream["number"] for stream in case["streams"]]
            say(
                close=c.last and c.last["code"],
                resets=[c.resets.get(number) for number in numbers],
                stops=[c.stops.get(number) for number in numbers],
                data=[c.data.get(number, b"").hex() for number in numbers],
            )


class Held:
    """Keeps what would be sent."""

    def __init__(self, transport):
        self.transport, self.kept = transport, []

    def sendto(self, *packet):
        self.kept.append(packet)

    def release(self):
        for packet in self.kept:
            self.transport.sendto(*packet)
        return self.transport


async def early():
    """Asks with the first packets of connections that take up a session, and again once the handshake is over: its own last
    word of that it holds back until the first answer is there, or for ever."""
    tickets = []
    async with client(keep=tickets.append) as c:
        await c.ask({"path": "/first"})
        end = time.monotonic() + LIMIT
        while len(tickets) < len(SPEC["requests"]) and time.monotonic() < end:
            await asyncio.sleep(0.01)
    for asked in SPEC["requests"]:
        async with client(session_ticket=tickets.pop()) as c:
            _, exchange = c.begin(asked)
            c._transport = Held(c._transport)
            await asyncio.wait_for(exchange.ended.wait(), LIMIT)
            if SPEC.get("never"):
                say(first=exchange.told())
                await c.settle(lambda: False)
            c._transport = c._transport.release()
            again = await c.ask(asked)
            say(early=c._quic.tls.early_data_accepted, first=exchange.told(), again=again.told())


async def flood():
    """Begins handshakes from many ports and finishes none, then connects."""
    first = None
    from aioquic.quic.connection import QuicConnection

    sockets = []
    for _ in range(SPEC["count"]):
        settings = QuicConfiguration(alpn_protocols=["h3"], is_client=True)
        settings.server_name = "localhost"
        quic = QuicConnection(configuration=settings)
        quic.connect(("127.0.0.1", SPEC["port"]), now=time.time())
        out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sockets.append(out)
        for data, _ in quic.datagrams_to_send(now=time.time()):
            out.sendto(data, ("127.0.0.1", SPEC["port"]))
    async with client() as c:
        exchange = await c.ask({})
        say(retried=c._quic._retry_source_connection_id is not None, **exchange.told())


async def refused():
    """Connects in vain and says why."""
    try:
        async with client() as c:
            exchange = await c.ask({})
            say(connected=exchange.failed is None)
    except ConnectionError:
        say(connected=False)

