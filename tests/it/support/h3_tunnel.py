

# What opens tunnels: CONNECT, and WebSocket by extended CONNECT (RFC 9220) with wsproto's frames.

from aioquic.h3.connection import Setting
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage


class Tunnel:
    """A CONNECT, once it is answered."""

    async def open(self, c, fields):
        await c.settle(lambda: c.http.received_settings is not None)
        assert c.http.received_settings[Setting.ENABLE_CONNECT_PROTOCOL] == 1, c.http.received_settings
        self.c, self.stream = c, c._quic.get_next_available_stream_id()
        self.exchange = c.exchanges[self.stream] = Exchange()
        # A tunnel is no body: all of it is kept until it is taken.
        self.data, self.taken = bytearray(), 0
        exchange_event = self.exchange.event

        def event(event):
            if isinstance(event, DataReceived):
                self.data += event.data
            exchange_event(event)

        self.exchange.event = event
        fields = [(name.encode(), value.encode()) for name, value in fields]
        c.http.send_headers(self.stream, fields)
        c.transmit()
        await asyncio.wait_for(self.exchange.begun.wait(), LIMIT)
        self.status, self.fields = self.exchange.status, dict(self.exchange.fields or [])
        return self

    async def send(self, data, end=False):
        for at in range(0, len(data), 65536):
            self.c.http.send_data(self.stream, data[at : at + 65536], False)
            self.c.transmit()
            # That something was taken is no event.
            while self.c.waiting(self.stream) > 1 << 20 and not self.exchange.ended.is_set():
                await asyncio.sleep(0.001)
        # Behind the end of what it sends, a server refuses the rest of what the client does.
        if end and not self.exchange.ended.is_set():
            self.c.http.send_data(self.stream, b"", True)
            self.c.transmit()

    async def receive(self):
        """What has come, as soon as there is some; nothing at the end."""
        await self.c.settle(lambda: self.data or self.exchange.ended.is_set())
        data, self.data = bytes(self.data), bytearray()
        return data

    async def wait(self):
        """Until it is over; says how it ended."""
        await asyncio.wait_for(self.exchange.ended.wait(), LIMIT)
        return {"reset": self.exchange.reset, "failed": self.exchange.failed}


class WebSocket(Tunnel):
    async def begin(self, c, protocol="websocket", method="CONNECT"):
        head = [(":method", method), (":protocol", protocol), (":path", SPEC["path"])]
        head += [(":scheme", SPEC.get("scheme", "https")), (":authority", SPEC.get("authority", "localhost"))]
        head += [("sec-websocket-version", "13"), *SPEC.get("fields", [])]
        await self.open(c, head)
        self.ws, self.events = Connection(ConnectionType.CLIENT), self.incoming()
        return self

    async def say(self, event):
        await self.send(self.ws.send(event))

    async def incoming(self):
        parts = []
        while data := await self.receive():
            self.ws.receive_data(data)
            for event in whole(self.ws.events(), parts):
                yield event

    async def echoes(self, message):
        await self.say(TextMessage(message) if isinstance(message, str) else BytesMessage(message))
        assert await anext(self.events) == message, len(message)


@asynccontextmanager
async def websocket():
    async with client() as c:
        ws = await WebSocket().begin(c)
        assert ws.status == 200, (ws.status, ws.data)
        for name in ["connection", "upgrade", "sec-websocket-accept", "content-length", "transfer-encoding"]:
            assert name not in ws.fields, ws.fields
        yield ws


async def ws_echo():
    async with websocket() as ws:
        for message in ["hello", b"\x00\xff" * 10, "", "x" * 100_000, bytes(range(256)) * 8192]:
            await ws.echoes(message)
        await ws.say(Ping(b"there?"))
        pong = await anext(ws.events)
        assert isinstance(pong, Pong) and pong.payload == b"there?", pong
        await ws.say(CloseConnection(4321, "done"))
        close = await anext(ws.events)
        await ws.send(b"", end=True)
        say(code=close.code, reason=close.reason, seen=ws.fields.get("x-seen"), **await ws.wait())


async def ws_close():
    """Says Close and ends its stream in one frame: the answer to it still comes."""
    async with websocket() as ws:
        await ws.echoes("hello")
        ws.c.http.send_data(ws.stream, ws.ws.send(CloseConnection(4321, "done")), True)
        ws.c.transmit()
        close = await anext(ws.events)
        say(code=close.code, reason=close.reason, **await ws.wait())


async def ws_raw():
    """Says the bytes of a file and ends, in a tunnel for each of them, all of one connection, and keeps what comes back."""
    async with client() as c:
        for n in range(SPEC["count"]):
            head = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", f"/{n}")]
            tunnel = await Tunnel().open(c, [*head, (":authority", "localhost"), ("sec-websocket-version", "13")])
            assert tunnel.status == 200, (n, tunnel.status)
            with open(f"{SPEC['directory']}/{n}.client", "rb") as file:
                await tunnel.send(file.read(), end=True)
            heard = b""
            while data := await tunnel.receive():
                heard += data
            with open(f"{SPEC['directory']}/{n}.heard", "wb") as file:
                file.write(heard)
    say(tunnels=SPEC["count"])


async def ws_many():
    """Fifty tunnels through one connection, all open at once, beside a request."""
    async with client() as c:
        tunnels = await asyncio.gather(*(WebSocket().begin(c) for _ in range(50)))
        for m in range(5):
            await asyncio.gather(*(ws.echoes(f"{n}:{m}") for n, ws in enumerate(tunnels)))
        exchange = await c.ask({"path": "/here"})
        say(tunnels=len(tunnels), status=exchange.status)


async def ws_answer():
    """Says how it is answered."""
    async with client() as c:
        ws = await WebSocket().begin(c, SPEC.get("protocol", "websocket"))
        if ws.status != 200:
            # One that goes before it has all of the answer would be logged as such.
            await ws.wait()
        say(status=ws.status, reset=ws.exchange.reset)


async def ws_held():
    """Opens, says hello and waits for the end."""
    async with websocket() as ws:
        await ws.echoes("hello")
        say(open=True)
        say(**await ws.wait())


async def ws_left():
    """Opens, says hello and waits to be told the end, which it answers."""
    async with websocket() as ws:
        await ws.echoes("hello")
        say(open=True)
        close = await anext(ws.events)
        await ws.say(close.response())
        say(code=close.code, **await ws.wait())


async def ws_given_up():
    """Opens and resets its stream."""
    async with websocket() as ws:
        await ws.echoes("hello")
        ws.c._quic.reset_stream(ws.stream, 0x10C)
        ws.c._quic.stop_stream(ws.stream, 0x10C)
        ws.c.transmit()
        await ws.c.ping()
        say(done=True)


async def ws_trailers():
    """Says in a tunnel what is none of a tunnel's."""
    async with websocket() as ws:
        await ws.echoes("hello")
        ws.c.http.send_headers(ws.stream, [(b"x-a", b"b")])
        ws.c.transmit()
        await ws.c.closed.wait()
        say(**ws.c.last)


async def upload():
    """Opens a tunnel by CONNECT, sends through it until nobody takes any more, and goes."""
    async with client() as c:
        tunnel = await Tunnel().open(c, [(":method", "CONNECT"), (":authority", SPEC["target"])])
        c.http.send_data(tunnel.stream, bytes(32 << 20), False)
        c.transmit()
        left = None
        while left != (left := c.waiting(tunnel.stream)):
            await asyncio.sleep(0.5)
        assert tunnel.status == 200 and left > 0, (tunnel.status, left)
        if SPEC["how"] == "reset":
            c._quic.reset_stream(tunnel.stream, 0x10C)
            c._quic.stop_stream(tunnel.stream, 0x10C)
            c.transmit()
            say(gone=True)
            await c.closed.wait()
    say(gone=True)


async def tunnel():
    """Opens a tunnel by CONNECT, says something in it, and takes all until its end."""
    async with client() as c:
        tunnel = await Tunnel().open(c, [(":method", "CONNECT"), (":authority", SPEC["target"])])
        await tunnel.send(SPEC["text"].encode(), end=True)
        text = b""
        while data := await tunnel.receive():
            text += data
        say(status=tunnel.status, text=text.decode(), **await tunnel.wait())


