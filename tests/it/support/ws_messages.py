"""What clients of WebSocket share: wsproto's events, with messages made whole."""

from wsproto.events import BytesMessage, TextMessage


def whole(events, parts):
    for event in events:
        if isinstance(event, (BytesMessage, TextMessage)):
            parts.append(event.data)
            if event.message_finished:
                yield ("" if isinstance(event, TextMessage) else b"").join(parts)
                parts.clear()
        else:
            yield event


