"""A client of WebSocket over HTTP/2 (RFC 8441), by hyper-h2 and wsproto: what to do, the port, the path, and fields of
the request as NAME=VALUE. Prints what came of it."""

import os, socket, sys
import h2.config, h2.connection, h2.events, h2.exceptions
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate


class Http2(h2.connection.H2Connection):
    """A server that goes away finishes what was asked before (RFC 9113 section 6.8); the library takes it for the end."""

    def _receive_goaway_frame(self, frame):
        if frame.error_code:
            return super()._receive_goaway_frame(frame)
        event = h2.events.ConnectionTerminated()
        event.error_code = frame.error_code
        return [], [event]


class Tunnel:
    """A CONNECT with `:protocol`, once it is answered; what comes through is acknowledged while `takes`."""

    def __init__(self, port, path, fields=(), protocol="websocket"):
        self.tcp = socket.create_connection(("127.0.0.1", int(port)), timeout=30)
        self.h2 = Http2(h2.config.H2Configuration(header_encoding="utf-8"))
        self.status = self.reset = self.goaway = None
        self.settled = self.ended = False
        self.takes = True
        self.owed = 0
        self.data = bytearray()
        self.received = 0
        self.h2.initiate_connection()
        self.flush()
        while not self.settled:
            self.pump()
        assert self.h2.remote_settings.enable_connect_protocol == 1
        self.stream = self.h2.get_next_available_stream_id()
        head = [(":method", "CONNECT"), (":protocol", protocol), (":scheme", "http"), (":path", path)]
        head += [(":authority", "localhost"), ("sec-websocket-version", "13"), *fields]
        self.h2.send_headers(self.stream, head)
        self.flush()
        while self.status is None and self.reset is None:
            self.pump()

    def flush(self):
        self.tcp.sendall(self.h2.data_to_send())

    def pump(self):
        data = self.tcp.recv(65536)
        if not data:
            raise EOFError
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RemoteSettingsChanged):
                self.settled = True
            elif isinstance(event, h2.events.ResponseReceived):
                self.fields = dict(event.headers)
                self.status = int(self.fields[":status"])
            elif isinstance(event, h2.events.DataReceived):
                self.data += event.data
                self.received += len(event.data)
                self.owed += event.flow_controlled_length
            elif isinstance(event, h2.events.StreamEnded):
                self.ended = True
            elif isinstance(event, h2.events.StreamReset):
                self.reset = event.error_code
            elif isinstance(event, h2.events.ConnectionTerminated):
                self.goaway = event.error_code
        if self.takes and self.owed and not self.ended and self.reset is None:
            self.h2.acknowledge_received_data(self.owed, self.stream)
            self.owed = 0
        self.flush()

    def room(self):
        return min(self.h2.local_flow_control_window(self.stream), self.h2.max_outbound_frame_size)

    def send(self, data):
        view = memoryview(data)
        while view:
            if self.room() <= 0:
                self.pump()
                continue
            piece, view = view[: self.room()], view[self.room() :]
            self.h2.send_data(self.stream, piece.tobytes())
            self.flush()

    def finish(self):
        if not self.ended:
            self.h2.end_stream(self.stream)
            self.flush()

    def wait(self):
        """Until the stream is over; says how it ended."""
        while not self.ended and self.reset is None:
            self.pump()
        # Behind the end of what it sends, a server may refuse the rest of what the client does.
        return "ended" if self.ended else f"reset {int(self.reset)}"


class WebSocket(Tunnel):
    def __init__(self, port, path, fields=(), extensions=()):
        super().__init__(port, path, fields)
        assert self.status == 200, (self.status, bytes(self.data))
        for name in ["connection", "upgrade", "sec-websocket-accept", "content-length", "transfer-encoding"]:
            assert name not in self.fields, self.fields
        accepted = self.fields.get("sec-websocket-extensions")
        for extension in extensions:
            assert accepted, self.fields
            extension.finalize(accepted)
        self.ws = Connection(ConnectionType.CLIENT, list(extensions))
        self.events = self.incoming()

    def say(self, event):
        self.send(self.ws.send(event))

    def incoming(self):
        parts = []
        while True:
            if self.data:
                data, self.data = bytes(self.data), bytearray()
                self.ws.receive_data(data)
                yield from whole(self.ws.events(), parts)
            else:
                self.pump()


def echo(port, path, *fields):
    ws = WebSocket(port, path, fields)
    for message in ["hello", b"\x00\xff" * 10, "", "x" * 100_000, os.urandom(2_000_000)]:
        ws.say(TextMessage(message) if isinstance(message, str) else BytesMessage(message))
        assert next(ws.events) == message, len(message)
    ws.say(Ping(b"there?"))
    pong = next(ws.events)
    assert isinstance(pong, Pong) and pong.payload == b"there?", pong
    ws.say(CloseConnection(4321, "done"))
    close = next(ws.events)
    ws.finish()
    print(ws.fields.get("x-seen", ""), close.code, close.reason, ws.wait())


def close(port, path):
    """Says Close and ends its stream in one frame, as browsers do: the answer to it still comes."""
    ws = WebSocket(port, path)
    ws.say(TextMessage("hello"))
    assert next(ws.events) == "hello"
    ws.h2.send_data(ws.stream, ws.ws.send(CloseConnection(4321, "done")), end_stream=True)
    ws.flush()
    end = ws.wait()
    ws.ws.receive_data(bytes(ws.data))
    print(*((event.code, event.reason) for event in ws.ws.events()), end)


def end(port, path):
    """Ends its stream without a word of why."""
    ws = WebSocket(port, path)
    ws.finish()
    print(ws.wait())


def deflate(port, path):
    extension = PerMessageDeflate()
    ws = WebSocket(port, path, [("sec-websocket-extensions", f"permessage-deflate; {extension.offer()}")], [extension])
    ws.say(TextMessage("x" * 1_000_000))
    assert next(ws.events) == "x" * 1_000_000
    assert ws.received < 20_000, ws.received
    print("deflated")


def stall(port, path):
    """Sends and takes nothing: what waits in between has bounds. Then takes all."""
    ws = WebSocket(port, path)
    ws.takes = False
    message = os.urandom(1_000_000)
    frame, sent = memoryview(ws.ws.send(BytesMessage(message))), 0
    ws.tcp.settimeout(1)
    messages = 0
    try:
        while messages < 60:
            while frame:
                if ws.room() <= 0:
                    ws.pump()
                    continue
                piece, frame = frame[: ws.room()], frame[ws.room() :]
                ws.h2.send_data(ws.stream, piece.tobytes())
                ws.flush()
                sent += len(piece)
            messages += 1
            frame = memoryview(ws.ws.send(BytesMessage(message)))
    except TimeoutError:
        pass
    assert sent < 50_000_000, sent
    ws.tcp.settimeout(30)
    ws.takes = True
    ws.h2.acknowledge_received_data(ws.owed, ws.stream)
    ws.owed = 0
    ws.flush()
    ws.send(frame)
    for _ in range(messages + 1):
        assert next(ws.events) == message
    print("stalled")


def many(port, path):
    """Fifty tunnels through connections of their own, all open at once."""
    tunnels = [WebSocket(port, path) for _ in range(50)]
    for m in range(5):
        for n, ws in enumerate(tunnels):
            ws.say(TextMessage(f"{n}:{m}"))
        for n, ws in enumerate(tunnels):
            assert next(ws.events) == f"{n}:{m}"
    print("all")


def answer(port, path, *fields, protocol="websocket"):
    tunnel = Tunnel(port, path, fields, protocol)
    print(tunnel.status, tunnel.fields.get("x-reason", tunnel.fields.get("proxy-status", "")))


def other(port, path):
    answer(port, path, protocol="connect-udp")


def held(port, path):
    """Opens, says hello and waits for the end."""
    ws = WebSocket(port, path)
    ws.say(TextMessage("hello"))
    assert next(ws.events) == "hello"
    print("open")
    try:
        print(ws.wait())
    except (EOFError, ConnectionError, h2.exceptions.ProtocolError):  # it holds GOAWAY for the connection's end
        print("closed")


def left(port, path):
    """Opens, says hello and waits to be told the end, which it answers."""
    ws = WebSocket(port, path)
    ws.say(TextMessage("hello"))
    assert next(ws.events) == "hello"
    print("open")
    close = next(ws.events)
    ws.say(close.response())
    print(close.code, ws.wait())


def given_up(port, path):
    """Opens and resets the stream."""
    ws = WebSocket(port, path)
    ws.say(TextMessage("hello"))
    assert next(ws.events) == "hello"
    ws.h2.reset_stream(ws.stream, 8)
    ws.flush()
    print("reset")


def raw(port, path, *given):
    """Says the bytes of a file through a tunnel of its own, for each of them, and keeps what comes back."""
    given = dict(given)
    for n in range(int(given["count"])):
        tunnel = Tunnel(port, f"{path}{n}")
        assert tunnel.status == 200, (n, tunnel.status)
        with open(os.path.join(given["in"], f"{n}.client"), "rb") as file:
            tunnel.send(file.read())
        tunnel.wait()
        with open(os.path.join(given["in"], f"{n}.heard"), "wb") as file:
            file.write(tunnel.data)
        tunnel.tcp.close()
    print("all")


what, port, path, *fields = sys.argv[1:]
globals()[what](port, path, *[tuple(field.split("=", 1)) for field in fields])
