

# Clients that mean harm. Each says what came of it; the server may end the connection at any time.

GET_SECTION = "0000d1d75006612e74657374c1"


def frame_of(kind, payload):
    frame = Buffer(capacity=len(payload) + 16)
    frame.push_uint_var(kind)
    frame.push_uint_var(len(payload))
    frame.push_bytes(payload)
    return frame.data


def literal(name, value):
    """A field that refers to nothing (RFC 9204 section 4.5.6); its name has less than 7 letters."""
    size, length = len(value), bytearray()
    if size < 127:
        length.append(size)
    else:
        length.append(127)
        size -= 127
        while size >= 128:
            length.append(size % 128 | 128)
            size //= 128
        length.append(size)
    return bytes([0x20 | len(name)]) + name + bytes(length) + value


async def room(c, unidirectional=False):
    """Waits until the server allows one more stream; says whether it does before the connection's end."""
    quic = c._quic
    number = lambda: quic.get_next_available_stream_id(is_unidirectional=unidirectional) // 4
    most = lambda: quic._remote_max_streams_uni if unidirectional else quic._remote_max_streams_bidi
    end = time.monotonic() + SPEC.get("limit", LIMIT)
    # aioquic does not say when it hears of more.
    while number() >= most() and not c.closed.is_set() and time.monotonic() < end:
        await asyncio.sleep(0.001)
    return number() < most() and not c.closed.is_set()


def open_stream(c, data, end=False, unidirectional=False):
    number = c._quic.get_next_available_stream_id(is_unidirectional=unidirectional)
    c._quic.send_stream_data(number, data, end)
    return number


async def taken(c, stream, most=1 << 16):
    """Waits until little of a stream is left to be sent."""
    while c.waiting(stream) > most and not c.closed.is_set():
        await asyncio.sleep(0.001)


async def churn():
    """Asks and takes it back, again and again."""
    async with client() as c:
        count = 0
        while count < SPEC["count"] and await room(c):
            stream = open_stream(c, frame_of(FrameType.HEADERS, bytes.fromhex(SPEC["section"])), SPEC.get("end", True))
            if SPEC.get("reset", True):
                if SPEC.get("apart"):
                    c.transmit()
                    await asyncio.sleep(0)
                if not SPEC.get("end", True):
                    c._quic.reset_stream(stream, 0x10C)
                c._quic.stop_stream(stream, 0x10C)
            c.transmit()
            count += 1
            if count % 16 == 0:
                await asyncio.sleep(0)
        await c.settle(lambda: False)
        say(count=count, close=c.last and c.last["code"])


async def churn_uni():
    """Opens streams that nobody knows and leaves them."""
    async with client() as c:
        count = 0
        while count < SPEC["count"] and await room(c, True):
            open_stream(c, bytes.fromhex("2100"), True, True)
            c.transmit()
            count += 1
        await c.settle(lambda: False)
        say(count=count, close=c.last and c.last["code"])


async def uni_held():
    """Opens all the streams that it may and never says what they are."""
    async with client() as c:
        count = 0
        while c._quic.get_next_available_stream_id(is_unidirectional=True) // 4 < c._quic._remote_max_streams_uni:
            # Half of a number of two bytes.
            open_stream(c, b"\x40", False, True)
            count += 1
        c.transmit()
        stream = open_stream(c, frame_of(FrameType.HEADERS, bytes.fromhex(GET_SECTION)), True)
        c.transmit()
        await c.settle(lambda: stream in c.ended)
        say(count=count, data=c.data.get(stream, b"").hex(), close=c.last)


async def stall():
    """Asks for much and lets no window grow."""
    async with client() as c:
        c._quic._write_stream_limits = c._quic._write_connection_limits = lambda *_, **__: None
        streams = []
        section = bytes.fromhex(SPEC["section"])
        for _ in range(SPEC["count"]):
            streams.append(open_stream(c, frame_of(FrameType.HEADERS, section), True))
        c.transmit()
        await c.settle(lambda: all(stream in c.resets for stream in streams))
        say(resets=[c.resets.get(stream) for stream in streams], close=c.last)


async def trickle():
    """Begins heads on many streams and goes on with a byte now and then."""
    async with client() as c:
        begin = bytes.fromhex(SPEC["begin"])
        streams = [open_stream(c, begin) for _ in range(SPEC["count"])]
        c.transmit()
        over = lambda stream: stream in c.ended or stream in c.resets
        end = time.monotonic() + LIMIT
        while not all(map(over, streams)) and not c.closed.is_set() and time.monotonic() < end:
            for stream in streams:
                if not over(stream) and stream not in c.stops:
                    c._quic.send_stream_data(stream, b"\x21\x01\x00" if SPEC.get("frames") else b"x")
            c.transmit()
            await asyncio.sleep(0.05)
        say(data=[c.data.get(stream, b"").hex() for stream in streams], over=sum(map(over, streams)), close=c.last)


async def control_flood():
    """Says the same on the control stream for as long as it may, and asks."""
    async with client() as c:
        control = c.http._local_control_stream_id
        piece = bytes.fromhex(SPEC["frame"])
        many = piece * (65536 // len(piece))
        sent = 0
        while sent < SPEC["size"] and not c.closed.is_set():
            c._quic.send_stream_data(control, many)
            c.transmit()
            sent += len(many)
            await taken(c, control)
            await asyncio.sleep(0)
        status = None
        if not c.closed.is_set():
            stream = open_stream(c, frame_of(FrameType.HEADERS, bytes.fromhex(GET_SECTION)), True)
            c.transmit()
            await c.settle(lambda: stream in c.ended)
            status = c.data.get(stream, b"").hex()
        say(sent=sent, data=status, close=c.last and c.last["code"])


async def sections():
    """Asks with sections that are large, or become so."""
    async with client() as c:
        section = bytes.fromhex(GET_SECTION)
        section += {
            # The longest field of the static table (RFC 9204 appendix A), thousands of times.
            "static": lambda: b"\xf9" * 60_000,
            # Letters of five bits.
            "huffman": lambda: b"\x21a\xff\xe1\xd3\x03" + b"\x00" * 60_000,
            "literal": lambda: literal(b"x", b"x" * 120_000),
            "many": lambda: literal(b"x", b"") * 20_000,
            # A value of 2^62 bytes, of which none comes.
            "endless": lambda: b"\x21a\x7f" + b"\xff" * 8 + b"\x3f",
            "announced": lambda: b"",
        }[SPEC["kind"]]()
        frame = frame_of(FrameType.HEADERS, section)
        if SPEC["kind"] == "announced":
            frame = bytes.fromhex("01bfffffff") + b"x" * 20_000
        streams = []
        for _ in range(SPEC["count"]):
            if not await room(c):
                break
            streams.append(open_stream(c, frame, SPEC["kind"] != "announced"))
            c.transmit()
            await asyncio.sleep(0)
        over = lambda stream: stream in c.ended or stream in c.resets
        await c.settle(lambda: all(map(over, streams)))
        say(data=[c.data.get(stream, b"").hex()[:2] for stream in streams], close=c.last and c.last["code"])


async def frames():
    """A body of nothing but some frames; without a section, they come before the head."""
    async with client() as c:
        section = SPEC["section"]
        stream = open_stream(c, frame_of(FrameType.HEADERS, bytes.fromhex(section)) if section else b"")
        sent, piece = 0, bytes.fromhex(SPEC["frame"]) * 1000
        while sent < SPEC["count"] and not c.closed.is_set() and stream not in c.stops:
            c._quic.send_stream_data(stream, piece)
            c.transmit()
            sent += 1000
            await taken(c, stream, 4096)
            await asyncio.sleep(0)
        await c.settle(c.closed.is_set)
        say(sent=sent, close=c.last and c.last["code"])


async def slow_body():
    """Sends a body of a byte in a tenth of a second until it is answered."""
    async with client() as c:
        stream, exchange = c.begin({"method": "POST", "path": SPEC["path"], "hold": True})
        end = time.monotonic() + LIMIT
        while not exchange.ended.is_set() and exchange.stopped is None and time.monotonic() < end:
            c.http.send_data(stream, b"x", False)
            c.transmit()
            await asyncio.sleep(0.1)
        await asyncio.wait_for(exchange.ended.wait(), LIMIT)
        say(**exchange.told())
