#!/usr/bin/env python3
"""Publishes to a topic of a NexusD daemon and prints, for each message, the topic, the number the daemon gave it
and to how many subscriptions it goes."""

import argparse
import sys

from wire import (ERROR, MESSAGE, PUBLISH_ACK, PUBLISH_PAUSE, PUBLISH_RESUME, TOPIC_BIND, Connection, Problem, frame,
                  run, structs, table, text)

USAGE = "%(prog)s [--unix NAME | HOST:PORT] TOPIC PAYLOAD"
EPILOG = """\
Without --unix and HOST:PORT it tries the unix socket @nexusd/5672, then 127.0.0.1:5672.
Exit codes: 0 when the daemon has accepted every message, 1 for an error, 2 for a bad command line.

examples:
  publish.py plant/boiler/temperature 21.5
  publish.py 127.0.0.1:5672 plant/boiler/temperature 21.5
  seq 1000 | publish.py --unix @nexusd/5672 plant/counter -"""

FLAG_ACK = 0x10     # asks for a PublishAck entry
WINDOW = 256        # messages sent and not yet acknowledged, at most
TOPIC_ID = 0        # our ids are our own choice: the first is 0
STATUS = {1: "its topic was refused", 2: "it is longer than the daemon accepts", 4: "the daemon is stopping",
          5: "the daemon has no memory for it now, or you publish faster than you may",
          6: "it asks for something this version does not do"}


def arguments():
    parser = argparse.ArgumentParser(usage=USAGE, description=__doc__, epilog=EPILOG,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="+", metavar="[HOST:PORT] TOPIC PAYLOAD",
                        help="address of the daemon, where to publish, and what; the PAYLOAD - publishes each line "
                             "of stdin, once all are read")
    parser.add_argument("--unix", metavar="NAME", help="unix socket of the daemon: @NAME is abstract, else a path")
    args = parser.parse_intermixed_args()
    if not 2 <= len(args.words) <= (2 if args.unix else 3):
        parser.error("give TOPIC and PAYLOAD, and before them at most one of --unix NAME and HOST:PORT")
    args.topic, args.payload = args.words[-2:]
    args.address = args.words[0] if len(args.words) == 3 else None
    return args


def main():
    args = arguments()
    sys.stdout.reconfigure(errors="backslashreplace")
    # All of stdin is read first: a client that waits for somebody's input must go on answering pings.
    payloads = ([line.rstrip(b"\n") for line in sys.stdin.buffer] if args.payload == "-"
                else [args.payload.encode("utf-8", "surrogateescape")])
    daemon = Connection(args.unix, args.address, "publish.py")
    for payload in payloads:
        if len(payload) > daemon.max_payload:
            raise Problem(f"A payload has {len(payload)} bytes; the daemon accepts {daemon.max_payload}.")

    daemon.send(frame(TOPIC_BIND, table(("str", args.topic)), topic=TOPIC_ID))
    sent = acknowledged = 0
    paused = False
    while acknowledged < len(payloads):
        # Send while there is something to send and the daemon can take it, else read. Who never reads is not
        # read from either: answers that the daemon cannot get rid of hold it up.
        if sent < len(payloads) and sent - acknowledged < WINDOW and not paused:
            sent += 1       # our own numbers count from 1
            daemon.send(frame(MESSAGE, payloads[sent - 1], topic=TOPIC_ID, sequence=sent, flags=FLAG_ACK))
            continue
        got = daemon.receive()                          # answers pings, and raises Problem for fatal errors
        if got.kind == PUBLISH_PAUSE:                   # a subscriber is slow and its queue full
            paused = True
        elif got.kind == PUBLISH_RESUME:
            paused = False
        elif got.kind == ERROR:                         # not fatal: here it can only be the topic
            raise Problem(f"The daemon refused: {text(got.body, 1).rstrip('.')}.")
        elif got.kind == PUBLISH_ACK:                   # many entries in one frame, in our order
            for number, sequence, delivered, _, _, status in structs(got.body, 0, "QQIIIB3x"):
                if status != 0:
                    raise Problem(f"Message {number} was refused: {STATUS.get(status, f'status {status}')}.")
                print(args.topic, sequence, f"subscriptions={delivered}")
                acknowledged += 1
    daemon.close()


if __name__ == "__main__":
    run(main)
