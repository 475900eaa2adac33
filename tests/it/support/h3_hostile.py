

# Clients that mean harm. Each says what came of it; the server may end the connection at any time.


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
