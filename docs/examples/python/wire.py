"""What every NexusD client needs: frames, FlatBuffers bodies, and a connection that says Hello.

Written from docs/PROTOCOL.md alone ("section 2" is one of its sections) and without any library, to be read by
those who write a client in another language. subscribe.py and publish.py show the conversation.
"""

import socket
import struct
import sys

# Kinds of frames, of section 5: those that these examples send or look at.
HELLO, WELCOME, PING, PONG, GOODBYE, ERROR = 1, 2, 3, 4, 5, 6
TOPIC_BIND, TOPIC_UNBIND, MESSAGE, PUBLISH_ACK, PUBLISH_PAUSE, PUBLISH_RESUME = 16, 17, 19, 20, 21, 22
SUBSCRIBE, SUBSCRIPTION_INFO, DELIVER, GAP, HEARTBEAT = 32, 33, 48, 49, 51

HEADER = struct.Struct("<IBBHIIQQQII")      # section 2: 48 bytes, little endian
CONTROL_LIMIT = 256 * 1024                  # section 9: the longest frame that is not a Message
CONNECT_SECONDS, QUIET_SECONDS, PONG_SECONDS = 5, 30, 10


class Problem(Exception):
    """What went wrong, in one sentence for the user."""


# ---- Reading FlatBuffers (Appendix A). A position counts from the first byte of the body `b`. ----

def unpack(b, at, form):
    return struct.unpack_from("<" + form, b, at)[0]

def field(b, index):
    """Position of a field of the root table, or None if it is absent."""
    table_at = unpack(b, 0, "I")
    vtable = table_at - unpack(b, table_at, "i")
    slot = 4 + 2 * index
    if slot + 2 > unpack(b, vtable, "H"):   # an older writer: its tables end before this field
        return None
    offset = unpack(b, vtable + slot, "H")
    return table_at + offset if offset else None

def number(b, index, form):
    """A number or bool in place; 0 if absent. Forms: ? bool, B ubyte, H ushort, I uint, Q ulong, q long."""
    at = field(b, index)
    return unpack(b, at, form) if at is not None else 0

def text(b, index):
    """A string; empty if absent."""
    at = field(b, index)
    if at is None:
        return ""
    at += unpack(b, at, "I")                # strings and vectors are reached by a relative offset
    return b[at + 4 : at + 4 + unpack(b, at, "I")].decode()

def id16(b, index):
    """An id: its 16 bytes as they are, to compare and to send back."""
    at = field(b, index)
    return b[at : at + 16]

def structs(b, index, layout):
    """A vector of structs as a list of tuples."""
    at = field(b, index)
    if at is None:
        return []
    at += unpack(b, at, "I")
    layout = struct.Struct("<" + layout)
    return [layout.unpack_from(b, at + 4 + i * layout.size) for i in range(unpack(b, at, "I"))]


# ---- Writing FlatBuffers (Appendix A): vtable first, then the table, then what the table refers to. ----

def table(*fields):
    """A body. A field is None (absent), or a pair: a form as of number() and a number, "str" and a text,
    "strs" and a list of texts."""
    def size(form):
        return 4 if form in ("str", "strs") else struct.calcsize("<" + form)
    start = (4 + 4 + 2 * len(fields) + 7) // 8 * 8      # of the table: behind root offset and vtable
    end, slots = start + 4, []
    for f in fields:                                    # find a place for every field
        if f is None:
            slots.append(0)
            continue
        end = (end + size(f[0]) - 1) // size(f[0]) * size(f[0])
        slots.append(end - start)
        end += size(f[0])
    out = bytearray(end)
    struct.pack_into("<IHH%dH" % len(slots), out, 0, start, 4 + 2 * len(slots), end - start, *slots)
    struct.pack_into("<i", out, start, start - 4)       # the vtable stands at 4

    def append(at, data):
        """Puts data at the end, aligned to 4, and the offset to it at `at`."""
        out.extend(b"\0" * (-len(out) % 4))
        place = len(out)
        struct.pack_into("<I", out, at, place - at)
        out.extend(data)
        return place

    def append_text(at, s):
        append(at, struct.pack("<I", len(s.encode())) + s.encode() + b"\0")

    for f, slot in zip(fields, slots):
        if f is None:
            continue
        form, value = f
        if form == "str":
            append_text(start + slot, value)
        elif form == "strs":
            vector = append(start + slot, struct.pack("<I", len(value)) + bytes(4 * len(value)))
            for i, s in enumerate(value):
                append_text(vector + 4 + 4 * i, s)
        else:
            struct.pack_into("<" + form, out, start + slot, value)
    return bytes(out)


# ---- Frames (section 2) ----

def pad8(n):
    return (n + 7) // 8 * 8

def frame(kind, body=b"", topic=0, sequence=0, flags=0):
    """The bytes of a frame without metadata."""
    header = HEADER.pack(HEADER.size + len(body), kind, flags, 0, topic, 0, sequence, 0, 0, 0, 0)
    return header + body + bytes(-len(body) % 8)        # `total` does not count the padding behind

class Frame:
    """A frame that was received. `body` is a FlatBuffers body, or the payload of a Message."""
    def __init__(self, data):
        (total, self.kind, self.flags, metadata_len, self.topic, self.origin, self.sequence,
         self.origin_sequence, self.timestamp_us, self.ttl_ms, self.key_hash) = HEADER.unpack_from(data)
        self.metadata = data[HEADER.size : HEADER.size + metadata_len]
        self.body = data[HEADER.size + pad8(metadata_len) : total]


# ---- A connection (sections 1, 4 and 8) ----

def connect(unix, address):
    """A socket and its name: at the unix socket or HOST:PORT given, or else where a daemon is by default."""
    if unix is None and address is None:                # section 1: the unix socket is the faster way
        try:
            return connect("@nexusd/5672", None)
        except Problem:
            return connect(None, "127.0.0.1:5672")
    name = unix or address
    try:
        if unix:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(CONNECT_SECONDS)
            # An abstract name has a zero byte where a path has its first character, and no zero byte at its end.
            sock.connect("\0" + unix[1:] if unix.startswith("@") else unix)
        else:
            host, colon, port = address.rpartition(":")
            if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
                raise Problem(f"'{address}' is no address; write it as HOST:PORT, for example 127.0.0.1:5672.")
            sock = socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, AttributeError) as e:
        raise Problem(f"Cannot connect to {name}: {getattr(e, 'strerror', None) or e}; is nexusd running there?")
    return sock, name


class Connection:     # on which Hello and Welcome were said
    def __init__(self, unix, address, client_name):
        self.sock, self.name = connect(unix, address)
        self.buffer = bytearray()                       # received and not yet read
        self.asked = False                              # whether the daemon owes a sign of life
        self.farewell = None                            # the daemon's Goodbye
        self.max_message = CONTROL_LIMIT
        # Fields of Hello, by index: major, minor, role, name, software. 1.0 is the version spoken here.
        self.send(frame(HELLO, table(("B", 1), ("B", 0), None, ("str", client_name), ("str", "example/1.0"))))
        welcome = self.receive()
        if welcome.kind != WELCOME:
            raise Problem(f"{self.name} does not answer like a NexusD daemon.")
        self.max_payload = number(welcome.body, 4, "I")
        self.max_message = HEADER.size + pad8(number(welcome.body, 5, "I")) + self.max_payload
        self.sock.settimeout(QUIET_SECONDS)

    def send(self, data):
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass    # the daemon has closed; why stands in what it sent before, which receive() will find

    def receive(self):
        """The next frame. What every client treats alike is done here: pings, fatal errors, the end."""
        while True:
            total, kind = struct.unpack_from("<IB", self.peek(HEADER.size))
            if not HEADER.size <= total <= (self.max_message if kind == MESSAGE else CONTROL_LIMIT):
                raise Problem(f"{self.name} does not speak the NexusD protocol.")
            got = Frame(bytes(self.peek(pad8(total))[:total]))
            del self.buffer[: pad8(total)]
            if kind == PING:                            # answer at once, with the same token
                self.send(frame(PONG, sequence=got.sequence))
            elif kind == GOODBYE:                       # the daemon stops; more may follow, so read on
                self.farewell = text(got.body, 0)
            elif kind == ERROR and number(got.body, 2, "?"):
                raise Problem(f"The daemon closed the connection: {text(got.body, 1).rstrip('.')}.")
            elif kind not in (PONG, HEARTBEAT):         # these two only show that the daemon lives
                return got

    def peek(self, count):
        """The buffer, with at least `count` bytes in it."""
        while len(self.buffer) < count:
            try:
                data = self.sock.recv(1 << 16)
            except socket.timeout:                      # nothing came for a while: ask, and wait a little more
                if self.asked or self.sock.gettimeout() == CONNECT_SECONDS:
                    raise Problem(f"{self.name} does not answer.")
                self.asked = True
                self.send(frame(PING, sequence=1))
                self.sock.settimeout(PONG_SECONDS)
                continue
            except ConnectionResetError:
                data = b""
            if not data:
                why = f": {self.farewell}" if self.farewell else " without a word"
                raise Problem(f"The daemon ended the connection{why}.")
            self.buffer += data
            if self.asked:
                self.asked = False
                self.sock.settimeout(QUIET_SECONDS)
        return self.buffer

    def close(self):
        """Says Goodbye and reads to the end. Closing with bytes unread could make the kernel reset the
        connection, and the daemon lose what was sent last."""
        self.sock.settimeout(CONNECT_SECONDS)
        self.send(frame(GOODBYE, table(("str", "done"))))
        try:
            while self.sock.recv(1 << 16):
                pass
        except OSError:
            pass


def run(main):
    """Runs a program: 0 when it returns, 1 and one sentence on stderr for what went wrong."""
    try:
        main()
        sys.stdout.flush()
    except Problem as e:
        sys.exit(str(e))                                # prints it to stderr; the exit code is 1
    except BrokenPipeError:                             # the reader of our output has gone, as in `| head`
        sys.stderr.close()
        sys.exit(1)
    except OSError as e:
        sys.exit(f"The connection failed: {e.strerror or e}.")
    except (struct.error, TypeError, UnicodeDecodeError):
        sys.exit("The daemon sent a frame that this client cannot read.")
    except KeyboardInterrupt:
        sys.exit(130)
